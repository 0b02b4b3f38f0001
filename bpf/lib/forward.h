/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The fast path: straight into a pod of this node, or to another node. Whether a packet may take
 * it is decided by the caller. */
#ifndef FAST_FORWARD_H
#define FAST_FORWARD_H

#include "encap.h"

#define PACKET_HOST 0

/* struct bpf_tunnel_key grew in Linux 6.0; this much of it every kernel takes. */
#define TUNNEL_KEY_BYTES offsetof(struct bpf_tunnel_key, local_ipv4)
/* For reading who sent a packet: the identifier and an IPv4 address. */
#define TUNNEL_SENDER_BYTES offsetof(struct bpf_tunnel_key, remote_ipv6[1])

#define GSO_BY_FRAGMENTS   0xffff
#define MAX_IPV6_PAYLOAD   65535
#define JUMBO_OPTION_BYTES 8

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	return *(const fast_u32 *)a == *(const fast_u32 *)b &&
	       *(const fast_u16 *)(a + 4) == *(const fast_u16 *)(b + 4);
}

/* What left the tunnel seems to be addressed to another machine, and the stack would drop it. */
static __always_inline void address_to_this_host(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
}

/*
 * Hands the packet to the pod as if it had come in by the pod's own interface: programs on the
 * pod's veth do not see it. Linux 6.15 and later take type, route and conntrack off it, before it
 * is ours; mark and priority are ours to clear always.
 */
static __always_inline int deliver(struct __sk_buff *skb, const struct fast_packet *packet,
				   const struct fast_local_pod *pod, enum fast_direction direction)
{
	struct ethhdr *eth = header_at(skb, 0, sizeof(*eth));
	fast_u32 *macs = (fast_u32 *)eth;
	__u32 ifindex = pod->ifindex;

	if (!eth)
		return drop(skb, packet, direction, DROP_TRUNCATED);
	/* pod_mac and host_mac are laid out as an Ethernet header begins. */
	macs[0] = ((const fast_u32 *)pod->pod_mac)[0];
	macs[1] = ((const fast_u32 *)pod->pod_mac)[1];
	macs[2] = ((const fast_u32 *)pod->pod_mac)[2];
	/* The kernel gives a deleted element to the next entry without waiting for its readers. It
	 * writes the element from its beginning, where the address is, which is read last here. */
	barrier();
	if (unlikely(pod->address_tail && pod->address_tail != packet->destination.words[3]))
		return drop(skb, packet, direction, DROP_UNKNOWN_DESTINATION);
	skb->mark = 0;
	skb->priority = 0;
	address_to_this_host(skb);
	account(skb, packet, direction, FORWARD_LOCAL_POD);
	return bpf_redirect_peer(ifindex, 0);
}

/* Whether the packet, or each segment that it will be cut into, is larger than mtu. */
static __always_inline bool is_too_big(struct __sk_buff *skb, const struct fast_packet *packet,
				       __u32 mtu)
{
	__u32 header_bytes = packet->l4_offset - ETH_HLEN, gso_size = skb->gso_size;
	__u8 tcp_offset;

	if (likely(packet->bytes - ETH_HLEN <= mtu))
		return false;
	if (!gso_size || gso_size == GSO_BY_FRAGMENTS)
		return true;
	/* RFC 2675: with more than the header can say comes an option that the segments lack. */
	if (packet->flags & PACKET_IPV6 &&
	    packet->bytes > ETH_HLEN + sizeof(struct ipv6hdr) + MAX_IPV6_PAYLOAD)
		header_bytes -= JUMBO_OPTION_BYTES;
	if (packet->protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, packet->l4_offset + 12, &tcp_offset,
				       sizeof(tcp_offset)))
			return true;
		header_bytes += (tcp_offset >> 4) * 4;
	} else {
		header_bytes += 8;
	}
	return gso_size + header_bytes > mtu;
}

/* Tells the vxlan device where to send the packet. Answers non-zero where the kernel refuses. */
static __always_inline long set_tunnel_key(struct __sk_buff *skb, __be32 node_ip)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = fast_config.vni,
		.remote_ipv4 = bpf_ntohl(node_ip),
		.tunnel_ttl = TUNNEL_TTL,
	};

	return bpf_skb_set_tunnel_key(skb, &key, TUNNEL_KEY_BYTES, BPF_F_ZERO_CSUM_TX);
}

/* IPv6 needs an IPv6 next hop to be routed natively, which an IPv4 underlay does not have: it takes
 * the tunnel. */
static __always_inline bool goes_natively(const struct fast_packet *packet)
{
	return fast_config.routing == ROUTING_NATIVE && !(packet->flags & PACKET_IPV6);
}

static __always_inline const struct fast_dev *device_towards_nodes(const struct fast_packet *packet)
{
	__u32 role = goes_natively(packet) ? DEVICE_UNDERLAY : DEVICE_TUNNEL;
	const struct fast_dev *device = bpf_map_lookup_elem(&fast_local_dev, &role);

	return device && device->ifindex ? device : NULL;
}

static __always_inline int redirect_to_node(__u32 ifindex, __be32 node_ip)
{
	struct bpf_redir_neigh next_hop = {.nh_family = AF_INET, .ipv4_nh = node_ip};

	return bpf_redirect_neigh(ifindex, &next_hop, sizeof(next_hop), 0);
}

/* By the program itself where that way is open, else by the device. */
static __always_inline int send_through_tunnel(struct __sk_buff *skb,
					       const struct fast_packet *packet,
					       const struct fast_dev *tunnel, __be32 node_ip)
{
	int verdict = encapsulate(skb, packet, tunnel, node_ip);

	if (likely(verdict == TC_ACT_REDIRECT)) {
		account(skb, packet, FROM_POD, FORWARD_TUNNEL);
		return verdict;
	}
	if (unlikely(verdict != ENCAP_BY_DEVICE))
		return drop(skb, packet, FROM_POD, DROP_TRUNCATED);
	if (set_tunnel_key(skb, node_ip))
		return drop(skb, packet, FROM_POD, DROP_TUNNEL_KEY_REFUSED);
	account(skb, packet, FROM_POD, FORWARD_TUNNEL_DEVICE);
	return bpf_redirect(tunnel->ifindex, 0);
}

/* Sends a pod's packet to the node, unless it is for the stack to fragment it or to answer that it
 * is too big. */
static __always_inline int send_to_node(struct __sk_buff *skb, const struct fast_packet *packet,
					__be32 node_ip)
{
	const struct fast_dev *device = device_towards_nodes(packet);

	if (!device)
		return drop(skb, packet, FROM_POD, DROP_NO_DEVICE);
	if (is_too_big(skb, packet, device->mtu))
		return pass(skb, packet, FROM_POD, STACK_TOO_BIG);
	if (!goes_natively(packet))
		return send_through_tunnel(skb, packet, device, node_ip);
	account(skb, packet, FROM_POD, FORWARD_NATIVE);
	return redirect_to_node(device->ifindex, node_ip);
}

#endif
