/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a verdict is given: counted under its reason, told as an event where that is switched on. */
#ifndef FAST_METRICS_H
#define FAST_METRICS_H

#include <linux/pkt_cls.h>

#include "parse.h"

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

static __noinline int tell(struct __sk_buff *skb, const struct fast_packet *packet, __u32 kind,
			   __u32 direction, __u32 reason)
{
	struct fast_event *event = bpf_ringbuf_reserve(&fast_events, sizeof(*event), 0);

	if (!event)
		return 0; /* nobody reads */
	event->time_ns = bpf_ktime_get_ns();
	event->source = packet->source;
	event->destination = packet->destination;
	event->ifindex = skb->ifindex;
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

/* What every packet that is not dropped is told under: counted, and where switched on, sampled. */
static __always_inline void account(struct __sk_buff *skb, const struct fast_packet *packet,
				    enum fast_direction direction, enum fast_reason reason)
{
	count(packet, direction, reason);
	if ((fast_config.events & EVENT_SAMPLE) &&
	    !(bpf_get_prandom_u32() & fast_config.sample_mask))
		tell(skb, packet, EVENT_SAMPLE, direction, reason);
}

/* Leaves the packet to the programs behind ours and then to the stack. */
static __always_inline int pass(struct __sk_buff *skb, const struct fast_packet *packet,
				enum fast_direction direction, enum fast_reason reason)
{
	account(skb, packet, direction, reason);
	return TC_ACT_UNSPEC;
}

static __noinline int drop(struct __sk_buff *skb, const struct fast_packet *packet, __u32 direction,
			   __u32 reason)
{
	count(packet, direction, reason);
	if (fast_config.events & EVENT_DROP)
		tell(skb, packet, EVENT_DROP, direction, reason);
	return TC_ACT_SHOT;
}

#endif
