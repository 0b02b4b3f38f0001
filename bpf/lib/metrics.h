/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a verdict is given: counted under its reason, and told as an event if it is a drop or
 * somebody listens. */
#ifndef FAST_METRICS_H
#define FAST_METRICS_H

#include <linux/pkt_cls.h>

#include "drops.h"

static __always_inline void count(const struct fast_packet *packet, enum fast_direction direction,
				  enum fast_reason reason)
{
	__u32 index = reason * DIRECTION_SLOTS + direction;
	struct fast_metric *metric = bpf_map_lookup_elem(&fast_metrics, &index);

	if (likely(metric)) {
		metric->packets++;
		metric->bytes += packet->bytes;
	}
}

static __noinline int tell(__u32 ifindex, const struct fast_packet *packet, __u32 kind,
			   __u32 direction, __u32 reason)
{
	struct fast_event *event = bpf_ringbuf_reserve(&fast_events, sizeof(*event), 0);
	struct fast_event_budget *budget;
	__u32 zero = 0;

	if (!event) { /* nobody reads */
		budget = bpf_map_lookup_elem(&fast_event_budgets, &zero);
		if (budget)
			budget->untold++;
		return 0;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->source = packet->source;
	event->destination = packet->destination;
	event->ifindex = ifindex;
	event->length = packet->bytes;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->protocol = packet->protocol;
	event->kind = kind;
	event->reason = reason;
	event->direction = direction;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Tells of a new flow or a sample; the caller has asked is_listened_to(). */
static __noinline int tell_listener(struct __sk_buff *skb, const struct fast_packet *packet,
				    __u32 kind, __u32 direction, __u32 reason)
{
	if (may_tell(kind, bpf_ktime_get_ns()))
		tell(skb->ifindex, packet, kind, direction, reason);
	return 0;
}

/* What every packet that is not dropped is told under: counted, and sampled if somebody listens. */
static __always_inline void account(struct __sk_buff *skb, const struct fast_packet *packet,
				    enum fast_direction direction, enum fast_reason reason)
{
	count(packet, direction, reason);
	if (is_listened_to(EVENT_SAMPLE) && !(bpf_get_prandom_u32() & fast_config.sample_mask))
		tell_listener(skb, packet, EVENT_SAMPLE, direction, reason);
}

/* Leaves the packet to the programs behind ours and then to the stack. */
static __always_inline int pass(struct __sk_buff *skb, const struct fast_packet *packet,
				enum fast_direction direction, enum fast_reason reason)
{
	account(skb, packet, direction, reason);
	return TC_ACT_UNSPEC;
}

/* What every packet that is dropped is told under: counted, and told as far as events may be. */
static __noinline int tell_drop(__u32 ifindex, const struct fast_packet *packet, __u32 direction,
				__u32 reason)
{
	__u64 now = bpf_ktime_get_ns();

	count(packet, direction, reason);
	count_drop(ifindex, packet, direction, reason, now);
	if ((fast_config.events & EVENT_DROP) && may_tell(EVENT_DROP, now))
		tell(ifindex, packet, EVENT_DROP, direction, reason);
	return 0;
}

static __noinline __attribute__((unused)) int
drop(struct __sk_buff *skb, const struct fast_packet *packet, __u32 direction, __u32 reason)
{
	tell_drop(skb->ifindex, packet, direction, reason);
	return TC_ACT_SHOT;
}

#endif
