/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * VXLAN without the vxlan device, for what pods send: the program writes the outer headers itself
 * and hands the packet to the NIC's neighbour. The device would ask for a route for every packet
 * and send it through all of netfilter's chains. If the program cannot, the device does it:
 * docs/adr/0008.
 */
#ifndef FAST_ENCAP_H
#define FAST_ENCAP_H

#include <linux/udp.h>

#include "metrics.h"

#define AF_INET	     2
#define TUNNEL_TTL   64
#define MAX_IP_BYTES 65535

#define VXLAN_HAS_VNI	   0x08000000 /* RFC 7348 section 5 */
#define FIRST_DYNAMIC_PORT 0xc000     /* RFC 7348 section 5 and RFC 6335: 49152 to 65535 */
#define DYNAMIC_PORT_MASK  0x3fff

#define TOS_OFFSET     1
#define ECN_MASK       3
#define ECN_CAPABLE_0  2
#define ECN_CONGESTION 3

/* How old a next hop may get: at most 2 to 20 ms, by the kernel's HZ. */
#define NEXT_HOP_JIFFIES 2
/* So many flows to one node may take different ways, where the underlay's routes are multipath. */
#define NEXT_HOP_WAYS 4

#define barrier() asm volatile("" ::: "memory")

struct fast_vxlan_header {
	__be32 flags;
	__be32 vni;
};

struct fast_outer_headers {
	struct iphdr ip;
	struct udphdr udp;
	struct fast_vxlan_header vxlan;
};

/* What stands before the inner IP header: the outer headers, and the pod's own Ethernet header
 * behind them. */
#define ENCAP_BYTES (sizeof(struct fast_outer_headers) + ETH_HLEN)

#define ENCAP_BY_DEVICE (-1)

#define ENCAP_FLAGS                                                                                \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |   \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* Asks the kernel's routes for the way to a node. Leaves hop's ifindex 0 where it is the device's
 * to go. */
static __always_inline void look_up_next_hop(struct __sk_buff *skb, const struct fast_dev *tunnel,
					     __u32 way, struct fast_next_hop *hop)
{
	__u32 largest = tunnel->mtu + ENCAP_BYTES;
	struct bpf_fib_lookup route = {
		.family = AF_INET,
		.l4_protocol = IPPROTO_UDP,
		.sport = bpf_htons(FIRST_DYNAMIC_PORT | way),
		.dport = fast_config.tunnel_port,
		.tot_len = largest < MAX_IP_BYTES ? largest : MAX_IP_BYTES,
		.ifindex = skb->ifindex,
		.ipv4_src = fast_config.node_ip,
		.ipv4_dst = hop->node_ip,
	};
	long found = bpf_fib_lookup(skb, &route, sizeof(route), 0);

	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return;
	if (route.family != AF_INET) /* an IPv6 gateway */
		return;
	hop->gateway = route.ipv4_dst;
	hop->ifindex = route.ifindex;
}

/*
 * The way to a node, asked for at most every NEXT_HOP_JIFFIES: a look-up is half of what sending
 * costs. One look-up stands for all flows of its way, by the hash, so that each flow keeps to one.
 * With PREEMPT_RT, another packet may change the slot in between: so its node is taken out first,
 * put in last, and compared after the rest was read.
 */
static __always_inline struct fast_next_hop
find_next_hop(struct __sk_buff *skb, const struct fast_dev *tunnel, __be32 node_ip, __u32 hash)
{
	struct fast_next_hop fresh = {.node_ip = node_ip, .found_jiffies = bpf_jiffies64()}, found;
	__u32 way = hash % NEXT_HOP_WAYS;
	__u32 index = (bpf_ntohl(node_ip) * NEXT_HOP_WAYS + way) % NEXT_HOP_SLOTS;
	struct fast_next_hop *slot = bpf_map_lookup_elem(&fast_next_hops, &index);

	if (unlikely(!slot))
		return fresh;
	found = *slot;
	barrier();
	if (likely(slot->node_ip == node_ip &&
		   fresh.found_jiffies - found.found_jiffies < NEXT_HOP_JIFFIES))
		return found;
	look_up_next_hop(skb, tunnel, way, &fresh);
	slot->node_ip = 0;
	barrier();
	slot->found_jiffies = fresh.found_jiffies;
	slot->gateway = fresh.gateway;
	slot->ifindex = fresh.ifindex;
	barrier();
	slot->node_ip = node_ip;
	return fresh;
}

static __always_inline __sum16 ip_checksum(const struct iphdr *ip)
{
	const fast_u16 *words = (const fast_u16 *)ip;
	__u32 sum = 0;

	for (__u32 i = 0; i < sizeof(*ip) / sizeof(*words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* RFC 6040 section 4.1, as Linux does it: the outer header tells of congestion what the inner one
 * does. */
static __always_inline __u8 outer_tos(const struct fast_packet *packet, const __u8 *inner)
{
	__u8 ecn = (packet->flags & PACKET_IPV6 ? inner[TOS_OFFSET] >> 4 : inner[TOS_OFFSET]) &
		   ECN_MASK;

	return ecn == ECN_CONGESTION ? ECN_CAPABLE_0 : ecn;
}

static __always_inline void write_outer_headers(struct fast_outer_headers *outer, __be32 node_ip,
						__u32 ip_bytes, __u8 tos, __u32 hash)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tos = tos,
		.tot_len = bpf_htons(ip_bytes),
		.id = bpf_get_prandom_u32(), /* routers may fragment it, as the device's */
		.ttl = TUNNEL_TTL,
		.protocol = IPPROTO_UDP,
		.saddr = fast_config.node_ip,
		.daddr = node_ip,
	};

	ip.check = ip_checksum(&ip);
	outer->ip = ip;
	outer->udp.source = bpf_htons(FIRST_DYNAMIC_PORT | (hash & DYNAMIC_PORT_MASK));
	outer->udp.dest = fast_config.tunnel_port;
	outer->udp.len = bpf_htons(ip_bytes - sizeof(ip));
	outer->udp.check = 0; /* the inner packet has its own */
	outer->vxlan.flags = bpf_htonl(VXLAN_HAS_VNI);
	outer->vxlan.vni = bpf_htonl(fast_config.vni << 8);
}

/*
 * Puts the packet into the tunnel and on the way to the node. Answers what the program has to, or
 * ENCAP_BY_DEVICE with the packet as it was.
 */
static __always_inline int encapsulate(struct __sk_buff *skb, const struct fast_packet *packet,
				       const struct fast_dev *tunnel, __be32 node_ip)
{
	__u32 hash, ip_bytes = packet->bytes + sizeof(struct fast_outer_headers);
	struct bpf_redir_neigh gateway = {.nh_family = AF_INET};
	struct fast_next_hop hop;
	void *data;

	if (!(tunnel->flags & DEV_MAY_BE_SKIPPED) || unlikely(ip_bytes > MAX_IP_BYTES))
		return ENCAP_BY_DEVICE;
	hash = bpf_get_hash_recalc(skb);
	hash ^= hash >> 16;
	hop = find_next_hop(skb, tunnel, node_ip, hash);
	if (unlikely(!hop.ifindex))
		return ENCAP_BY_DEVICE;
	/* The kernel refuses what it could not segment behind outer headers. */
	if (unlikely(bpf_skb_adjust_room(skb, ENCAP_BYTES, BPF_ADJ_ROOM_MAC, ENCAP_FLAGS)))
		return ENCAP_BY_DEVICE;

	data = header_at(skb, 0, ETH_HLEN + ENCAP_BYTES + TOS_OFFSET + 1);
	if (unlikely(!data))
		return TC_ACT_SHOT; /* cannot be: the room was just made */
	copy_ethernet(data + ENCAP_BYTES, data);
	/* The kernel rewrites the outer MACs, but drops a packet to a group address. */
	*(__u8 *)data = 0;
	write_outer_headers(data + ETH_HLEN, node_ip, ip_bytes,
			    outer_tos(packet, data + ETH_HLEN + ENCAP_BYTES), hash);
	gateway.ipv4_nh = hop.gateway;
	return bpf_redirect_neigh(hop.ifindex, &gateway, sizeof(gateway), 0);
}

#endif
