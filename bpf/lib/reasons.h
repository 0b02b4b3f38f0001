/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Why a packet went where it went, and where it was seen. Listed here once and mirrored once, in
 * src/fast/datapath/bpf/reasons.py, which also says each in words; a test compares the two through
 * BTF.
 *
 * A reason's number is its place in fast_metrics and never gets another meaning.
 */
#ifndef FAST_REASONS_H
#define FAST_REASONS_H

enum fast_direction {
	FROM_POD = 0,
	TO_POD = 1,
	FROM_OVERLAY = 2,
	TO_OVERLAY = 3,
	FROM_UNDERLAY = 4,
};

#define DIRECTION_SLOTS 8

enum fast_reason {
	REASON_NONE = 0,

	/* The fast path. */
	FORWARD_LOCAL_POD = 1,
	FORWARD_TUNNEL = 2,
	FORWARD_NATIVE = 3,
	FORWARD_TUNNEL_DEVICE = 13,

	/* The stack path. */
	STACK_NOT_POD = 4,
	STACK_NODE = 5,
	STACK_FLOW = 6,
	STACK_FRAGMENT = 7,
	STACK_TOO_BIG = 8,
	STACK_REQUESTED = 9,
	STACK_NEIGHBOUR = 10,
	STACK_LINK_LOCAL = 11,
	STACK_TO_POD = 12,

	/* Dropped. */
	DROP_TRUNCATED = 64,
	DROP_UNSUPPORTED_ETHERTYPE = 65,
	DROP_VLAN_TAGGED = 66,
	DROP_IPV6_EXTENSIONS = 67,
	DROP_SPOOFED_ADDRESS = 68,
	DROP_SPOOFED_MAC = 69,
	DROP_TUNNEL_PORT = 70,
	DROP_NO_TUNNEL_KEY = 71,
	DROP_WRONG_VNI = 72,
	DROP_UNKNOWN_SENDER = 73,
	DROP_INNER_SOURCE = 74,
	DROP_TUNNEL_TO_TUNNEL = 75,
	DROP_SOURCE_ELSEWHERE = 76,
	DROP_UNKNOWN_DESTINATION = 77,
	DROP_NOT_UNICAST = 78,
	DROP_NO_DEVICE = 79,
	DROP_TUNNEL_KEY_REFUSED = 80,
	DROP_ROGUE_ROUTER = 81,
};

#define REASON_SLOTS 128

#endif
