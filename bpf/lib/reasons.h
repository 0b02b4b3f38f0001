/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Why a packet went where it went, and where it was seen. The comment behind a reason completes the
 * sentence "the packet …"; `make generate` brings both into Python and docs/develop/datapath.md.
 *
 * A reason's number is its place in fast_metrics and never gets another meaning. From 64 on the
 * packet was dropped; 96 to 111 are for policy.
 */
#ifndef FAST_REASONS_H
#define FAST_REASONS_H

enum fast_direction {
	FROM_POD = 0,
	TO_POD = 1,
	FROM_OVERLAY = 2,
	TO_OVERLAY = 3,
	FROM_UNDERLAY = 4,
	AFTER_NAT = 5, /* in the stack, translated: fast_after_nat */
};

#define DIRECTION_SLOTS 8

/* A reason and its sentence are one line. */
/* clang-format off */
enum fast_reason {
	REASON_NONE = 0,

	/* The fast path. */
	FORWARD_LOCAL_POD = 1, /* was handed straight to a pod on this node */
	FORWARD_TUNNEL = 2, /* was sent through the tunnel to another node */
	FORWARD_NATIVE = 3, /* was sent to another node without a tunnel */
	FORWARD_TUNNEL_DEVICE = 13, /* was sent to another node by the tunnel device, as it may not, or cannot, be skipped */

	/* The stack path. */
	STACK_NOT_POD = 4, /* went to the stack: its destination or source is no pod or node of the cluster */
	STACK_NODE = 5, /* went to the stack: it is for this node itself */
	STACK_FLOW = 6, /* went to the stack: its flow came through the stack, as Service traffic does */
	STACK_FRAGMENT = 7, /* went to the stack: it is a fragment */
	STACK_TOO_BIG = 8, /* went to the stack, which answers or fragments: it is larger than the way out carries */
	STACK_REQUESTED = 9, /* went to the stack: a pod of it is marked so, for traffic shaping or policy */
	STACK_NEIGHBOUR = 10, /* went to the stack: ARP */
	STACK_LINK_LOCAL = 11, /* went to the stack: link-local or multicast (neighbour discovery, MLD, DHCP) */
	STACK_TO_POD = 12, /* came from the stack and went on to the pod */

	/* Dropped. */
	DROP_TRUNCATED = 64, /* is shorter than its headers say */
	DROP_UNSUPPORTED_ETHERTYPE = 65, /* is neither IPv4, IPv6 nor (from a pod) ARP */
	DROP_VLAN_TAGGED = 66, /* has a VLAN tag */
	DROP_IPV6_EXTENSIONS = 67, /* has more IPv6 extension headers than are looked through */
	DROP_SPOOFED_ADDRESS = 68, /* has a source address that is not the pod's */
	DROP_SPOOFED_MAC = 69, /* has a source MAC that is not the pod's */
	DROP_TUNNEL_PORT = 70, /* is UDP from a pod to the tunnel's port, where only nodes may send */
	DROP_NO_TUNNEL_KEY = 71, /* came through the vxlan device without an IPv4 tunnel key */
	DROP_WRONG_VNI = 72, /* has another VXLAN network identifier than Fast's */
	DROP_UNKNOWN_SENDER = 73, /* came through the tunnel from an address that is no node's */
	DROP_INNER_SOURCE = 74, /* came through the tunnel from a node on which its source does not live */
	DROP_TUNNEL_TO_TUNNEL = 75, /* came through the tunnel and would go back into it */
	DROP_SOURCE_ELSEWHERE = 76, /* would go into the tunnel with a source that is not of this node */
	DROP_UNKNOWN_DESTINATION = 77, /* is for a pod address that nobody has (or no longer has) */
	DROP_NOT_UNICAST = 78, /* is multicast or broadcast, which the overlay does not carry */
	DROP_NO_DEVICE = 79, /* has to leave by a device that fast_local_dev does not name */
	DROP_TUNNEL_KEY_REFUSED = 80, /* could not be given its tunnel key by the kernel */
	DROP_ROGUE_ROUTER = 81, /* is an ICMP redirect or router advertisement, which a pod may not send */
	DROP_NEIGHBOUR = 82, /* is ARP or neighbour discovery about an address or MAC that is not the pod's */
	DROP_ICMP_QUOTE = 83, /* is an ICMP error about a packet that was not sent to the pod */
	DROP_LOOPBACK = 84, /* has a loopback address as its destination */
	DROP_MAPPED_ADDRESS = 85, /* is IPv6 with an IPv4-mapped address */
	DROP_METADATA = 86, /* is for the cloud's metadata service, and the pod's namespace is not allowed */
	DROP_FLOW_LIMIT = 87, /* would open a flow through the stack, and its pod has as many as it may */
	DROP_FLOW_TABLE_FULL = 88, /* would open a flow through the stack, and the flow table is full */
	DROP_UNTUNNELLED = 89, /* is from a pod elsewhere, of a family that comes by the tunnel only, and came without */
	DROP_POLICY_INGRESS = 96, /* is not allowed by the ingress rules of the pod it is for */
	DROP_POLICY_EGRESS = 97, /* is not allowed by the egress rules of the pod it is from */
	DROP_POLICY_PENDING = 98, /* is of a pod whose rules are not in the maps */
	DROP_POLICY_REVOKED = 99, /* is of a flow that policy allowed once, and no longer does */
};
/* clang-format on */

#define REASON_SLOTS 128

#endif
