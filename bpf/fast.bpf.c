// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The data plane of a node, one program a hook;
 * docs/develop/datapath.md walks a packet through them.
 *
 * Every program is complete in itself (no tail calls), so that replacing one is one atomic link
 * update. Packets that are left to the stack get TC_ACT_UNSPEC: programs that others attached
 * behind ours see them too.
 */
#include "lib/flow.h"
#include "lib/neighbour.h"

char _license[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct fast_local_pod *find_local_pod(const struct fast_addr *addr)
{
	return bpf_map_lookup_elem(&fast_local_pods, addr);
}

static __always_inline struct fast_cluster_pod *find_cluster_pod(const struct fast_addr *addr)
{
	return bpf_map_lookup_elem(&fast_cluster_pods, addr);
}

static __always_inline bool is_own_node(const struct fast_addr *addr)
{
	struct fast_cluster_pod *entry;

	if (addr_equal(addr, &fast_config.node_addr) || addr_equal(addr, &fast_config.node_addr6))
		return true;
	entry = find_cluster_pod(addr);
	return entry && entry->kind == KIND_NODE && entry->node_ip == fast_config.node_ip;
}

static __always_inline bool is_for_tunnel_port(const struct fast_packet *packet)
{
	return packet->protocol == IPPROTO_UDP &&
	       packet->destination_port == fast_config.tunnel_port &&
	       !(packet->flags & PACKET_LATER_FRAGMENT);
}

/* Whether an address means something on one link only: such packets are between the pod and its
 * host. */
static __always_inline bool is_link_scope(const struct fast_addr *addr)
{
	return addr_is_link_local(addr) || addr_is_multicast(addr);
}

/* A pod's packet with no fast path: to this node, to outside, or of link scope. */
static __noinline int hand_to_stack(struct __sk_buff *skb, const struct fast_packet *packet,
				    __u32 reason, __u32 pod_flags)
{
	/* Whoever can send to a node's tunnel port can claim to be any pod. The stack may
	 * masquerade the packet, so that it would even come from a node. */
	if (is_for_tunnel_port(packet))
		return drop(skb, packet, FROM_POD, DROP_TUNNEL_PORT);
	if (addr_is_loopback(&packet->destination))
		return drop(skb, packet, FROM_POD, DROP_LOOPBACK);
	if (fast_config.flags & CONFIG_BLOCK_METADATA && !(pod_flags & POD_METADATA_ALLOWED) &&
	    addr_is_metadata(&packet->destination))
		return drop(skb, packet, FROM_POD, DROP_METADATA);
	if (is_link_scope(&packet->destination))
		reason = STACK_LINK_LOCAL;
	return pass(skb, packet, FROM_POD, reason);
}

/* Whether a pod may send this from the unspecified address: to find out whether an address is
 * taken, multicast memberships, DHCP. */
static __always_inline bool is_address_setup(struct __sk_buff *skb,
					     const struct fast_packet *packet)
{
	__u8 type;

	if (!addr_is_multicast(&packet->destination))
		return false;
	if (!(packet->flags & PACKET_IPV6))
		return true;
	if (packet->protocol != IPPROTO_ICMPV6 ||
	    bpf_skb_load_bytes(skb, packet->l4_offset, &type, sizeof(type)))
		return false;
	return type == ICMP6_NEIGHBOUR_SOLICITATION || type == ICMP6_ROUTER_SOLICITATION ||
	       type == ICMP6_MULTICAST_REPORT || type == ICMP6_MULTICAST_DONE ||
	       type == ICMP6_MULTICAST_REPORT_V2;
}

/* A pod's packet whose source is not one of the pod's addresses: set-up of addresses and neighbour
 * discovery on its own link, or spoofed. */
static __noinline int check_foreign_source(struct __sk_buff *skb, const struct fast_packet *packet)
{
	struct fast_interface *interface = find_interface(skb);
	struct ethhdr eth;
	int reason;

	if (packet->flags & PACKET_ICMP_ROUTER)
		return drop(skb, packet, FROM_POD, DROP_ROGUE_ROUTER);
	if (!interface || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return drop(skb, packet, FROM_POD, DROP_SPOOFED_ADDRESS);
	if (addr_is_unspecified(&packet->source)) {
		if (!is_address_setup(skb, packet))
			return drop(skb, packet, FROM_POD, DROP_SPOOFED_ADDRESS);
	} else if (!(packet->flags & PACKET_IPV6) || !is_link_scope(&packet->destination) ||
		   !is_link_local_of(&packet->source, interface->pod_mac)) {
		return drop(skb, packet, FROM_POD, DROP_SPOOFED_ADDRESS);
	}
	if (!is_own_mac(eth.h_source, interface->pod_mac))
		return drop(skb, packet, FROM_POD, DROP_SPOOFED_MAC);
	if (packet->flags & PACKET_CHECKED) {
		reason = check_icmp(skb, packet);
		if (reason)
			return drop(skb, packet, FROM_POD, reason);
	}
	return hand_to_stack(skb, packet, STACK_LINK_LOCAL, 0);
}

static __noinline int handle_arp(struct __sk_buff *skb, const struct fast_packet *packet)
{
	int reason = check_arp(skb, find_interface(skb));

	if (reason)
		return drop(skb, packet, FROM_POD, reason);
	return pass(skb, packet, FROM_POD, STACK_NEIGHBOUR);
}

static __always_inline bool is_source_mac(struct __sk_buff *skb, const __u8 *mac)
{
	struct ethhdr *eth = header_at(skb, 0, sizeof(*eth));

	return eth && mac_equal(eth->h_source, mac);
}

/* Host side of a pod's veth, ingress: what the pod sends. */
SEC("tc")
int fast_from_pod(struct __sk_buff *skb)
{
	struct fast_local_pod *source, *local;
	struct fast_cluster_pod *remote = NULL;
	struct fast_packet packet;
	struct fast_flow *flow;
	enum fast_reason reason;

	reason = parse_packet(skb, &packet);
	if (unlikely(reason == STACK_NEIGHBOUR))
		return handle_arp(skb, &packet);
	if (unlikely(reason))
		return drop(skb, &packet, FROM_POD, reason);

	source = find_local_pod(&packet.source);
	if (unlikely(!source || source->ifindex != skb->ifindex))
		return check_foreign_source(skb, &packet);
	if (unlikely(!is_source_mac(skb, source->pod_mac)))
		return drop(skb, &packet, FROM_POD, DROP_SPOOFED_MAC);
	if (unlikely(packet.flags & PACKET_CHECKED)) {
		reason = check_icmp(skb, &packet);
		if (reason)
			return drop(skb, &packet, FROM_POD, reason);
	}

	local = find_local_pod(&packet.destination);
	if (!local) {
		remote = find_cluster_pod(&packet.destination);
		if (!remote)
			return hand_to_stack(skb, &packet, STACK_NOT_POD, source->flags);
		if (remote->node_ip == fast_config.node_ip)
			return hand_to_stack(skb, &packet, STACK_NODE, source->flags);
		if (remote->kind == KIND_NODE && is_for_tunnel_port(&packet))
			return drop(skb, &packet, FROM_POD, DROP_TUNNEL_PORT);
	}
	if (unlikely(packet.flags & PACKET_FRAGMENT))
		return pass(skb, &packet, FROM_POD, STACK_FRAGMENT);
	if (unlikely((source->flags | (local ? local->flags : 0)) & POD_ON_STACK))
		return pass(skb, &packet, FROM_POD, STACK_REQUESTED);
	if (came_through_stack(skb, &packet, &flow))
		return pass(skb, &packet, FROM_POD, STACK_FLOW);
	if (local)
		return deliver(skb, &packet, local, FROM_POD);
	if (!remote)
		return TC_ACT_UNSPEC; /* cannot be, but the compiler may forget that one of the two
					 is there */
	return send_to_node(skb, &packet, remote->node_ip);
}

/* Host side of a pod's veth, egress: what the stack sends to the pod. */
SEC("tc")
int fast_to_pod(struct __sk_buff *skb)
{
	enum fast_reason reason = REASON_NONE;
	struct fast_cluster_pod *remote;
	struct fast_local_pod *source;
	struct fast_packet packet;

	if (parse_packet(skb, &packet))
		return pass(skb, &packet, TO_POD, STACK_TO_POD);
	/* Only flows whose replies could take the fast path need an entry. */
	source = find_local_pod(&packet.source);
	if (source) {
		reason = remember_flow(skb, &packet, TO_POD, source->ifindex);
	} else {
		remote = find_cluster_pod(&packet.source);
		if (remote && remote->node_ip != fast_config.node_ip)
			reason = remember_flow(skb, &packet, TO_POD,
					       skb->ifindex | FLOW_OWNER_INBOUND);
	}
	if (unlikely(reason))
		return drop(skb, &packet, TO_POD, reason);
	return pass(skb, &packet, TO_POD, STACK_TO_POD);
}

/* Finds the reason why the inner source does not live on the outer sender's node. */
static __noinline int refuse_sender(struct __sk_buff *skb, const struct fast_packet *packet,
				    __u32 sender)
{
	struct fast_cluster_pod *node;
	struct fast_addr addr;

	addr_from_ipv4(&addr, bpf_htonl(sender));
	node = find_cluster_pod(&addr);
	if (!node || node->kind != KIND_NODE)
		return drop(skb, packet, FROM_OVERLAY, DROP_UNKNOWN_SENDER);
	return drop(skb, packet, FROM_OVERLAY, DROP_INNER_SOURCE);
}

/* What the tunnel brought for no pod of this node: for the node itself, or refused. */
static __noinline int overlay_to_node(struct __sk_buff *skb, const struct fast_packet *packet)
{
	if (addr_is_multicast(&packet->destination))
		return drop(skb, packet, FROM_OVERLAY, DROP_NOT_UNICAST);
	if (!is_own_node(&packet->destination))
		return drop(skb, packet, FROM_OVERLAY, DROP_UNKNOWN_DESTINATION);
	if (is_for_tunnel_port(packet))
		return drop(skb, packet, FROM_OVERLAY, DROP_TUNNEL_PORT);
	address_to_this_host(skb);
	return pass(skb, packet, FROM_OVERLAY, STACK_NODE);
}

/* vxlan device, ingress: what other nodes send. */
SEC("tc")
int fast_from_overlay(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	struct fast_cluster_pod *sender;
	struct fast_local_pod *local;
	struct fast_packet packet;
	struct fast_flow *flow;
	enum fast_reason reason;

	reason = parse_packet(skb, &packet);
	if (bpf_skb_get_tunnel_key(skb, &key, TUNNEL_SENDER_BYTES, 0))
		return drop(skb, &packet, FROM_OVERLAY, DROP_NO_TUNNEL_KEY);
	if (key.tunnel_id != fast_config.vni)
		return drop(skb, &packet, FROM_OVERLAY, DROP_WRONG_VNI);
	if (unlikely(reason))
		return drop(skb, &packet, FROM_OVERLAY,
			    reason == STACK_NEIGHBOUR ? DROP_UNSUPPORTED_ETHERTYPE : reason);

	sender = find_cluster_pod(&packet.source);
	if (unlikely(!sender || sender->node_ip != bpf_htonl(key.remote_ipv4)))
		return refuse_sender(skb, &packet, key.remote_ipv4);
	local = find_local_pod(&packet.destination);
	if (!local)
		return overlay_to_node(skb, &packet);

	if (unlikely(packet.flags & PACKET_FRAGMENT))
		reason = STACK_FRAGMENT;
	else if (unlikely(local->flags & POD_ON_STACK))
		reason = STACK_REQUESTED;
	else if (came_through_stack(skb, &packet, &flow))
		reason = STACK_FLOW;
	else
		return deliver(skb, &packet, local, FROM_OVERLAY);
	address_to_this_host(skb);
	return pass(skb, &packet, FROM_OVERLAY, reason);
}

/* Says why a packet that the stack sends to another node, with a source that is not of this one, is
 * refused. */
static __noinline int refuse_source(struct __sk_buff *skb, const struct fast_packet *packet)
{
	__u32 role = DEVICE_TUNNEL;
	struct fast_dev *tunnel = bpf_map_lookup_elem(&fast_local_dev, &role);

	if (tunnel && skb->ingress_ifindex && skb->ingress_ifindex == tunnel->ifindex)
		return drop(skb, packet, TO_OVERLAY, DROP_TUNNEL_TO_TUNNEL);
	return drop(skb, packet, TO_OVERLAY, DROP_SOURCE_ELSEWHERE);
}

/* vxlan device, egress: what a pod sent by redirect, with its tunnel key, and what the stack sends
 * to other nodes. */
SEC("tc")
int fast_to_overlay(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	const struct fast_dev *device;
	struct fast_cluster_pod *remote;
	struct fast_local_pod *source;
	struct fast_packet packet;
	enum fast_reason reason;

	/* Counted by fast_from_pod. */
	if (!bpf_skb_get_tunnel_key(skb, &key, TUNNEL_SENDER_BYTES, 0) && key.tunnel_id)
		return TC_ACT_UNSPEC;

	reason = parse_packet(skb, &packet);
	if (unlikely(reason))
		return drop(skb, &packet, TO_OVERLAY,
			    reason == STACK_NEIGHBOUR ? DROP_UNSUPPORTED_ETHERTYPE : reason);
	if (unlikely(is_link_scope(&packet.destination)))
		return drop(skb, &packet, TO_OVERLAY, DROP_NOT_UNICAST);
	remote = find_cluster_pod(&packet.destination);
	if (unlikely(!remote || remote->node_ip == fast_config.node_ip))
		return drop(skb, &packet, TO_OVERLAY, DROP_UNKNOWN_DESTINATION);

	source = find_local_pod(&packet.source);
	if (source) {
		reason = remember_flow(skb, &packet, TO_OVERLAY, source->ifindex);
		if (unlikely(reason))
			return drop(skb, &packet, TO_OVERLAY, reason);
	} else if (unlikely(!is_own_node(&packet.source))) {
		return refuse_source(skb, &packet);
	}

	if (goes_natively(&packet)) {
		device = device_towards_nodes(&packet);
		if (!device)
			return drop(skb, &packet, TO_OVERLAY, DROP_NO_DEVICE);
		account(skb, &packet, TO_OVERLAY, FORWARD_NATIVE);
		return redirect_to_node(device->ifindex, remote->node_ip);
	}
	if (set_tunnel_key(skb, remote->node_ip))
		return drop(skb, &packet, TO_OVERLAY, DROP_TUNNEL_KEY_REFUSED);
	return pass(skb, &packet, TO_OVERLAY, FORWARD_TUNNEL);
}

/*
 * Underlay NIC, ingress, native routing only: takes out what is from another node's pod for a pod
 * of this one. All else is the node's own business and left alone, uncounted.
 */
SEC("tc")
int fast_from_underlay(struct __sk_buff *skb)
{
	struct fast_cluster_pod *sender;
	struct fast_local_pod *local;
	struct fast_packet packet;
	struct fast_flow *flow;

	if (skb->pkt_type != PACKET_HOST || parse_packet(skb, &packet))
		return TC_ACT_UNSPEC;
	local = find_local_pod(&packet.destination);
	if (!local)
		return TC_ACT_UNSPEC;
	sender = find_cluster_pod(&packet.source);
	if (find_local_pod(&packet.source) || (sender && sender->node_ip == fast_config.node_ip))
		return drop(skb, &packet, FROM_UNDERLAY, DROP_SPOOFED_ADDRESS);
	if (!sender)
		return pass(skb, &packet, FROM_UNDERLAY, STACK_NOT_POD);
	if (unlikely(!goes_natively(&packet)))
		return drop(skb, &packet, FROM_UNDERLAY, DROP_UNTUNNELLED);
	if (unlikely(packet.flags & PACKET_FRAGMENT))
		return pass(skb, &packet, FROM_UNDERLAY, STACK_FRAGMENT);
	if (unlikely(local->flags & POD_ON_STACK))
		return pass(skb, &packet, FROM_UNDERLAY, STACK_REQUESTED);
	if (came_through_stack(skb, &packet, &flow))
		return pass(skb, &packet, FROM_UNDERLAY, STACK_FLOW);
	return deliver(skb, &packet, local, FROM_UNDERLAY);
}
