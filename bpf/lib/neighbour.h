/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a pod may say about neighbours and about other packets: ARP and neighbour discovery with its
 * own addresses and MAC, and ICMP errors about packets that were sent to it. All else could change
 * tables that the whole node uses.
 */
#ifndef FAST_NEIGHBOUR_H
#define FAST_NEIGHBOUR_H

#include "forward.h"

#define ARP_ETHERNET	     1 /* RFC 826 */
#define ND_OPTION_SOURCE_MAC 1
#define ND_OPTION_TARGET_MAC 2
#define MAX_ND_OPTIONS	     4

struct fast_arp {
	__be16 hardware_type;
	__be16 protocol_type;
	__u8 hardware_bytes;
	__u8 protocol_bytes;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender_ip;
	__u8 target_mac[6];
	__be32 target_ip;
} __attribute__((packed));

struct fast_nd {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct fast_addr target;
} __attribute__((packed));

struct fast_nd_option {
	__u8 type;
	__u8 length; /* in 8 bytes */
	__u8 mac[6];
};

static __always_inline bool is_own_mac(const __u8 *mac, const __u8 *own)
{
	return mac[0] == own[0] && mac[1] == own[1] && mac[2] == own[2] && mac[3] == own[3] &&
	       mac[4] == own[4] && mac[5] == own[5];
}

static __always_inline bool is_own_address(struct __sk_buff *skb, const struct fast_addr *addr)
{
	struct fast_local_pod *pod = bpf_map_lookup_elem(&fast_local_pods, addr);

	return pod && pod->ifindex == skb->ifindex;
}

/* Whether an address is the link-local one that RFC 4291 appendix A makes of the MAC. */
static __always_inline bool is_link_local_of(const struct fast_addr *addr, const __u8 *mac)
{
	const __u8 *bytes = (const __u8 *)addr->words;

	return addr->words[0] == bpf_htonl(0xfe800000) && addr->words[1] == 0 &&
	       bytes[8] == (mac[0] ^ 2) && bytes[9] == mac[1] && bytes[10] == mac[2] &&
	       bytes[11] == 0xff && bytes[12] == 0xfe && bytes[13] == mac[3] &&
	       bytes[14] == mac[4] && bytes[15] == mac[5];
}

static __always_inline struct fast_interface *find_interface(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;

	return bpf_map_lookup_elem(&fast_interfaces, &ifindex);
}

/* ARP from a pod. A sender of 0.0.0.0 asks whether an address is taken (RFC 5227). */
static __noinline int check_arp(struct __sk_buff *skb, const struct fast_interface *interface)
{
	struct ethhdr eth;
	struct fast_arp arp;
	struct fast_addr sender;

	if (!interface || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return DROP_NEIGHBOUR;
	if (arp.hardware_type != bpf_htons(ARP_ETHERNET) ||
	    arp.protocol_type != bpf_htons(ETH_P_IP) || arp.hardware_bytes != ETH_ALEN ||
	    arp.protocol_bytes != sizeof(arp.sender_ip))
		return DROP_NEIGHBOUR;
	if (!is_own_mac(eth.h_source, interface->pod_mac) ||
	    !is_own_mac(arp.sender_mac, interface->pod_mac))
		return DROP_NEIGHBOUR;
	addr_from_ipv4(&sender, arp.sender_ip);
	return !arp.sender_ip || is_own_address(skb, &sender) ? REASON_NONE : DROP_NEIGHBOUR;
}

/* Whether every link-layer address among the options of neighbour discovery is the MAC. */
static __always_inline bool has_only_own_mac(struct __sk_buff *skb, __u32 offset, const __u8 *mac)
{
	struct fast_nd_option option;

	for (int i = 0; i < MAX_ND_OPTIONS; i++) {
		if (offset >= skb->len)
			return true;
		if (bpf_skb_load_bytes(skb, offset, &option, sizeof(option)) || !option.length)
			return false;
		if ((option.type == ND_OPTION_SOURCE_MAC || option.type == ND_OPTION_TARGET_MAC) &&
		    (option.length != 1 || !is_own_mac(option.mac, mac)))
			return false;
		offset += option.length * 8;
	}
	return offset >= skb->len;
}

/* Neighbour discovery from a pod: a solicitation may ask for any address, an advertisement is only
 * for its own. */
static __noinline int check_discovery(struct __sk_buff *skb, const struct fast_packet *packet,
				      const struct fast_interface *interface)
{
	struct fast_addr target;
	struct fast_nd nd;

	if (!interface || packet->flags & PACKET_FRAGMENT ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &nd, sizeof(nd)))
		return DROP_NEIGHBOUR;
	target = nd.target;
	if (nd.type == ICMP6_NEIGHBOUR_ADVERTISEMENT && !is_own_address(skb, &target) &&
	    !is_link_local_of(&target, interface->pod_mac))
		return DROP_NEIGHBOUR;
	return has_only_own_mac(skb, packet->l4_offset + sizeof(nd), interface->pod_mac)
		       ? REASON_NONE
		       : DROP_NEIGHBOUR;
}

/* Whether an ICMP error is about a packet from its receiver to its sender. */
static __noinline int quotes_own_packet(struct __sk_buff *skb, const struct fast_packet *packet)
{
	__u32 offset = packet->l4_offset + sizeof(struct fast_icmp);
	struct fast_addr source, destination;
	struct ipv6hdr ip6;
	struct iphdr ip;

	if (packet->flags & PACKET_IPV6) {
		if (bpf_skb_load_bytes(skb, offset, &ip6, sizeof(ip6)))
			return false;
		__builtin_memcpy(&source, &ip6.saddr, sizeof(source));
		__builtin_memcpy(&destination, &ip6.daddr, sizeof(destination));
	} else {
		if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
			return false;
		addr_from_ipv4(&source, ip.saddr);
		addr_from_ipv4(&destination, ip.daddr);
	}
	return addr_equal(&source, &packet->destination) &&
	       addr_equal(&destination, &packet->source);
}

/* What a pod may send only under conditions (PACKET_CHECKED): why not this one, or REASON_NONE. */
static __noinline int check_icmp(struct __sk_buff *skb, const struct fast_packet *packet)
{
	if (packet->flags & PACKET_ICMP_ROUTER)
		return DROP_ROGUE_ROUTER;
	if (packet->flags & PACKET_NEIGHBOUR)
		return check_discovery(skb, packet, find_interface(skb));
	return quotes_own_packet(skb, packet) ? REASON_NONE : DROP_ICMP_QUOTE;
}

#endif
