"""Builds ``fast.datapath.bpf._libbpf``, the cffi API-mode extension over libbpf. Run by setup.py, not at run time.

What is here is C: declarations that cffi reads, and the few functions that are better written in C than driven from
Python (capturing libbpf's log, draining the ring buffer, filling option structs). Every decision is in Python.
libbpf is linked dynamically: Debian 12's 1.1 has all that is needed, tcx links included (docs/develop/datapath.md).
"""

from cffi import FFI

DECLARATIONS = r"""
struct bpf_object;
struct bpf_program;
struct bpf_map;
struct btf;
struct fast_ring;

/* Objects. */
struct bpf_object *bpf_object__open_file(const char *path, const void *opts);
int bpf_object__load(struct bpf_object *object);
void bpf_object__close(struct bpf_object *object);
struct bpf_map *bpf_object__next_map(const struct bpf_object *object, const struct bpf_map *map);
struct bpf_program *bpf_object__next_program(const struct bpf_object *object, struct bpf_program *program);
struct btf *bpf_object__btf(const struct bpf_object *object);
const char *bpf_program__name(const struct bpf_program *program);
int bpf_program__fd(const struct bpf_program *program);
int bpf_program__set_type(struct bpf_program *program, int type);
int bpf_program__set_expected_attach_type(struct bpf_program *program, int type);
const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__fd(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
uint32_t bpf_map__type(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__map_flags(const struct bpf_map *map);
uint32_t bpf_map__btf_key_type_id(const struct bpf_map *map);
uint32_t bpf_map__btf_value_type_id(const struct bpf_map *map);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
const void *bpf_map__initial_value(struct bpf_map *map, size_t *size);
int bpf_map__set_initial_value(struct bpf_map *map, const void *data, size_t size);

/* BTF. */
struct btf *btf__load_from_kernel_by_id(uint32_t id);
const void *btf__raw_data(const struct btf *btf, uint32_t *size);
void btf__free(struct btf *btf);

/* Pins and maps, by file descriptor. Each answers 0 or a negative errno. */
int bpf_obj_pin(int fd, const char *path);
int bpf_obj_get(const char *path);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_update_batch(int fd, const void *keys, const void *values, uint32_t *count, const void *opts);
int bpf_map_delete_batch(int fd, const void *keys, uint32_t *count, const void *opts);
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, uint32_t *count,
                         const void *opts);
int libbpf_num_possible_cpus(void);

struct fast_map_info {
        uint32_t type, id, key_size, value_size, max_entries, flags;
        uint32_t btf_id, btf_key_type_id, btf_value_type_id;
};
struct fast_program_info {
        uint32_t id;
        char name[16];
        char tag[17];
};
struct fast_link_info {
        uint32_t type, id, program_id, ifindex, attach_type;
};
int fast_map_info(int fd, struct fast_map_info *out);
int fast_program_info(int fd, struct fast_program_info *out);
int fast_link_info(int fd, struct fast_link_info *out);

/* Attachment: tcx links and, on kernels without them, clsact filters. */
int bpf_link_create(int prog_fd, int target_fd, int attach_type, const void *opts);
int bpf_link_update(int link_fd, int new_prog_fd, const void *opts);
int bpf_link_detach(int link_fd);
int fast_netfilter_link(int prog_fd, int family, int hook, int priority, int flags);
int fast_clsact_ensure(int ifindex);
int fast_filter_replace(int ifindex, int egress, int prog_fd, uint32_t handle, uint32_t priority);
int fast_filter_delete(int ifindex, int egress, uint32_t handle, uint32_t priority);
int fast_filter_program(int ifindex, int egress, uint32_t handle, uint32_t priority, uint32_t *program_id);

/* Probes: 1 supported, 0 not, negative errno when it cannot be told. */
int fast_probe_helper(int helper);
int fast_probe_map_type(int map_type);
int fast_trivial_program(void);

/* Running a program on a packet. */
struct fast_run {
        uint32_t ifindex, ingress_ifindex, mark, priority, gso_size, gso_segs, wire_len;
        int repeat;
        uint32_t verdict, duration_ns, mark_out, priority_out;
};
int fast_program_run(int fd, const void *in, uint32_t in_size, void *out, uint32_t *out_size, struct fast_run *run);
int fast_netfilter_run(int fd, const void *in, uint32_t in_size, int family, int hook, uint32_t *verdict);

/* The ring buffer. */
struct fast_ring *fast_ring_open(int map_fd, size_t record_size, size_t records);
int fast_ring_poll(struct fast_ring *ring, int timeout_ms, void *out);
void fast_ring_close(struct fast_ring *ring);

/* What libbpf says, kept per thread until it is taken. */
void fast_log_capture(void);
size_t fast_log_take(char *out, size_t size);
"""

SOURCE = r"""
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/bpf.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

struct fast_map_info {
        uint32_t type, id, key_size, value_size, max_entries, flags;
        uint32_t btf_id, btf_key_type_id, btf_value_type_id;
};
struct fast_program_info {
        uint32_t id;
        char name[16];
        char tag[17];
};
struct fast_link_info {
        uint32_t type, id, program_id, ifindex, attach_type;
};
struct fast_run {
        uint32_t ifindex, ingress_ifindex, mark, priority, gso_size, gso_segs, wire_len;
        int repeat;
        uint32_t verdict, duration_ns, mark_out, priority_out;
};

static int fast_map_info(int fd, struct fast_map_info *out)
{
        struct bpf_map_info info = {};
        __u32 size = sizeof(info);
        int error = bpf_obj_get_info_by_fd(fd, &info, &size);

        if (error)
                return error;
        *out = (struct fast_map_info){
                .type = info.type, .id = info.id, .key_size = info.key_size, .value_size = info.value_size,
                .max_entries = info.max_entries, .flags = info.map_flags, .btf_id = info.btf_id,
                .btf_key_type_id = info.btf_key_type_id, .btf_value_type_id = info.btf_value_type_id,
        };
        return 0;
}

static int fast_program_info(int fd, struct fast_program_info *out)
{
        struct bpf_prog_info info = {};
        __u32 size = sizeof(info);
        int error = bpf_obj_get_info_by_fd(fd, &info, &size);

        if (error)
                return error;
        out->id = info.id;
        memcpy(out->name, info.name, sizeof(out->name));
        for (int i = 0; i < 8; i++)
                snprintf(out->tag + 2 * i, 3, "%02x", info.tag[i]);
        return 0;
}

static int fast_link_info(int fd, struct fast_link_info *out)
{
        /* The tcx part of struct bpf_link_info is younger than the headers this builds with: two words after the
         * fixed part, which is three words and padding to eight bytes. */
        struct {
                __u32 type, id, prog_id, pad, ifindex, attach_type, rest[16];
        } info = {};
        __u32 size = sizeof(info);
        int error = bpf_obj_get_info_by_fd(fd, &info, &size);

        if (error)
                return error;
        *out = (struct fast_link_info){ info.type, info.id, info.prog_id, info.ifindex, info.attach_type };
        return 0;
}

/* Netfilter links (Linux 6.4) are younger than the headers this builds with. */
#define FAST_NETFILTER 45
static int fast_netfilter_link(int prog_fd, int family, int hook, int priority, int flags)
{
        struct {
                uint32_t prog_fd, target_fd, attach_type, flags;
                uint32_t pf, hooknum;
                int32_t priority;
                uint32_t netfilter_flags;
                char rest[64];
        } attr = { .prog_fd = prog_fd, .attach_type = FAST_NETFILTER, .pf = family, .hooknum = hook,
                   .priority = priority, .netfilter_flags = flags };
        long result = syscall(__NR_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));

        return result < 0 ? -errno : (int)result;
}

/* LIBBPF_OPTS, because libbpf refuses (EINVAL) a struct with anything but zeros in its padding. */
#define FAST_HOOK(name, index, egress)                                \
        LIBBPF_OPTS(bpf_tc_hook, name, .ifindex = (index),            \
                    .attach_point = (egress) ? BPF_TC_EGRESS : BPF_TC_INGRESS)

static int fast_clsact_ensure(int ifindex)
{
        FAST_HOOK(hook, ifindex, 0);
        int error;

        hook.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
        error = bpf_tc_hook_create(&hook);
        return error == -EEXIST ? 0 : error;
}

static int fast_filter_replace(int ifindex, int egress, int prog_fd, uint32_t handle, uint32_t priority)
{
        FAST_HOOK(hook, ifindex, egress);
        LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .flags = BPF_TC_F_REPLACE, .handle = handle,
                    .priority = priority);

        return bpf_tc_attach(&hook, &opts);
}

static int fast_filter_delete(int ifindex, int egress, uint32_t handle, uint32_t priority)
{
        FAST_HOOK(hook, ifindex, egress);
        LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = priority);

        return bpf_tc_detach(&hook, &opts);
}

static int fast_filter_program(int ifindex, int egress, uint32_t handle, uint32_t priority, uint32_t *program_id)
{
        FAST_HOOK(hook, ifindex, egress);
        LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = priority);
        int error = bpf_tc_query(&hook, &opts);

        *program_id = opts.prog_id;
        return error;
}

static int fast_probe_helper(int helper)
{
        return libbpf_probe_bpf_helper(BPF_PROG_TYPE_SCHED_CLS, helper, NULL);
}

static int fast_probe_map_type(int map_type)
{
        return libbpf_probe_bpf_map_type(map_type, NULL);
}

static int fast_trivial_program(void)
{
        const struct bpf_insn instructions[] = {
                { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0 },
                { .code = BPF_JMP | BPF_EXIT },
        };

        return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "fast_probe", "GPL", instructions, 2, NULL);
}

static int fast_program_run(int fd, const void *in, uint32_t in_size, void *out, uint32_t *out_size,
                            struct fast_run *run)
{
        struct __sk_buff before = { .ifindex = run->ifindex, .ingress_ifindex = run->ingress_ifindex,
                                    .mark = run->mark, .priority = run->priority, .gso_size = run->gso_size,
                                    .gso_segs = run->gso_segs, .wire_len = run->wire_len };
        struct __sk_buff after = {};
        struct bpf_test_run_opts opts = { .sz = sizeof(opts), .data_in = in, .data_size_in = in_size, .data_out = out,
                                          .data_size_out = *out_size, .ctx_in = &before, .ctx_size_in = sizeof(before),
                                          .ctx_out = &after, .ctx_size_out = sizeof(after), .repeat = run->repeat };
        int error = bpf_prog_test_run_opts(fd, &opts);

        *out_size = opts.data_size_out;
        run->verdict = opts.retval;
        run->duration_ns = opts.duration;
        run->mark_out = after.mark;
        run->priority_out = after.priority;
        return error;
}

/* What the kernel takes as a netfilter program's context: struct nf_hook_state, of which only two bytes may be set. */
static int fast_netfilter_run(int fd, const void *in, uint32_t in_size, int family, int hook, uint32_t *verdict)
{
        struct {
                uint8_t hook, pf;
                char pad[6];
                void *rest[5];
        } state = { .hook = hook, .pf = family };
        struct bpf_test_run_opts opts = { .sz = sizeof(opts), .data_in = in, .data_size_in = in_size,
                                          .ctx_in = &state, .ctx_size_in = sizeof(state), .repeat = 1 };
        int error = bpf_prog_test_run_opts(fd, &opts);

        *verdict = opts.retval;
        return error;
}

/* libbpf hands over records one by one from inside a call; they are gathered here and copied out after it. The callback
 * stops a call only after it has taken the record it was given: libbpf counts that record as consumed. */
struct fast_ring {
        struct ring_buffer *ring;
        size_t record_size, capacity, taken;
        char records[];
};

static int fast_ring_take(void *context, void *data, size_t size)
{
        struct fast_ring *ring = context;

        if (size >= ring->record_size)
                memcpy(ring->records + ring->record_size * ring->taken++, data, ring->record_size);
        return ring->taken == ring->capacity ? -ENOBUFS : 0;
}

static struct fast_ring *fast_ring_open(int map_fd, size_t record_size, size_t records)
{
        struct fast_ring *ring = calloc(1, sizeof(*ring) + record_size * records);

        if (!ring)
                return NULL;
        ring->record_size = record_size;
        ring->capacity = records;
        ring->ring = ring_buffer__new(map_fd, fast_ring_take, ring, NULL);
        if (!ring->ring) {
                int error = errno;

                free(ring);
                errno = error;
                return NULL;
        }
        return ring;
}

static int fast_ring_poll(struct fast_ring *ring, int timeout_ms, void *out)
{
        int error;

        ring->taken = 0;
        error = ring_buffer__consume(ring->ring);
        if (!ring->taken && error >= 0 && timeout_ms)
                error = ring_buffer__poll(ring->ring, timeout_ms);
        if (error < 0 && error != -ENOBUFS && error != -EINTR)
                return error;
        memcpy(out, ring->records, ring->taken * ring->record_size);
        return ring->taken;
}

static void fast_ring_close(struct fast_ring *ring)
{
        ring_buffer__free(ring->ring);
        free(ring);
}

/* The verifier's log can be megabytes and its end is what tells: the last quarter megabyte is kept. */
#define LOG_SIZE (1 << 18)
static __thread char *log_text;
static __thread size_t log_used;

static int fast_log_keep(enum libbpf_print_level level, const char *format, va_list arguments)
{
        char *line = NULL;
        int size;

        if (level == LIBBPF_DEBUG || (size = vasprintf(&line, format, arguments)) < 0)
                return 0;
        if (!log_text)
                log_text = malloc(LOG_SIZE);
        if (log_text) {
                const char *from = size > LOG_SIZE / 2 ? line + size - LOG_SIZE / 2 : line;
                size_t kept = strlen(from);

                if (log_used + kept > LOG_SIZE) {
                        size_t surplus = log_used + kept - LOG_SIZE;

                        memmove(log_text, log_text + surplus, log_used - surplus);
                        log_used -= surplus;
                }
                memcpy(log_text + log_used, from, kept);
                log_used += kept;
        }
        free(line);
        return size;
}

static void fast_log_capture(void)
{
        libbpf_set_print(fast_log_keep);
}

static size_t fast_log_take(char *out, size_t size)
{
        size_t taken = log_used < size ? log_used : size;

        if (taken)
                memcpy(out, log_text + log_used - taken, taken);
        free(log_text);
        log_text = NULL;
        log_used = 0;
        return taken;
}
"""

ffi = FFI()
ffi.cdef(DECLARATIONS)
ffi.set_source(
    "fast.datapath.bpf._libbpf",
    SOURCE,
    libraries=["bpf"],
    extra_compile_args=["-O2", "-Wall", "-fvisibility=hidden"],
    py_limited_api=True,
)
