/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything the programs share with each other and with userspace: maps, their keys and values,
 * and the configuration. Each struct has a mirror in src/fast/datapath/bpf/layout.py; a test
 * compares them through BTF.
 */
#ifndef FAST_MAPS_H
#define FAST_MAPS_H

#include "addr.h"
#include "reasons.h"

enum fast_routing {
	ROUTING_VXLAN = 0,
	ROUTING_NATIVE = 1,
};

enum fast_event_kind {
	EVENT_DROP = 1,
	EVENT_NEW_FLOW = 2,
	EVENT_SAMPLE = 4,
};

/* Set before the object is loaded, constant afterwards: the verifier removes what is switched off.
 */
struct fast_config {
	struct fast_addr node_addr;  /* the node's underlay address */
	struct fast_addr node_addr6; /* its IPv6 address; node_addr again where it has none */
	__be32 node_ip;		     /* node_addr once more, as in fast_cluster_pod */
	__u32 vni;
	__u32 sample_mask; /* one packet in sample_mask + 1 */
	__be16 tunnel_port;
	__u8 routing; /* enum fast_routing */
	__u8 events;  /* of enum fast_event_kind, or-ed */
};

const volatile struct fast_config fast_config = {};

enum fast_local_pod_flag {
	POD_VIA_STACK = 1, /* never take the fast path: something attached to its veth has to see
			      the packets */
};

struct fast_local_pod {
	__u32 ifindex; /* the veth's host side */
	__u8 pod_mac[6];
	__u8 host_mac[6];
	__u32 flags;
};

enum fast_kind {
	KIND_POD = 1,
	KIND_NODE = 2,
};

struct fast_cluster_pod {
	__be32 node_ip;
	__u8 kind;
	__u8 flags;
	__u16 pad;
};

enum fast_device_role {
	DEVICE_TUNNEL = 0,
	DEVICE_UNDERLAY = 1,
};

enum fast_dev_flag {
	DEV_MAY_BE_SKIPPED = 1, /* of the tunnel: programs may do what the device does */
};

struct fast_dev {
	__u32 ifindex;
	__u32 mtu;
	__u32 flags;
};

/* What encap.h remembers of the kernel's routes to other nodes, for milliseconds. */
struct fast_next_hop {
	__u64 found_jiffies;
	__be32 node_ip;
	__be32 gateway;
	__u32 ifindex; /* 0: the tunnel device has to do it */
	__u32 pad;
};

/* Both directions of a flow have the same key: the ends are sorted (flow.h). */
struct fast_flow_key {
	struct fast_addr low;
	struct fast_addr high;
	__be16 low_port;
	__be16 high_port;
	__u8 protocol;
	__u8 pad[3];
};

struct fast_flow {
	__u64 last_seen_ns;
	__u32 flags;
	__u32 pad;
};

struct fast_metric {
	__u64 packets;
	__u64 bytes;
};

struct fast_event {
	__u64 time_ns;
	struct fast_addr source;
	struct fast_addr destination;
	__u32 ifindex;
	__u32 length;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 kind; /* enum fast_event_kind */
	__u8 reason;
	__u8 direction;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fast_addr);
	__type(value, struct fast_local_pod);
} fast_local_pods SEC(".maps");

/* Only userspace writes here, so its memory may grow with its entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct fast_addr);
	__type(value, struct fast_cluster_pod);
} fast_cluster_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct fast_dev);
} fast_local_dev SEC(".maps");

#define NEXT_HOP_SLOTS 4096 /* four ways to each of 1,024 nodes, or of more in turn */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEXT_HOP_SLOTS);
	__type(key, __u32);
	__type(value, struct fast_next_hop);
} fast_next_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct fast_flow_key);
	__type(value, struct fast_flow);
} fast_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_SLOTS *DIRECTION_SLOTS);
	__type(key, __u32);
	__type(value, struct fast_metric);
} fast_metrics SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} fast_events SEC(".maps");

/* Keeps in BTF what nothing above refers to: the enums that Python mirrors, and the ring buffer's
 * record. */
struct fast_mirrored {
	enum fast_reason reason;
	enum fast_direction direction;
	enum fast_routing routing;
	enum fast_event_kind event_kind;
	enum fast_local_pod_flag local_pod_flag;
	enum fast_kind kind;
	enum fast_device_role device_role;
	enum fast_dev_flag dev_flag;
	struct fast_event event;
};

const volatile struct fast_mirrored fast_mirrored = {};

#endif
