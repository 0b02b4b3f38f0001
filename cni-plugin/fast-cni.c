// SPDX-License-Identifier: Apache-2.0
/*
 * fast-cni: the executable that the container runtime calls. It sends the CNI environment and
 * stdin to fast-agent over its unix socket, prints the reply and exits with the reply's status.
 * The verbs are in the agent (src/fast/cni), not here. The only JSON that this file reads is the
 * top-level "cniVersion".
 *
 * Without the agent it answers VERSION, says "try again later" (ADD, CHECK, GC) or "not available"
 * (STATUS), and leaves a tombstone for DEL. The agent carries out tombstones before its first ADD.
 *
 * For ADD and CHECK it opens CNI_NETNS and passes the descriptor (SCM_RIGHTS) with the first byte
 * of the request: a path such as /proc/PID/ns/net means something else in the agent's PID and
 * mount namespaces.
 *
 * Frame (all integers u32 little endian; src/fast/cni/frames.py is the other end):
 *   request: env length, stdin length, env as NUL-terminated KEY=VALUE (CNI_* only), stdin
 *   reply:   exit status, length, what to print on stdout
 * A tombstone file holds one request frame.
 */
#define _POSIX_C_SOURCE 200809L

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cni_versions.h"

#define FAST_VERSION "0.1.0"

#define MAX_ENV_BYTES	(64 * 1024)
#define MAX_STDIN_BYTES (1024 * 1024)
#define MAX_REPLY_BYTES (1024 * 1024)
#define MAX_CONTAINER_ID_BYTES                                                                     \
	200 /* with ":", an interface name and ".new" it must fit into a file name of 255 */
#define MAX_IFNAME_BYTES      15
#define MAX_CNI_VERSION_BYTES 31

#define DEFAULT_SOCKET	  "/run/fast/agent.sock"
#define DEFAULT_STATE_DIR "/var/lib/fast"
#define DEFAULT_TIMEOUT_S 100 /* below kubelet's runtime request timeout of 120 s */
#define STATUS_TIMEOUT_S  5   /* the runtime asks often; an agent that hangs is soon reported */

/* Error codes of the CNI specification, "Well-known error codes". */
enum cni_error {
	CNI_INVALID_ENVIRONMENT = 4,
	CNI_IO_FAILURE = 5,
	CNI_INVALID_CONFIG = 7,
	CNI_TRY_AGAIN_LATER = 11,
	CNI_NOT_AVAILABLE = 50,
};

extern char **environ;

/* One call: the parts of its frame. */
static char env_block[MAX_ENV_BYTES];
static uint32_t env_bytes;
static char stdin_block[MAX_STDIN_BYTES + 1]; /* one more byte, to detect input that is too large */
static uint32_t stdin_bytes;

static char cni_version[MAX_CNI_VERSION_BYTES + 1] = NEWEST_CNI_VERSION;
static int64_t deadline_ms;

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int remaining_ms(void)
{
	int64_t left = deadline_ms - now_ms();

	return left > 0 ? (int)left : 0;
}

static void print_json_string(const char *text)
{
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20 || *c >= 0x7f)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

/* Prints the specification's error object; the result is the exit status. */
static int fail(enum cni_error code, const char *message, const char *details)
{
	printf("{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":", cni_version, code);
	print_json_string(message);
	printf(",\"details\":");
	print_json_string(details);
	printf("}\n");
	return fflush(stdout) ? 2 : 1;
}

static const char *env_or(const char *name, const char *fallback)
{
	const char *value = getenv(name);

	return value && *value ? value : fallback;
}

/* Waits until the descriptor is ready or the call's deadline has passed (ETIMEDOUT). */
static int wait_for(int fd, short events)
{
	struct pollfd item = {.fd = fd, .events = events};

	for (;;) {
		int ready = poll(&item, 1, remaining_ms());

		if (ready > 0)
			return 0;
		if (ready == 0) {
			errno = ETIMEDOUT;
			return -1;
		}
		if (errno != EINTR)
			return -1;
	}
}

/* Writes everything, to a file, pipe or socket. */
static int write_all(int fd, const void *data, size_t bytes)
{
	const char *at = data;

	while (bytes) {
		ssize_t done = write(fd, at, bytes);

		if (done > 0) {
			at += done;
			bytes -= (size_t)done;
		} else if (done < 0 && errno == EAGAIN) {
			if (wait_for(fd, POLLOUT))
				return -1;
		} else if (done < 0 && errno != EINTR) {
			return -1;
		}
	}
	return 0;
}

/* Reads until the end of input or `bytes`; the number read, or -1. */
static ssize_t read_upto(int fd, void *data, size_t bytes)
{
	size_t have = 0;

	while (have < bytes) {
		if (wait_for(fd, POLLIN))
			return -1;
		ssize_t done = read(fd, (char *)data + have, bytes - have);

		if (done == 0)
			break;
		if (done < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return -1;
		}
		have += (size_t)done;
	}
	return (ssize_t)have;
}

static int read_exactly(int fd, void *data, size_t bytes)
{
	ssize_t done = read_upto(fd, data, bytes);

	if (done < 0)
		return -1;
	if ((size_t)done < bytes) {
		errno = ECONNRESET;
		return -1;
	}
	return 0;
}

static int collect_environment(void)
{
	for (char **entry = environ; *entry; entry++) {
		size_t bytes = strlen(*entry) + 1;

		if (strncmp(*entry, "CNI_", 4))
			continue;
		if (bytes > sizeof(env_block) - env_bytes)
			return -1;
		memcpy(env_block + env_bytes, *entry, bytes);
		env_bytes += (uint32_t)bytes;
	}
	return 0;
}

static const char *end_of_string(const char *at, const char *end)
{
	for (; at < end && *at != '"'; at++)
		if (*at == '\\')
			at++;
	return at < end ? at : end;
}

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && isspace((unsigned char)*at))
		at++;
	return at;
}

static int plausible_version(const char *text, size_t bytes)
{
	if (bytes == 0 || bytes > MAX_CNI_VERSION_BYTES)
		return 0;
	for (size_t i = 0; i < bytes; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr(".+-", text[i]))
			return 0;
	return 1;
}

/*
 * Finds the value of the outermost object's "cniVersion" (prevResult has its own). Anything
 * unexpected leaves the newest version: the agent refuses bad JSON.
 */
static void scan_cni_version(void)
{
	static const char key[] = "cniVersion";
	const char *end = stdin_block + stdin_bytes;
	int depth = 0;

	for (const char *at = stdin_block; at < end; at++) {
		if (*at == '{' || *at == '[')
			depth++;
		else if (*at == '}' || *at == ']')
			depth--;
		if (*at != '"')
			continue;

		const char *text = at + 1;

		at = end_of_string(text, end);
		if (depth != 1 || (size_t)(at - text) != sizeof(key) - 1 ||
		    memcmp(text, key, sizeof(key) - 1))
			continue;

		const char *colon = skip_space(at < end ? at + 1 : end, end);

		if (colon == end || *colon != ':')
			continue; /* a value, not a key */

		const char *value = skip_space(colon + 1, end);

		if (value == end || *value != '"')
			return;
		value++;

		size_t bytes = (size_t)(end_of_string(value, end) - value);

		if (plausible_version(value, bytes)) {
			memcpy(cni_version, value, bytes);
			cni_version[bytes] = '\0';
		}
		return;
	}
}

static int answer_version(void)
{
	printf("{\"cniVersion\":\"%s\",\"supportedVersions\":[%s]}\n", cni_version,
	       SUPPORTED_VERSIONS);
	return fflush(stdout) ? 2 : 0;
}

/* The specification: starts alphanumeric, then alphanumerics, "_", "." and "-". */
static int valid_container_id(const char *id)
{
	size_t bytes = strlen(id);

	if (bytes == 0 || bytes > MAX_CONTAINER_ID_BYTES || !isalnum((unsigned char)*id))
		return 0;
	for (const char *c = id; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_.-", *c))
			return 0;
	return 1;
}

/* JSON is UTF-8: a result with such a name could not be written. Accepts what RFC 3629 accepts. */
static int valid_utf8(const char *text)
{
	const unsigned char *c = (const unsigned char *)text;

	while (*c) {
		int more = *c < 0x80   ? 0
			   : *c < 0xc2 ? -1
			   : *c < 0xe0 ? 1
			   : *c < 0xf0 ? 2
			   : *c < 0xf5 ? 3
				       : -1;
		unsigned char low = *c == 0xe0 ? 0xa0 : *c == 0xf0 ? 0x90 : 0x80;
		unsigned char high = *c == 0xed ? 0x9f : *c == 0xf4 ? 0x8f : 0xbf;

		if (more < 0)
			return 0;
		for (c++; more; more--, c++, low = 0x80, high = 0xbf)
			if (*c < low || *c > high)
				return 0;
	}
	return 1;
}

static int valid_ifname(const char *name)
{
	size_t bytes = strlen(name);

	if (bytes == 0 || bytes > MAX_IFNAME_BYTES || !strcmp(name, ".") || !strcmp(name, "..") ||
	    !valid_utf8(name))
		return 0;
	for (const char *c = name; *c; c++)
		if (*c == '/' || *c == ':' || isspace((unsigned char)*c))
			return 0;
	return 1;
}

static int fsync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -1;

	int failed = fsync(fd);
	int error = errno;

	close(fd);
	errno = error;
	return failed;
}

static int write_frame(int fd)
{
	uint32_t header[2] = {env_bytes,
			      stdin_bytes}; /* Fast runs on little-endian machines only */

	if (write_all(fd, header, sizeof(header)) || write_all(fd, env_block, env_bytes))
		return -1;
	return write_all(fd, stdin_block, stdin_bytes);
}

static int write_synced(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;

	int failed = write_frame(fd) || fsync(fd);
	int error = errno;

	close(fd);
	if (failed)
		unlink(path);
	errno = error;
	return failed ? -1 : 0;
}

/*
 * Keeps the DEL for the agent. The name is the attachment's identity, so a repeated DEL makes no
 * second file. The rename makes the file appear whole or not at all.
 */
static int leave_tombstone(const char *container_id, const char *ifname)
{
	const char *state_dir = env_or("FAST_STATE_DIR", DEFAULT_STATE_DIR);
	char directory[3072], path[4096], fresh[4160];

	if (snprintf(directory, sizeof(directory), "%s/tombstones", state_dir) >=
	    (int)sizeof(directory)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if ((mkdir(state_dir, 0700) && errno != EEXIST) ||
	    (mkdir(directory, 0700) && errno != EEXIST))
		return -1;
	snprintf(path, sizeof(path), "%s/%s:%s", directory, container_id, ifname);
	/* the PID: a runtime that gave up on one DEL may already have started the next */
	snprintf(fresh, sizeof(fresh), "%s/.new-%ld", directory, (long)getpid());
	if (write_synced(fresh))
		return -1;
	if (rename(fresh, path)) {
		int error = errno;

		unlink(fresh);
		errno = error;
		return -1;
	}
	return fsync_directory(directory) || fsync_directory(state_dir);
}

static int delete_without_agent(void)
{
	const char *container_id = env_or("CNI_CONTAINERID", "");
	const char *ifname = env_or("CNI_IFNAME", "");

	if (!valid_container_id(container_id))
		return fail(CNI_INVALID_ENVIRONMENT, "CNI_CONTAINERID is missing or not valid",
			    container_id);
	if (!valid_ifname(ifname))
		return fail(CNI_INVALID_ENVIRONMENT, "CNI_IFNAME is missing or not valid", ifname);
	if (leave_tombstone(container_id, ifname))
		return fail(CNI_IO_FAILURE,
			    "fast-agent is away, and the tombstone of this DEL cannot be written",
			    strerror(errno));
	return 0;
}

/* The answer if the agent cannot be reached, or dies during the call. */
static int answer_without_agent(const char *command, const char *what, int error)
{
	const int late = error == ETIMEDOUT || error == EAGAIN; /* a full backlog is EAGAIN */
	char details[4352];

	if (!strcmp(command, "DEL"))
		return delete_without_agent();
	snprintf(details, sizeof(details), "%s %s: %s", what,
		 env_or("FAST_AGENT_SOCKET", DEFAULT_SOCKET), strerror(error));
	if (!strcmp(command, "STATUS"))
		return fail(CNI_NOT_AVAILABLE,
			    late ? "fast-agent does not answer in time"
				 : "fast-agent is not running on this node",
			    details);
	return fail(CNI_TRY_AGAIN_LATER,
		    late ? "fast-agent does not answer in time, try again later"
			 : "fast-agent is not running on this node, try again later",
		    details);
}

static int connect_to_agent(void)
{
	const char *path = env_or("FAST_AGENT_SOCKET", DEFAULT_SOCKET);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int milliseconds = remaining_ms();
	struct timeval timeout = {.tv_sec = milliseconds / 1000,
				  .tv_usec = milliseconds % 1000 * 1000 + 1};

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path));

	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    fcntl(fd, F_SETFL, O_NONBLOCK)) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/*
 * Opens the sandbox's network namespace, for the agent. -1 if there is none to open: the agent then
 * says what is wrong with the path. O_NONBLOCK: opening a FIFO would wait for its other end.
 */
static int open_netns(const char *command)
{
	if (strcmp(command, "ADD") && strcmp(command, "CHECK"))
		return -1;
	return open(env_or("CNI_NETNS", ""), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* Sends the frame's header with the descriptor, if there is one, and then the rest. */
static int send_frame(int fd, int netns)
{
	uint32_t header[2] = {env_bytes, stdin_bytes};
	struct iovec data = {.iov_base = header, .iov_len = sizeof(header)};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

	if (netns >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &netns, sizeof(int));
	}
	for (;;) {
		ssize_t sent = sendmsg(fd, &message, 0);

		if (sent == (ssize_t)sizeof(header))
			break;
		if (sent >= 0) { /* not expected: the kernel accepts this few bytes in one call */
			errno = EIO;
			return -1;
		}
		if (errno == EAGAIN && !wait_for(fd, POLLOUT))
			continue;
		if (errno != EINTR)
			return -1;
	}
	if (write_all(fd, env_block, env_bytes))
		return -1;
	return write_all(fd, stdin_block, stdin_bytes);
}

static int forward(const char *command)
{
	static char reply[MAX_REPLY_BYTES];
	uint32_t header[2]; /* exit status, length */
	int netns = open_netns(command);
	int fd = connect_to_agent();

	if (fd < 0)
		return answer_without_agent(command, "cannot connect to", errno);
	if (send_frame(fd, netns) || read_exactly(fd, header, sizeof(header)))
		return answer_without_agent(command, "no reply from", errno);
	if (header[1] > sizeof(reply))
		return fail(CNI_IO_FAILURE, "the reply of fast-agent is larger than 1 MiB", "");
	if (read_exactly(fd, reply, header[1]))
		return answer_without_agent(command, "reply cut off by", errno);
	close(fd);
	if (write_all(STDOUT_FILENO, reply, header[1]))
		return 2;
	return (int)(header[0] & 0xff);
}

static int known_command(const char *command)
{
	static const char *const known[] = {"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(command, known[i]))
			return 1;
	return 0;
}

/* The about text is for a person who ran it by hand, the error for a runtime that forgot the
 * command. */
static int answer_without_command(void)
{
	fprintf(stderr,
		"Fast CNI plugin %s: hands calls to fast-agent.\nCNI protocol versions supported: "
		"%s\n",
		FAST_VERSION, "0.3.1, 0.4.0, 1.0.0, 1.1.0");
	if (env_bytes == 0 && isatty(STDIN_FILENO))
		return 0;
	return fail(CNI_INVALID_ENVIRONMENT, "CNI_COMMAND is missing",
		    "required: ADD, DEL, CHECK, GC, STATUS or VERSION");
}

int main(void)
{
	const char *command = env_or("CNI_COMMAND", "");
	long seconds = atol(env_or("FAST_CNI_TIMEOUT_SECONDS", ""));
	ssize_t got;

	signal(SIGPIPE, SIG_IGN);
	if (seconds <= 0 || seconds >= 86400)
		seconds = DEFAULT_TIMEOUT_S;
	if (!strcmp(command, "STATUS") && seconds > STATUS_TIMEOUT_S)
		seconds = STATUS_TIMEOUT_S;
	deadline_ms = now_ms() + 1000 * seconds;
	if (collect_environment())
		return fail(CNI_INVALID_ENVIRONMENT, "the CNI_ variables are larger than 64 KiB",
			    "");
	if (!*command)
		return answer_without_command();
	got = read_upto(STDIN_FILENO, stdin_block, sizeof(stdin_block));
	if (got < 0)
		return fail(CNI_IO_FAILURE, "the network configuration cannot be read from stdin",
			    strerror(errno));
	if (got > MAX_STDIN_BYTES)
		return fail(CNI_INVALID_CONFIG, "the network configuration is larger than 1 MiB",
			    "");
	stdin_bytes = (uint32_t)got;
	scan_cni_version();
	if (!known_command(command))
		return fail(CNI_INVALID_ENVIRONMENT, "CNI_COMMAND is not one that Fast knows",
			    command);
	if (!strcmp(command, "VERSION"))
		return answer_version();
	return forward(command);
}
