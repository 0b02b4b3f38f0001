// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * NetworkPolicy for what takes the stack path, which every packet of an isolated pod does. An
 * object of its own: netfilter programs came with Linux 6.4. It is attached after the stack has
 * translated destinations and before it translates sources, so that it sees both final ends, in
 * both directions of a flow: POSTROUTING and LOCAL_IN, IPv4 and IPv6.
 */
#include "lib/policy.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define NF_DROP	  0
#define NF_ACCEPT 1

#define NF_INET_LOCAL_IN     1
#define NF_INET_POST_ROUTING 4

/* What is read of the kernel's own structs; their offsets come from the kernel's BTF. */
struct net_device___fast {
	int ifindex;
} __attribute__((preserve_access_index));

struct nf_hook_state {
	__u8 hook;
	struct net_device *in;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned int len;
	int skb_iif;
} __attribute__((preserve_access_index));

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
} __attribute__((preserve_access_index));

extern int bpf_dynptr_from_skb(struct sk_buff *skb, __u64 flags,
			       struct bpf_dynptr *ptr__uninit) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer,
			      __u32 buffer__szk) __ksym;

static __always_inline bool is_link_setup(__u8 protocol, __u8 type)
{
	return protocol == IPPROTO_ICMPV6 &&
	       (type == ICMP6_ROUTER_SOLICITATION || type == ICMP6_MULTICAST_QUERY ||
		type == ICMP6_MULTICAST_REPORT || type == ICMP6_MULTICAST_DONE ||
		type == ICMP6_MULTICAST_REPORT_V2);
}

static __always_inline bool is_echo_reply(__u8 protocol, __u8 type)
{
	return type == (protocol == IPPROTO_ICMP ? ICMP_ECHO_REPLY : ICMP6_ECHO_REPLY);
}

/* Reads ports, or what stands for them. tcp_flags may be NULL, as for a packet that is quoted. */
static __always_inline int read_transport(const struct bpf_dynptr *ptr, struct fast_packet *packet,
					  __u32 offset, __u8 *tcp_flags)
{
	struct fast_ports ports_buffer, *ports;
	struct fast_icmp icmp_buffer, *icmp;
	__u8 flags_buffer, *flags;

	packet->l4_offset = offset;
	if (has_ports(packet->protocol)) {
		ports = bpf_dynptr_slice(ptr, offset, &ports_buffer, sizeof(ports_buffer));
		if (!ports)
			return -1;
		packet->source_port = ports->source;
		packet->destination_port = ports->destination;
		if (packet->protocol != IPPROTO_TCP || !tcp_flags)
			return 0;
		flags = bpf_dynptr_slice(ptr, offset + TCP_FLAGS_OFFSET, &flags_buffer,
					 sizeof(flags_buffer));
		if (!flags)
			return -1;
		*tcp_flags = *flags;
	} else if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6) {
		icmp = bpf_dynptr_slice(ptr, offset, &icmp_buffer, sizeof(icmp_buffer));
		if (!icmp)
			return -1;
		packet->flags |= icmp_flags(packet->protocol, icmp->type);
		if (is_link_setup(packet->protocol, icmp->type))
			packet->flags |= PACKET_LINK_SETUP;
		if (is_icmp_echo(packet->protocol, icmp->type)) {
			packet->source_port = packet->destination_port = icmp->id;
			if (is_echo_reply(packet->protocol, icmp->type))
				packet->flags |= PACKET_ECHO_REPLY;
		}
	}
	return 0;
}

/* Walks to the transport header; returns its offset, or a negative number. */
static __always_inline int skip_extensions(const struct bpf_dynptr *ptr, struct fast_packet *packet,
					   __u32 offset)
{
	struct fast_ipv6_extension buffer, *extension;
	__u8 next = packet->protocol;

	for (int i = 0; i <= MAX_IPV6_EXTENSIONS; i++) {
		packet->protocol = next;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT && next != IPPROTO_AH)
			return offset;
		extension = bpf_dynptr_slice(ptr, offset, &buffer, sizeof(buffer));
		if (!extension)
			return -1;
		if (next == IPPROTO_FRAGMENT) {
			packet->flags |= PACKET_FRAGMENT;
			if (extension->fragment_offset & bpf_htons(0xfff8))
				packet->flags |= PACKET_LATER_FRAGMENT;
			offset += sizeof(buffer);
		} else if (next == IPPROTO_AH) {
			offset += (extension->length + 2) * 4;
		} else {
			offset += (extension->length + 1) * 8;
		}
		next = extension->next;
		if (packet->flags & PACKET_LATER_FRAGMENT) {
			packet->protocol = next;
			return offset;
		}
	}
	return -1;
}

/* Reads a network header at an offset, and what follows it. */
static __always_inline int read_ipv4(const struct bpf_dynptr *ptr, struct fast_packet *packet,
				     __u32 offset, __u8 *tcp_flags)
{
	struct iphdr buffer, *ip = bpf_dynptr_slice(ptr, offset, &buffer, sizeof(buffer));

	if (!ip)
		return -1;
	addr_from_ipv4(&packet->source, ip->saddr);
	addr_from_ipv4(&packet->destination, ip->daddr);
	packet->protocol = ip->protocol;
	if (ip->frag_off & bpf_htons(IP_OFFSET_MASK)) {
		packet->flags |= PACKET_LATER_FRAGMENT;
		return 0;
	}
	return read_transport(ptr, packet, offset + ip->ihl * 4, tcp_flags);
}

static __always_inline int read_ipv6(const struct bpf_dynptr *ptr, struct fast_packet *packet,
				     __u32 offset, __u8 *tcp_flags)
{
	struct ipv6hdr buffer, *ip = bpf_dynptr_slice(ptr, offset, &buffer, sizeof(buffer));
	int transport;

	if (!ip)
		return -1;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	packet->protocol = ip->nexthdr;
	packet->flags |= PACKET_IPV6;
	transport = skip_extensions(ptr, packet, offset + sizeof(*ip));
	if (transport < 0)
		return -1;
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return 0;
	return read_transport(ptr, packet, transport, tcp_flags);
}

static __always_inline int read_packet(const struct bpf_dynptr *ptr, struct fast_packet *packet,
				       bool is_ipv6, __u32 offset, __u8 *tcp_flags)
{
	return is_ipv6 ? read_ipv6(ptr, packet, offset, tcp_flags)
		       : read_ipv4(ptr, packet, offset, tcp_flags);
}

static __always_inline int verdict_of(const struct fast_judged *judged, enum fast_reason reason)
{
	if (likely(!reason))
		return NF_ACCEPT;
	tell_drop(0, &judged->packet, AFTER_NAT, reason);
	return NF_DROP;
}

SEC("netfilter")
int fast_after_nat(struct bpf_nf_ctx *ctx)
{
	struct fast_judged judged = {};
	struct fast_packet quoted = {};
	struct fast_flow_key key = {};
	struct fast_flow_key *quoted_key = NULL;
	struct bpf_dynptr ptr;
	__u8 version_buffer, *version;
	bool is_ipv6;

	if (bpf_dynptr_from_skb(ctx->skb, 0, &ptr))
		return NF_DROP;
	version = bpf_dynptr_slice(&ptr, 0, &version_buffer, sizeof(version_buffer));
	if (!version)
		return NF_DROP;
	is_ipv6 = *version >> 4 == 6;
	judged.packet.bytes = ctx->skb->len + ETH_HLEN;
	if (read_packet(&ptr, &judged.packet, is_ipv6, 0, &judged.tcp_flags)) {
		/* What cannot be read passes if no end of it is isolated: judged without ports. */
		judged.packet.flags &= ~PACKET_ICMP_ERROR;
		judged.packet.flags |= PACKET_LATER_FRAGMENT;
		judged.packet.source_port = judged.packet.destination_port = 0;
	}
	judged.to_own_node = ctx->state->hook == NF_INET_LOCAL_IN;
	judged.from_own_node =
		ctx->state->hook == NF_INET_POST_ROUTING && !ctx->state->in && !ctx->skb->skb_iif;
	if (judged.packet.flags & PACKET_ICMP_ERROR &&
	    !read_packet(&ptr, &quoted, is_ipv6, judged.packet.l4_offset + sizeof(struct fast_icmp),
			 NULL) &&
	    !(quoted.flags & PACKET_LATER_FRAGMENT)) {
		flow_key(&quoted, &key);
		quoted_key = &key;
	}
	return verdict_of(&judged, judge_packet(&judged, quoted_key));
}
