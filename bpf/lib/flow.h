/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows that stay on the stack path because they came through the stack: kube-proxy translates
 * there, and a reply on the fast path would not be translated back. Written where packets leave the
 * stack, looked up before the fast path is taken; one key for both directions.
 */
#ifndef FAST_FLOW_H
#define FAST_FLOW_H

#include "metrics.h"

#define FLOW_REFRESH_NS 1000000000ULL

/* Whether the source's end goes second. Any order serves, as long as it is the same in both
 * directions. */
static __always_inline bool source_is_high(const struct fast_packet *packet)
{
	const struct fast_addr *source = &packet->source, *destination = &packet->destination;

	if (addr_half(source, 0) != addr_half(destination, 0))
		return addr_half(source, 0) > addr_half(destination, 0);
	if (addr_half(source, 1) != addr_half(destination, 1))
		return addr_half(source, 1) > addr_half(destination, 1);
	return packet->source_port > packet->destination_port;
}

static __always_inline void flow_key(const struct fast_packet *packet, struct fast_flow_key *key)
{
	if (source_is_high(packet)) {
		key->low = packet->destination;
		key->high = packet->source;
		key->low_port = packet->destination_port;
		key->high_port = packet->source_port;
	} else {
		key->low = packet->source;
		key->high = packet->destination;
		key->low_port = packet->source_port;
		key->high_port = packet->destination_port;
	}
	key->protocol = packet->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

static __always_inline int parse_quoted(struct __sk_buff *skb, struct fast_packet *quoted,
					__u32 offset)
{
	struct fast_icmp icmp;
	struct fast_ports ports;

	if (has_ports(quoted->protocol)) {
		if (bpf_skb_load_bytes(skb, offset, &ports, sizeof(ports)))
			return -1;
		quoted->source_port = ports.source;
		quoted->destination_port = ports.destination;
	} else if (quoted->protocol == IPPROTO_ICMP || quoted->protocol == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, offset, &icmp, sizeof(icmp)))
			return -1;
		if (is_icmp_echo(quoted->protocol, icmp.type))
			quoted->source_port = quoted->destination_port = icmp.id;
	}
	return 0;
}

/* Makes the key of the flow whose packet an ICMP error quotes. Returns non-zero if that cannot
 * be told. */
static __noinline int quoted_flow_key(struct __sk_buff *skb, const struct fast_packet *packet,
				      struct fast_flow_key *key)
{
	__u32 offset = packet->l4_offset + sizeof(struct fast_icmp);
	struct fast_packet quoted = {};
	struct ipv6hdr ip6;
	struct iphdr ip;

	if (packet->flags & PACKET_IPV6) {
		if (bpf_skb_load_bytes(skb, offset, &ip6, sizeof(ip6)))
			return -1;
		__builtin_memcpy(&quoted.source, &ip6.saddr, sizeof(quoted.source));
		__builtin_memcpy(&quoted.destination, &ip6.daddr, sizeof(quoted.destination));
		quoted.protocol = ip6.nexthdr;
		if (!has_ports(quoted.protocol) && quoted.protocol != IPPROTO_ICMPV6)
			return -1; /* extension headers: let the stack find out */
		offset += sizeof(ip6);
	} else {
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return -1;
		if (ip.frag_off & bpf_htons(IP_OFFSET_MASK))
			return -1;
		addr_from_ipv4(&quoted.source, ip.saddr);
		addr_from_ipv4(&quoted.destination, ip.daddr);
		quoted.protocol = ip.protocol;
		offset += ip.ihl * 4;
	}
	if (parse_quoted(skb, &quoted, offset))
		return -1;
	flow_key(&quoted, key);
	return 0;
}

#define TCP_FLAGS_OFFSET 13
#define TCP_FIN		 0x01
#define TCP_SYN		 0x02
#define TCP_RST		 0x04
#define TCP_ACK		 0x10

#define FLOW_FINS    (FLOW_FIN_BY_LOW | FLOW_FIN_BY_HIGH)
#define FLOW_OPENERS (FLOW_OPENED_BY_LOW | FLOW_OPENED_BY_HIGH)

#define EEXIST 17

static __always_inline __u32 opened_by(const struct fast_packet *packet)
{
	return source_is_high(packet) ? FLOW_OPENED_BY_HIGH : FLOW_OPENED_BY_LOW;
}

/* What a TCP segment with these header flags changes in its flow's flags. */
static __always_inline __u32 after_segment(const struct fast_packet *packet, __u32 flags, __u8 tcp)
{
	if ((tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN && flags & FLOW_FINS) /* its ports are reused */
		return (flags & ~(FLOW_FINS | FLOW_ANSWERED | FLOW_OPENERS)) | opened_by(packet);
	if (tcp & TCP_RST)
		return flags | FLOW_FINS;
	if (tcp & TCP_FIN)
		return flags | (source_is_high(packet) ? FLOW_FIN_BY_HIGH : FLOW_FIN_BY_LOW);
	return flags;
}

static __always_inline __u32 follow_tcp(struct __sk_buff *skb, const struct fast_packet *packet,
					__u32 flags)
{
	__u8 tcp;

	if (bpf_skb_load_bytes(skb, packet->l4_offset + TCP_FLAGS_OFFSET, &tcp, sizeof(tcp)))
		return flags;
	return after_segment(packet, flags, tcp);
}

/*
 * Keeps the entry of a flow on the stack path up to date: the agent deletes it by its age and
 * flags. Written only if something changes, the time at most once a second.
 */
static __noinline int touch_flow(struct __sk_buff *skb, const struct fast_packet *packet,
				 struct fast_flow *flow)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 before, flags;

	if (!flow)
		return 0;
	if (now - flow->last_seen_ns > FLOW_REFRESH_NS)
		flow->last_seen_ns = now;
	before = flags = flow->flags;
	if (flags & FLOW_OPENERS && !(flags & opened_by(packet)))
		flags |= FLOW_ANSWERED;
	if (packet->protocol == IPPROTO_TCP)
		flags = follow_tcp(skb, packet, flags);
	if (flags != before)
		flow->flags = flags;
	return 0;
}

/*
 * Whether the packet has to take the stack path because its flow did. An ICMP error goes the way of
 * what it quotes. *flow is the packet's entry, or NULL.
 */
static __always_inline bool
came_through_stack(struct __sk_buff *skb, const struct fast_packet *packet, struct fast_flow **flow)
{
	struct fast_flow_key key;

	*flow = NULL;
	if (unlikely(packet->flags & PACKET_ICMP_ERROR)) {
		__builtin_memset(&key, 0, sizeof(key));
		if (quoted_flow_key(skb, packet, &key))
			return true;
	} else {
		flow_key(packet, &key);
	}
	*flow = bpf_map_lookup_elem(&fast_flow_table, &key);
	if (likely(!*flow) || !((*flow)->flags & FLOW_STACK))
		return false;
	if (!(packet->flags & PACKET_ICMP_ERROR))
		touch_flow(skb, packet, *flow);
	return true;
}

/* Whether the interface may open one more flow; counts it if so. */
static __always_inline bool may_open_flow(struct fast_interface *interface, __u32 ifindex,
					  bool inbound)
{
	struct fast_flow_limit *limit = bpf_map_lookup_elem(&fast_flow_limits, &ifindex);
	__u64 opened = inbound ? interface->inbound_opened : interface->flows_opened;
	__u64 most = fast_config.flow_budget;

	if (limit)
		most = inbound ? limit->inbound_opened : limit->flows_opened;
	return opened < most;
}

static __always_inline void count_flow(struct fast_interface *interface, bool inbound, bool refused)
{
	if (inbound)
		__sync_fetch_and_add(
			refused ? &interface->inbound_refused : &interface->inbound_opened, 1);
	else
		__sync_fetch_and_add(refused ? &interface->flows_refused : &interface->flows_opened,
				     1);
}

/*
 * Writes the entry of a flow that opens. Returns a reason to drop the packet: without the entry,
 * the reply to a pod of this node would take the fast path, past the translation. What comes from
 * elsewhere was not translated here, and goes on without an entry.
 */
static __noinline int open_flow(struct __sk_buff *skb, const struct fast_packet *packet,
				struct fast_flow_key *key, __u32 owner)
{
	struct fast_flow fresh = {
		.last_seen_ns = bpf_ktime_get_ns(),
		.flags = FLOW_STACK | opened_by(packet),
	};
	bool inbound = owner & FLOW_OWNER_INBOUND;
	__u32 ifindex = owner & ~FLOW_OWNER_INBOUND;
	struct fast_interface *interface = bpf_map_lookup_elem(&fast_interfaces, &ifindex);
	long result;

	if (!key)
		return REASON_NONE;
	if (interface) {
		fresh.owner = owner;
		if (!may_open_flow(interface, ifindex, inbound)) {
			count_flow(interface, inbound, true);
			return inbound ? REASON_NONE : DROP_FLOW_LIMIT;
		}
	}
	result = bpf_map_update_elem(&fast_flow_table, key, &fresh, BPF_NOEXIST);
	if (result == -EEXIST)
		return REASON_NONE;
	if (interface)
		count_flow(interface, inbound, result);
	return result && !inbound ? DROP_FLOW_TABLE_FULL : REASON_NONE;
}

/*
 * Remembers that the packet's flow came through the stack. Returns REASON_NONE, or why the packet
 * must be dropped.
 *
 * owner: the interface that the flow is charged to, by its ifindex; FLOW_OWNER_INBOUND or-ed to it
 * if the flow is charged as inbound.
 */
static __always_inline enum fast_reason remember_flow(struct __sk_buff *skb,
						      const struct fast_packet *packet,
						      enum fast_direction direction, __u32 owner)
{
	enum fast_reason reason;
	struct fast_flow *flow;
	struct fast_flow_key key;

	if (packet->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT))
		return REASON_NONE; /* no flow of its own, or its ports are in the first fragment */
	flow_key(packet, &key);
	flow = bpf_map_lookup_elem(&fast_flow_table, &key);
	if (likely(flow)) {
		if (unlikely(!(flow->flags & FLOW_STACK)))
			flow->flags |= FLOW_STACK;
		touch_flow(skb, packet, flow);
		return REASON_NONE;
	}
	reason = open_flow(skb, packet, &key, owner);
	if (!reason && is_listened_to(EVENT_NEW_FLOW))
		tell_listener(skb, packet, EVENT_NEW_FLOW, direction, STACK_FLOW);
	return reason;
}

#endif
