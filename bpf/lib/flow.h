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

/* Whether the packet has to go through the stack because its flow did. An ICMP error goes the way
 * of what it quotes. */
static __always_inline bool came_through_stack(struct __sk_buff *skb,
					       const struct fast_packet *packet)
{
	struct fast_flow_key key;

	if (unlikely(packet->flags & PACKET_ICMP_ERROR)) {
		__builtin_memset(&key, 0, sizeof(key));
		if (quoted_flow_key(skb, packet, &key))
			return true;
	} else {
		flow_key(packet, &key);
	}
	return bpf_map_lookup_elem(&fast_flows, &key);
}

/*
 * Remembers that the packet's flow came through the stack. An entry that is there is touched in
 * place and at most once a second: creating one costs ten times as much as finding it.
 */
static __always_inline void remember_flow(struct __sk_buff *skb, const struct fast_packet *packet,
					  enum fast_direction direction)
{
	struct fast_flow fresh = {.last_seen_ns = bpf_ktime_get_ns()};
	struct fast_flow *flow;
	struct fast_flow_key key;

	if (packet->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT))
		return; /* it has no flow of its own, or its ports are in the first fragment */
	flow_key(packet, &key);
	flow = bpf_map_lookup_elem(&fast_flows, &key);
	if (flow) {
		if (fresh.last_seen_ns - flow->last_seen_ns > FLOW_REFRESH_NS)
			flow->last_seen_ns = fresh.last_seen_ns;
		return;
	}
	bpf_map_update_elem(&fast_flows, &key, &fresh, BPF_ANY);
	if (fast_config.events & EVENT_NEW_FLOW)
		tell(skb, packet, EVENT_NEW_FLOW, direction, STACK_FLOW);
}

#endif
