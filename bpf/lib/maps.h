/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything the programs share with each other and with userspace: maps, their keys and values,
 * and the configuration. `make generate` writes their Python side from the compiled object's BTF
 * (src/fast/datapath/bpf/generated.py).
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

enum fast_config_flag {
	CONFIG_BLOCK_METADATA = 1, /* only pods with POD_METADATA_ALLOWED reach cloud metadata */
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
	__u8 routing;	   /* enum fast_routing */
	__u8 events;	   /* of enum fast_event_kind, or-ed */
	__u32 flags;	   /* of enum fast_config_flag, or-ed */
	__u32 flow_budget; /* flows that a pod may open by the stack, until the agent sets a limit
			    */
};

const volatile struct fast_config fast_config = {};

enum fast_local_pod_flag {
	POD_VIA_STACK = 1, /* never take the fast path: something attached to its veth has to see
			      the packets */
	POD_INGRESS_ISOLATED = 2,
	POD_EGRESS_ISOLATED = 4,
	POD_POLICY_PENDING = 8, /* its rules are not in the maps yet */
	POD_AUDIT = 16,
	POD_METADATA_ALLOWED = 32,
};

/* A pod with any of these takes the stack path: policy judges there. */
#define POD_ON_STACK                                                                               \
	(POD_VIA_STACK | POD_INGRESS_ISOLATED | POD_EGRESS_ISOLATED | POD_POLICY_PENDING |         \
	 POD_AUDIT)

/* The policy fields are zero until a policy selects the pod: docs/adr/0014. */
struct fast_local_pod {
	__be32 address_tail; /* the address's last word: tells an element that was recycled; 0: not
				set */
	__u32 ifindex;	     /* the veth's host side */
	__u8 pod_mac[6];
	__u8 host_mac[6];
	__u32 flags;	     /* of enum fast_local_pod_flag, or-ed */
	__u32 peer_class;    /* what other pods' rules see in this address */
	__u32 ingress_rules; /* 0: not isolated */
	__u32 egress_rules;
	__u32 audit_ingress_rules; /* asked and told, never enforced; 0: none */
	__u32 audit_egress_rules;
	__u32 epoch; /* raised when something may have been revoked */
	__u64 isolated_since_ns;
};

enum fast_kind {
	KIND_POD = 1,
	KIND_NODE = 2,
};

struct fast_cluster_pod {
	__be32 node_ip;
	__u8 kind; /* enum fast_kind */
	__u8 flags;
	__u16 pad;
	__u32 peer_class; /* as in fast_local_pod */
};

/*
 * The interface of a pod of this node, by its host side: whose neighbour discovery it may speak,
 * and the flows it opened by the stack. The programs only raise the counters; what they may reach
 * is in fast_flow_limits, which only userspace writes.
 */
struct fast_interface {
	__u8 pod_mac[6];
	__u16 pad;
	__u64 flows_opened;   /* with the pod as source */
	__u64 flows_refused;  /* not opened: over the limit, or the table is full */
	__u64 inbound_opened; /* with a pod or node elsewhere as source */
	__u64 inbound_refused;
};

struct fast_flow_limit {
	__u64 flows_opened; /* up to which the counter of that name may grow */
	__u64 inbound_opened;
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

enum fast_flow_flag {
	FLOW_STACK = 1, /* came through the stack and stays on it */
	FLOW_OPENED_BY_LOW = 2,
	FLOW_OPENED_BY_HIGH = 4,
	FLOW_JUDGED = 8,      /* policy allowed it, at the epochs in the entry */
	FLOW_ANSWERED = 16,   /* the end that did not open it has sent */
	FLOW_FIN_BY_LOW = 32, /* TCP; a reset counts as both */
	FLOW_FIN_BY_HIGH = 64,
	FLOW_NAT = 128,	   /* reserved: its translation is in a map of Services */
	FLOW_SEEDED = 256, /* userspace wrote it, from the kernel's conntrack */
};

#define FLOW_OWNER_INBOUND 0x80000000 /* or-ed to owner: charged as inbound */

/* The agent deletes entries when they expire (src/fast/datapath/node/flow_table.py). */
struct fast_flow {
	__u64 last_seen_ns; /* CLOCK_MONOTONIC, to the second */
	__u32 flags;	    /* of enum fast_flow_flag, or-ed */
	__u32 low_epoch;    /* of the local pod at each end when the flow was judged */
	__u32 high_epoch;
	__u32 owner; /* the fast_interface whose limit it counts against; 0: none */
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

/* Not LRU: correctness rests on its entries. Userspace sizes it by the node's memory. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__type(key, struct fast_flow_key);
	__type(value, struct fast_flow);
} fast_flow_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct fast_interface);
} fast_interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct fast_flow_limit);
} fast_flow_limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_SLOTS *DIRECTION_SLOTS);
	__type(key, __u32);
	__type(value, struct fast_metric);
} fast_metrics SEC(".maps");

/* Policy: see policy.h and docs/develop/policy.md. Only userspace writes these. */

struct fast_bits {
	__u64 word[4]; /* the first of 256 rule groups is the lowest bit of the first word */
};

enum fast_ruleset_flag {
	RULESET_NP_ISOLATED = 1, /* the NetworkPolicy tier denies what no group of it allows */
	RULESET_HAS_BLOCKS = 2,
	RULESET_HAS_TIERS = 4,
};

/* One page of a rule set: 256 rule groups, in order of precedence. */
struct fast_ruleset {
	struct fast_bits any;	  /* groups that match every peer */
	struct fast_bits any_pod; /* every pod of the cluster */
	struct fast_bits accept;  /* in neither: pass */
	struct fast_bits deny;
	__u16 np_first; /* tiers: admin, NetworkPolicy, baseline */
	__u16 baseline_first;
	__u16 flags; /* of enum fast_ruleset_flag, or-ed */
	__u16 pad;
	__u32 next; /* the next page, or 0 */
	__u32 pad2;
};

/* Tells a rule set of an earlier run of the agent. */
struct fast_ruleset_id {
	__u8 digest[16];
};

struct fast_peer_key {
	__u32 rules;
	__u32 peer_class;
};

struct fast_port_key {
	__u32 prefixlen;
	__u32 rules;
	__u8 protocol;
	__u8 port[2]; /* network order */
	__u8 pad;
};

struct fast_block_key {
	__u32 prefixlen;
	__be32 words[4]; /* as in fast_addr */
};

#define MAX_RULESETS 8192
#define MAX_PEERS    262144
#define MAX_PORTS    65536
#define MAX_BLOCKS   65536

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_RULESETS);
	__type(key, __u32);
	__type(value, struct fast_ruleset);
} fast_rulesets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_RULESETS);
	__type(key, __u32);
	__type(value, struct fast_ruleset_id);
} fast_ruleset_ids SEC(".maps");

/* Which groups of a page match the addresses of a class. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PEERS);
	__type(key, struct fast_peer_key);
	__type(value, struct fast_bits);
} fast_peers SEC(".maps");

/* Which groups of a page match a port; the longest prefix has the bits of the shorter ones, too. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PORTS);
	__type(key, struct fast_port_key);
	__type(value, struct fast_bits);
} fast_ports SEC(".maps");

/* The class of addresses that have no entry of their own. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BLOCKS);
	__type(key, struct fast_block_key);
	__type(value, __u32);
} fast_blocks SEC(".maps");

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
	enum fast_config_flag config_flag;
	enum fast_flow_flag flow_flag;
	enum fast_ruleset_flag ruleset_flag;
	struct fast_event event;
};

const volatile struct fast_mirrored fast_mirrored = {};

#endif
