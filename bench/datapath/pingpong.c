// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Measures a round trip with the smallest request and reply: one byte each way, one at a
 * time, over TCP or UDP.
 *
 *   pingpong serve PORT CPU                          answers until killed, over both
 *   pingpong tcp|udp ADDRESS PORT CPU COUNT          prints COUNT round trips in ns, sorted, a line
 * each
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP		500
#define TIMEOUT_SECONDS 10

static void stay_on(const char *text)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(atoi(text), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		err(1, "cpu %s", text);
}

static struct sockaddr_in place(const char *address, const char *port)
{
	struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};

	if (inet_pton(AF_INET, address, &found.sin_addr) != 1)
		errx(1, "no address: %s", address);
	return found;
}

static int open_socket(int type)
{
	struct timeval patience = {.tv_sec = TIMEOUT_SECONDS};
	int fd = socket(AF_INET, type, 0), on = 1;

	if (fd < 0)
		err(1, "socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

static void answer_datagram(int fd)
{
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	char byte;

	if (recvfrom(fd, &byte, 1, 0, (void *)&from, &length) == 1)
		sendto(fd, &byte, 1, 0, (void *)&from, length);
}

static void answer_stream(int listener)
{
	int fd = accept(listener, NULL, NULL), on = 1;
	char byte;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	while (read(fd, &byte, 1) == 1)
		if (write(fd, &byte, 1) != 1)
			break;
	close(fd);
}

static int serve(const char *port)
{
	struct sockaddr_in here = place("0.0.0.0", port);
	struct pollfd sockets[] = {{.fd = open_socket(SOCK_DGRAM), .events = POLLIN},
				   {.fd = open_socket(SOCK_STREAM), .events = POLLIN}};

	for (int i = 0; i < 2; i++)
		if (bind(sockets[i].fd, (void *)&here, sizeof(here)))
			err(1, "bind");
	if (listen(sockets[1].fd, 8))
		err(1, "listen");
	puts("ready");
	fflush(stdout);
	for (;;) {
		while (poll(sockets, 2, -1) < 0)
			;
		if (sockets[1].revents)
			answer_stream(sockets[1].fd);
		else if (sockets[0].revents)
			answer_datagram(sockets[0].fd);
	}
}

static long long now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return x < y ? -1 : x > y;
}

static int measure(int fd, long count)
{
	long long *times = calloc(count, sizeof(*times));
	char byte = 'x';

	for (long i = -WARM_UP; i < count; i++) {
		long long began = now_ns();

		if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
			err(1, "round trip");
		if (i >= 0)
			times[i] = now_ns() - began;
	}
	qsort(times, count, sizeof(*times), compare);
	for (long i = 0; i < count; i++)
		printf("%lld\n", times[i]);
	free(times);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in there;
	int fd;

	if (argc == 4 && !strcmp(argv[1], "serve")) {
		stay_on(argv[3]);
		return serve(argv[2]);
	}
	if (argc != 6)
		errx(2, "see the first lines of the source");
	stay_on(argv[4]);
	there = place(argv[2], argv[3]);
	fd = open_socket(strcmp(argv[1], "tcp") ? SOCK_DGRAM : SOCK_STREAM);
	if (connect(fd, (void *)&there, sizeof(there)))
		err(1, "connect to %s", argv[2]);
	return measure(fd, atol(argv[5]));
}
