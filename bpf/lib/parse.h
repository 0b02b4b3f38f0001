/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From a packet to what verdicts are made of: addresses in map-key form, ports, protocol, a few
 * flags. Says why a packet cannot be parsed; what becomes of it is for others to decide. */
#ifndef FAST_PARSE_H
#define FAST_PARSE_H

#include <stddef.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK	  0x1fff

#define MAX_IPV6_EXTENSIONS 4

/* RFC 792, RFC 4443, RFC 4861; the headers that have these drag in all of libc's sockets. */
#define ICMP_ECHO_REPLY		      0
#define ICMP_UNREACHABLE	      3
#define ICMP_REDIRECT		      5
#define ICMP_ECHO_REQUEST	      8
#define ICMP_TIME_EXCEEDED	      11
#define ICMP_PARAMETER_PROBLEM	      12
#define ICMP6_ECHO_REQUEST	      128
#define ICMP6_ECHO_REPLY	      129
#define ICMP6_MULTICAST_QUERY	      130
#define ICMP6_MULTICAST_REPORT	      131
#define ICMP6_MULTICAST_DONE	      132
#define ICMP6_ROUTER_SOLICITATION     133
#define ICMP6_ROUTER_ADVERTISEMENT    134
#define ICMP6_NEIGHBOUR_SOLICITATION  135
#define ICMP6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMP6_REDIRECT		      137
#define ICMP6_MULTICAST_REPORT_V2     143

enum fast_packet_flag {
	PACKET_IPV6 = 1,
	PACKET_FRAGMENT = 2,
	PACKET_LATER_FRAGMENT = 4, /* not the first: it has no ports */
	PACKET_ICMP_ERROR = 8,
	PACKET_ICMP_ROUTER = 16, /* router advertisement or redirect */
	PACKET_NEIGHBOUR = 32,	 /* neighbour solicitation or advertisement */
	PACKET_ECHO_REPLY = 64,	 /* set by policy.bpf.c only, like the next */
	PACKET_LINK_SETUP = 128, /* router solicitation, multicast listeners */
};

/* What a pod may send only under conditions. */
#define PACKET_CHECKED (PACKET_ICMP_ERROR | PACKET_ICMP_ROUTER | PACKET_NEIGHBOUR)

struct fast_packet {
	struct fast_addr source;
	struct fast_addr destination;
	__be16 source_port; /* of an ICMP echo: its identifier, in both */
	__be16 destination_port;
	__u8 protocol;
	__u8 flags;
	__u16 l4_offset;
	__u32 bytes; /* with the Ethernet header, all segments of a GSO packet together */
};

/*
 * Where the directly accessible part of the packet begins and ends. In assembly, because clang may
 * otherwise move the 32-bit fields of the context about as the 32-bit numbers that they are not:
 * the verifier then sees no pointer any more.
 */
#define DEFINE_PACKET_POINTER(field)                                                               \
	static __always_inline void *packet_##field(const struct __sk_buff *skb)                   \
	{                                                                                          \
		void *pointer;                                                                     \
                                                                                                   \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                              \
			     : "=r"(pointer)                                                       \
			     : "r"(skb), "i"(offsetof(struct __sk_buff, field)));                  \
		return pointer;                                                                    \
	}

DEFINE_PACKET_POINTER(data)
DEFINE_PACKET_POINTER(data_end)

/* Gives size bytes at the offset, or NULL if the packet is shorter. Earlier pointers into the
 * packet are void. */
static __always_inline void *header_at(struct __sk_buff *skb, __u32 offset, __u32 size)
{
	void *data = packet_data(skb);

	if (likely(data + offset + size <= packet_data_end(skb)))
		return data + offset;
	if (bpf_skb_pull_data(skb, offset + size))
		return NULL;
	data = packet_data(skb);
	if (data + offset + size > packet_data_end(skb))
		return NULL;
	return data + offset;
}

static __always_inline void copy_ethernet(void *to, const void *from)
{
	fast_u32 *words = to;
	const fast_u32 *source = from;

	words[0] = source[0];
	words[1] = source[1];
	words[2] = source[2];
	((fast_u16 *)to)[6] = ((const fast_u16 *)from)[6];
}

struct fast_ports {
	__be16 source;
	__be16 destination;
};

struct fast_icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

static __always_inline bool has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_UDPLITE;
}

static __always_inline bool is_icmp_echo(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP)
		return type == ICMP_ECHO_REQUEST || type == ICMP_ECHO_REPLY;
	return type == ICMP6_ECHO_REQUEST || type == ICMP6_ECHO_REPLY;
}

static __always_inline __u8 icmp_flags(__u8 protocol, __u8 type)
{
	if (protocol == IPPROTO_ICMP) {
		if (type == ICMP_REDIRECT)
			return PACKET_ICMP_ROUTER;
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
				       type == ICMP_PARAMETER_PROBLEM
			       ? PACKET_ICMP_ERROR
			       : 0;
	}
	if (type == ICMP6_ROUTER_ADVERTISEMENT || type == ICMP6_REDIRECT)
		return PACKET_ICMP_ROUTER;
	if (type == ICMP6_NEIGHBOUR_SOLICITATION || type == ICMP6_NEIGHBOUR_ADVERTISEMENT)
		return PACKET_NEIGHBOUR;
	return type < ICMP6_ECHO_REQUEST ? PACKET_ICMP_ERROR : 0;
}

static __always_inline enum fast_reason parse_transport(struct __sk_buff *skb,
							struct fast_packet *packet, __u32 offset)
{
	struct fast_ports *ports;
	struct fast_icmp *icmp;

	packet->l4_offset = offset;
	if (likely(has_ports(packet->protocol))) {
		ports = header_at(skb, offset, sizeof(*ports));
		if (!ports)
			return DROP_TRUNCATED;
		packet->source_port = ports->source;
		packet->destination_port = ports->destination;
	} else if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6) {
		icmp = header_at(skb, offset, sizeof(*icmp));
		if (!icmp)
			return DROP_TRUNCATED;
		packet->flags |= icmp_flags(packet->protocol, icmp->type);
		if (is_icmp_echo(packet->protocol, icmp->type))
			packet->source_port = packet->destination_port = icmp->id;
	}
	return REASON_NONE;
}

static __always_inline enum fast_reason parse_ipv4(struct __sk_buff *skb,
						   struct fast_packet *packet)
{
	struct iphdr *ip = header_at(skb, ETH_HLEN, sizeof(*ip));
	__u32 header_bytes;

	if (!ip)
		return DROP_TRUNCATED;
	header_bytes = ip->ihl * 4;
	if (ip->version != 4 || header_bytes < sizeof(*ip))
		return DROP_TRUNCATED;
	addr_from_ipv4(&packet->source, ip->saddr);
	addr_from_ipv4(&packet->destination, ip->daddr);
	packet->protocol = ip->protocol;
	if (unlikely(ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_OFFSET_MASK))) {
		packet->flags |= PACKET_FRAGMENT;
		if (ip->frag_off & bpf_htons(IP_OFFSET_MASK)) {
			packet->flags |= PACKET_LATER_FRAGMENT;
			return REASON_NONE;
		}
	}
	return parse_transport(skb, packet, ETH_HLEN + header_bytes);
}

struct fast_ipv6_extension {
	__u8 next;
	__u8 length; /* in 8 bytes, the first 8 not counted; of an authentication header: in 4
			bytes, 8 not counted */
	__be16 fragment_offset; /* of a fragment header */
	__be32 id;
};

/* Walks to the transport header. Answers its offset, or a negative fast_reason. */
static __noinline int skip_ipv6_extensions(struct __sk_buff *skb, struct fast_packet *packet)
{
	struct fast_ipv6_extension extension;
	__u32 offset = ETH_HLEN + sizeof(struct ipv6hdr);
	__u8 next = packet->protocol;

	for (int i = 0; i <= MAX_IPV6_EXTENSIONS; i++) {
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH) {
			packet->protocol = next;
			return offset;
		}
		if (bpf_skb_load_bytes(skb, offset, &extension, sizeof(extension)))
			return -DROP_TRUNCATED;
		if (next == IPPROTO_FRAGMENT) {
			packet->flags |= PACKET_FRAGMENT;
			if (extension.fragment_offset & bpf_htons(0xfff8))
				packet->flags |= PACKET_LATER_FRAGMENT;
			offset += sizeof(extension);
		} else if (next == IPPROTO_AH) {
			offset += (extension.length + 2) * 4;
		} else {
			offset += (extension.length + 1) * 8;
		}
		next = extension.next;
		if (packet->flags & PACKET_LATER_FRAGMENT) {
			packet->protocol = next;
			return offset;
		}
	}
	return -DROP_IPV6_EXTENSIONS;
}

static __always_inline enum fast_reason parse_ipv6(struct __sk_buff *skb,
						   struct fast_packet *packet)
{
	struct ipv6hdr *ip = header_at(skb, ETH_HLEN, sizeof(*ip));
	int offset;

	if (!ip || ip->version != 6)
		return DROP_TRUNCATED;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	packet->protocol = ip->nexthdr;
	packet->flags = PACKET_IPV6;
	/* In the maps it would be the IPv4 address. */
	if (unlikely(addr_is_ipv4(&packet->source) || addr_is_ipv4(&packet->destination)))
		return DROP_MAPPED_ADDRESS;
	if (likely(has_ports(packet->protocol) || packet->protocol == IPPROTO_ICMPV6))
		return parse_transport(skb, packet, ETH_HLEN + sizeof(*ip));
	offset = skip_ipv6_extensions(skb, packet);
	if (offset < 0)
		return -offset;
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return REASON_NONE;
	/* Each extension is at most 2 KiB; saying so lets the verifier follow the pointer. */
	return offset > 16384 ? DROP_IPV6_EXTENSIONS : parse_transport(skb, packet, offset);
}

/*
 * Reads the packet. Answers REASON_NONE, STACK_NEIGHBOUR for ARP, or why the packet cannot be used;
 * what was read until then is in *packet, the rest of it zero.
 */
static __always_inline enum fast_reason parse_packet(struct __sk_buff *skb,
						     struct fast_packet *packet)
{
	struct ethhdr *eth;

	__builtin_memset(packet, 0, sizeof(*packet));
	packet->bytes = skb->len;
	if (unlikely(skb->vlan_present))
		return DROP_VLAN_TAGGED;
	eth = header_at(skb, 0, sizeof(*eth));
	if (!eth)
		return DROP_TRUNCATED;
	if (likely(eth->h_proto == bpf_htons(ETH_P_IP)))
		return parse_ipv4(skb, packet);
	if (likely(eth->h_proto == bpf_htons(ETH_P_IPV6)))
		return parse_ipv6(skb, packet);
	if (eth->h_proto == bpf_htons(ETH_P_ARP))
		return STACK_NEIGHBOUR;
	if (eth->h_proto == bpf_htons(ETH_P_8021Q) || eth->h_proto == bpf_htons(ETH_P_8021AD))
		return DROP_VLAN_TAGGED;
	return DROP_UNSUPPORTED_ETHERTYPE;
}

#endif
