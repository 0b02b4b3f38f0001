/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who loses packets: exact counts by what the packets have in common. And how many events may be
 * told: a storm costs no more events than a trickle. Only dropped packets and told events pay.
 */
#ifndef FAST_DROPS_H
#define FAST_DROPS_H

#include "parse.h"

struct fast_drop_key {
	struct fast_addr source;
	struct fast_addr destination;
	__u32 ifindex; /* the device at which the packet was seen */
	__be16 destination_port;
	__u8 protocol;
	__u8 reason;
	__u8 direction;
	__u8 pad[7];
};

struct fast_drop_count {
	__u64 packets;
	__u64 bytes;
	__u64 first_ns; /* CLOCK_MONOTONIC */
	__u64 last_ns;
};

/* Not per CPU: that would take 64 MiB on a node of 128 processors. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fast_drop_key);
	__type(value, struct fast_drop_count);
} fast_drops SEC(".maps");

#define BUDGET_WINDOW_NS      100000000 /* 100 ms */
#define DROP_EVENTS_A_WINDOW  50
#define OTHER_EVENTS_A_WINDOW 200

/* What one CPU may still tell in this window. */
struct fast_event_budget {
	__u64 window_ns; /* when the window began */
	__u32 drops;
	__u32 others;
	__u64 untold; /* events that did not fit into a window or into the ring; only grows */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fast_event_budget);
} fast_event_budgets SEC(".maps");

/* The kinds of events besides drops that somebody listens to: enum fast_event_kind, or-ed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} fast_event_switch SEC(".maps");

static __always_inline void count_drop(__u32 ifindex, const struct fast_packet *packet,
				       __u32 direction, __u32 reason, __u64 now)
{
	struct fast_drop_count fresh = {.first_ns = now};
	struct fast_drop_key key = {
		.source = packet->source,
		.destination = packet->destination,
		.ifindex = ifindex,
		.protocol = packet->protocol,
		.reason = reason,
		.direction = direction,
	};
	struct fast_drop_count *count;

	/* The "port" of an echo is its identifier: every ping would be a group of its own. */
	if (packet->protocol != IPPROTO_ICMP && packet->protocol != IPPROTO_ICMPV6)
		key.destination_port = packet->destination_port;
	count = bpf_map_lookup_elem(&fast_drops, &key);
	if (!count) {
		/* Another CPU may be quicker: its entry is used, too. */
		bpf_map_update_elem(&fast_drops, &key, &fresh, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&fast_drops, &key);
		if (!count)
			return; /* fast_metrics has it */
	}
	__sync_fetch_and_add(&count->packets, 1);
	__sync_fetch_and_add(&count->bytes, packet->bytes);
	count->last_ns = now;
}

/* Takes one event out of this CPU's budget; false if there is none left. */
static __always_inline bool may_tell(enum fast_event_kind kind, __u64 now)
{
	__u32 zero = 0;
	struct fast_event_budget *budget = bpf_map_lookup_elem(&fast_event_budgets, &zero);

	if (!budget)
		return false;
	if (now - budget->window_ns >= BUDGET_WINDOW_NS) {
		budget->window_ns = now;
		budget->drops = DROP_EVENTS_A_WINDOW;
		budget->others = OTHER_EVENTS_A_WINDOW;
	}
	if (kind == EVENT_DROP && budget->drops) {
		budget->drops--;
		return true;
	}
	if (kind != EVENT_DROP && budget->others) {
		budget->others--;
		return true;
	}
	budget->untold++;
	return false;
}

/* Whether events of this kind, which is not EVENT_DROP, are listened to. */
static __always_inline bool is_listened_to(enum fast_event_kind kind)
{
	__u32 zero = 0;
	__u32 *wanted;

	if (!(fast_config.events & kind))
		return false;
	wanted = bpf_map_lookup_elem(&fast_event_switch, &zero);
	return wanted && unlikely(*wanted & kind);
}

#endif
