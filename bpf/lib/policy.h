/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Judges packets by the compiled rules. src/fast/policy/judge.py is the same algorithm in Python:
 * change both together. docs/adr/0020 says who counts as the opener of a flow without an entry.
 */
#ifndef FAST_POLICY_H
#define FAST_POLICY_H

#include "flow.h"

#define MAX_PAGES      16
#define PAGE_GROUPS    256
#define BITS_WORDS     4
#define PORT_KEY_BITS  56 /* rules, protocol, port */
#define BLOCK_KEY_BITS 128

/* Above this, a port is more likely the client's (net.ipv4.ip_local_port_range). */
#define FIRST_EPHEMERAL_PORT 32768
/* For how long after a pod is isolated a datagram may belong to a flow that is older. */
#define FRESHLY_ISOLATED_NS 10000000000ULL

enum fast_says {
	SAYS_NOTHING = 0,
	SAYS_ALLOW = 1,
	SAYS_DENY = 2,
	SAYS_PASS = 3,
};

/* A packet in the stack, as the judge sees it. */
struct fast_judged {
	struct fast_packet packet;
	__u8 tcp_flags;
	bool from_own_node; /* no device brought it */
	bool to_own_node;   /* it is delivered here */
};

/* What is asked of one rule set. */
struct fast_question {
	__u32 rules;
	__be16 port;
	__u8 protocol;
	bool np_passes; /* the NetworkPolicy tier has no say */
};

/* What is known of the other end. */
struct fast_other {
	__u32 peer_class;
	bool is_pod;
	bool in_blocks_only;
};

/* The bits of a word that are below the group of that index. */
static __always_inline __u64 groups_below(__u32 index, __u32 word)
{
	__u32 first = word * 64;

	if (index >= first + 64)
		return ~0ULL;
	if (index <= first)
		return 0;
	return (1ULL << (index - first)) - 1;
}

/* What the first matching group from one index up to another says. */
__noinline int first_says(const struct fast_ruleset *page, const struct fast_bits *matched,
			  __u32 from, __u32 to)
{
	if (!page || !matched)
		return SAYS_NOTHING;
	for (__u32 word = 0; word < BITS_WORDS; word++) {
		__u64 bits =
			matched->word[word] & groups_below(to, word) & ~groups_below(from, word);

		if (!bits)
			continue;
		bits &= -bits;
		if (page->accept.word[word] & bits)
			return SAYS_ALLOW;
		return page->deny.word[word] & bits ? SAYS_DENY : SAYS_PASS;
	}
	return SAYS_NOTHING;
}

static __always_inline void find_other(const struct fast_addr *addr, struct fast_other *other)
{
	struct fast_local_pod *pod = bpf_map_lookup_elem(&fast_local_pods, addr);
	struct fast_cluster_pod *entry;

	other->in_blocks_only = false;
	if (pod) {
		other->peer_class = pod->peer_class;
		other->is_pod = true;
		return;
	}
	entry = bpf_map_lookup_elem(&fast_cluster_pods, addr);
	other->is_pod = entry && entry->kind == KIND_POD;
	other->peer_class = entry ? entry->peer_class : 0;
	other->in_blocks_only = !entry;
}

static __always_inline __u32 block_class(const struct fast_addr *addr)
{
	struct fast_block_key key = {.prefixlen = BLOCK_KEY_BITS};
	__u32 *found;

	__builtin_memcpy(key.words, addr->words, sizeof(key.words));
	found = bpf_map_lookup_elem(&fast_blocks, &key);
	return found ? *found : 0;
}

/* Finds the groups of a page that match both the other end and the port. */
__noinline int find_matched(const struct fast_ruleset *page, const struct fast_question *question,
			    const struct fast_other *other, struct fast_bits *matched)
{
	struct fast_port_key port_key = {.prefixlen = PORT_KEY_BITS};
	struct fast_peer_key peer_key = {};
	struct fast_bits *peers, *ports;

	if (!page || !question || !other || !matched)
		return 0;
	peer_key.rules = port_key.rules = question->rules;
	peer_key.peer_class = other->peer_class;
	port_key.protocol = question->protocol;
	__builtin_memcpy(port_key.port, &question->port, sizeof(port_key.port));
	peers = bpf_map_lookup_elem(&fast_peers, &peer_key);
	ports = bpf_map_lookup_elem(&fast_ports, &port_key);
	for (__u32 word = 0; word < BITS_WORDS; word++) {
		__u64 bits = page->any.word[word];

		if (other->is_pod)
			bits |= page->any_pod.word[word];
		if (peers)
			bits |= peers->word[word];
		matched->word[word] = ports ? bits & ports->word[word] : 0;
	}
	return 0;
}

/* Asks the tiers of one page. *admin_passed: a rule of the admin tier said pass. */
static __always_inline int ask_page(const struct fast_ruleset *page,
				    const struct fast_bits *matched, bool np_passes,
				    bool *admin_passed)
{
	int says;

	if (!*admin_passed) {
		says = first_says(page, matched, 0, page->np_first);
		if (says == SAYS_ALLOW || says == SAYS_DENY)
			return says;
		*admin_passed = says == SAYS_PASS;
	}
	if (!np_passes) {
		if (first_says(page, matched, page->np_first, page->baseline_first))
			return SAYS_ALLOW;
		if (page->flags & RULESET_NP_ISOLATED &&
		    (page->baseline_first < PAGE_GROUPS || !page->next))
			return SAYS_DENY;
	}
	says = first_says(page, matched, page->baseline_first, PAGE_GROUPS);
	return says == SAYS_PASS ? SAYS_ALLOW : says;
}

/*
 * Whether a rule set allows the packet that the question is about. The functions that are not
 * static are verified by themselves, once: else the verifier would walk each page on each way here.
 */
__noinline int rules_allow(const struct fast_addr *addr, const struct fast_question *asked)
{
	struct fast_question question;
	struct fast_bits matched = {};
	struct fast_other other = {};
	struct fast_ruleset *page;
	bool admin_passed = false;
	int says;

	if (!addr || !asked)
		return 0;
	question = *asked;
	find_other(addr, &other);
	for (int i = 0; i < MAX_PAGES; i++) {
		page = bpf_map_lookup_elem(&fast_rulesets, &question.rules);
		if (!page)
			return 0; /* nothing refers to what is not there; if it does, fail closed */
		if (!i && other.in_blocks_only && page->flags & RULESET_HAS_BLOCKS)
			other.peer_class = block_class(addr);
		find_matched(page, &question, &other, &matched);
		says = ask_page(page, &matched, question.np_passes, &admin_passed);
		if (says)
			return says == SAYS_ALLOW;
		question.rules = page->next;
		if (!question.rules)
			return 1;
	}
	return 1;
}

/*
 * Judges the packet's flow by the rules of its local ends. by_destination: the packet's destination
 * opened it.
 */
static __always_inline enum fast_reason judge_flow(const struct fast_judged *judged,
						   const struct fast_local_pod *source,
						   const struct fast_local_pod *destination,
						   bool by_destination)
{
	const struct fast_packet *packet = &judged->packet;
	const struct fast_addr *opener = by_destination ? &packet->destination : &packet->source;
	const struct fast_addr *other = by_destination ? &packet->source : &packet->destination;
	const struct fast_local_pod *from = by_destination ? destination : source;
	const struct fast_local_pod *to = by_destination ? source : destination;
	bool hairpin = addr_equal(opener, other);
	struct fast_question question = {
		.protocol = packet->protocol,
		.port = by_destination ? packet->source_port : packet->destination_port,
		.np_passes = hairpin,
	};

	if (!has_ports(packet->protocol))
		question.port = 0; /* an echo's is its identifier */
	if (from && from->egress_rules) {
		question.rules = from->egress_rules;
		if (!rules_allow(other, &question))
			return DROP_POLICY_EGRESS;
	}
	if (to && to->ingress_rules) {
		question.rules = to->ingress_rules;
		if (by_destination ? judged->to_own_node : judged->from_own_node)
			question.np_passes = true;
		if (!rules_allow(opener, &question))
			return DROP_POLICY_INGRESS;
	}
	return REASON_NONE;
}

static __always_inline bool is_fresh(const struct fast_local_pod *pod, __u64 now)
{
	return pod && pod->isolated_since_ns && now - pod->isolated_since_ns < FRESHLY_ISOLATED_NS;
}

enum fast_opener {
	OPENER_SOURCE = 1,
	OPENER_DESTINATION = 2,
	OPENER_UNKNOWN = 3, /* either: both must be allowed */
};

static __always_inline enum fast_opener opener_by_ports(const struct fast_packet *packet)
{
	bool source = bpf_ntohs(packet->source_port) >= FIRST_EPHEMERAL_PORT;
	bool destination = bpf_ntohs(packet->destination_port) >= FIRST_EPHEMERAL_PORT;

	if (source == destination)
		return OPENER_UNKNOWN;
	return source ? OPENER_SOURCE : OPENER_DESTINATION;
}

/* Who opened the flow of a packet. flow: its entry, or NULL. fresh: an end was isolated just now.
 */
static __always_inline enum fast_opener find_opener(const struct fast_judged *judged,
						    const struct fast_flow *flow, bool fresh)
{
	const struct fast_packet *packet = &judged->packet;
	__u8 syn = judged->tcp_flags & (TCP_SYN | TCP_ACK);

	if (packet->protocol == IPPROTO_TCP && syn == TCP_SYN)
		return OPENER_SOURCE;
	if (flow && flow->flags & FLOW_OPENERS)
		return flow->flags & opened_by(packet) ? OPENER_SOURCE : OPENER_DESTINATION;
	if (packet->protocol == IPPROTO_TCP) {
		if (syn == (TCP_SYN | TCP_ACK))
			return OPENER_DESTINATION;
		return opener_by_ports(packet);
	}
	if (judged->packet.flags & PACKET_ECHO_REPLY)
		return OPENER_DESTINATION;
	if (fresh && has_ports(packet->protocol))
		return opener_by_ports(packet);
	return OPENER_SOURCE;
}

static __always_inline __u32 epoch_of(const struct fast_local_pod *pod)
{
	return pod ? pod->epoch : 0;
}

/* Whether the entry was judged by the rules that the local ends have now. */
static __always_inline bool is_up_to_date(const struct fast_flow *flow,
					  const struct fast_packet *packet,
					  const struct fast_local_pod *source,
					  const struct fast_local_pod *destination)
{
	bool high = source_is_high(packet);

	return flow->low_epoch == epoch_of(high ? destination : source) &&
	       flow->high_epoch == epoch_of(high ? source : destination);
}

static __always_inline void set_epochs(struct fast_flow *flow, const struct fast_packet *packet,
				       const struct fast_local_pod *source,
				       const struct fast_local_pod *destination)
{
	bool high = source_is_high(packet);

	flow->low_epoch = epoch_of(high ? destination : source);
	flow->high_epoch = epoch_of(high ? source : destination);
}

static __always_inline void touch_judged(struct fast_flow *flow, const struct fast_judged *judged)
{
	const struct fast_packet *packet = &judged->packet;
	__u64 now = bpf_ktime_get_ns();
	__u32 flags = flow->flags;

	if (now - flow->last_seen_ns > FLOW_REFRESH_NS)
		flow->last_seen_ns = now;
	if (flags & FLOW_OPENERS && !(flags & opened_by(packet)))
		flags |= FLOW_ANSWERED;
	if (packet->protocol == IPPROTO_TCP)
		flags = after_segment(packet, flags, judged->tcp_flags);
	if (flags != flow->flags)
		flow->flags = flags;
}

/*
 * Writes down that policy allowed a flow, so that its replies pass. Returns why it cannot: then the
 * packet must be dropped, as no reply would come through.
 */
static __always_inline enum fast_reason write_judged(const struct fast_judged *judged,
						     struct fast_flow *flow, __u32 opener,
						     const struct fast_local_pod *source,
						     const struct fast_local_pod *destination)
{
	const struct fast_packet *packet = &judged->packet;
	struct fast_flow fresh = {
		.last_seen_ns = bpf_ktime_get_ns(),
		.flags = FLOW_JUDGED | opener,
		.owner = source	       ? source->ifindex
			 : destination ? destination->ifindex | FLOW_OWNER_INBOUND
				       : 0,
	};
	__u32 ifindex = fresh.owner & ~FLOW_OWNER_INBOUND;
	bool inbound = fresh.owner & FLOW_OWNER_INBOUND;
	struct fast_interface *interface;
	struct fast_flow_key key;
	long result;

	if (flow) {
		set_epochs(flow, packet, source, destination);
		flow->flags = (flow->flags & ~FLOW_OPENERS) | FLOW_JUDGED | opener;
		touch_judged(flow, judged);
		return REASON_NONE;
	}
	flow_key(packet, &key);
	set_epochs(&fresh, packet, source, destination);
	if (packet->protocol == IPPROTO_TCP)
		fresh.flags = after_segment(packet, fresh.flags, judged->tcp_flags);
	interface = bpf_map_lookup_elem(&fast_interfaces, &ifindex);
	if (interface && !may_open_flow(interface, ifindex, inbound)) {
		count_flow(interface, inbound, true);
		return DROP_FLOW_LIMIT;
	}
	result = bpf_map_update_elem(&fast_flow_table, &key, &fresh, BPF_NOEXIST);
	if (result == -EEXIST) { /* another CPU was quicker: its entry has to say so, too */
		flow = bpf_map_lookup_elem(&fast_flow_table, &key);
		if (flow) {
			set_epochs(flow, packet, source, destination);
			flow->flags |= FLOW_JUDGED;
		}
		return REASON_NONE;
	}
	if (interface)
		count_flow(interface, inbound, result);
	return result ? DROP_FLOW_TABLE_FULL : REASON_NONE;
}

/* Judges a packet that no entry speaks for, or one that does no longer. */
static __always_inline enum fast_reason judge_again(const struct fast_judged *judged,
						    struct fast_flow *flow,
						    const struct fast_local_pod *source,
						    const struct fast_local_pod *destination)
{
	const struct fast_packet *packet = &judged->packet;
	__u64 now = bpf_ktime_get_ns();
	bool fresh = is_fresh(source, now) || is_fresh(destination, now);
	enum fast_opener opener = find_opener(judged, flow, fresh);
	enum fast_reason reason = REASON_NONE;
	__u32 opened = opened_by(packet);

	if (opener & OPENER_SOURCE)
		reason = judge_flow(judged, source, destination, false);
	if (!reason && opener & OPENER_DESTINATION)
		reason = judge_flow(judged, source, destination, true);
	if (reason) {
		if (!flow || !(flow->flags & FLOW_JUDGED))
			return reason;
		/* A SYN of the end that did not open it says nothing about the flow that is there.
		 */
		if (opener == OPENER_SOURCE && !(flow->flags & opened))
			return reason;
		flow->flags &= ~FLOW_JUDGED;
		return DROP_POLICY_REVOKED;
	}
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return REASON_NONE;
	if (opener == OPENER_DESTINATION)
		opened ^= FLOW_OPENERS;
	return write_judged(judged, flow, opened, source, destination);
}

/* Whether a SYN would open the flow once more, from the other end. */
static __always_inline bool opens_backwards(const struct fast_judged *judged,
					    const struct fast_flow *flow)
{
	return judged->packet.protocol == IPPROTO_TCP &&
	       (judged->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       !(flow->flags & opened_by(&judged->packet));
}

/*
 * Judges a packet. quoted: the flow of the packet that an ICMP error quotes, or NULL. Returns
 * REASON_NONE, or why the packet is to be dropped.
 */
static __always_inline enum fast_reason judge_packet(const struct fast_judged *judged,
						     const struct fast_flow_key *quoted)
{
	const struct fast_packet *packet = &judged->packet;
	struct fast_local_pod *source = bpf_map_lookup_elem(&fast_local_pods, &packet->source);
	struct fast_local_pod *destination =
		bpf_map_lookup_elem(&fast_local_pods, &packet->destination);
	__u32 flags = (source ? source->flags : 0) | (destination ? destination->flags : 0);
	struct fast_flow *flow;
	struct fast_flow_key key;

	if (likely(!(flags & (POD_INGRESS_ISOLATED | POD_EGRESS_ISOLATED | POD_POLICY_PENDING))))
		return REASON_NONE;
	if (packet->flags & (PACKET_NEIGHBOUR | PACKET_ICMP_ROUTER | PACKET_LINK_SETUP))
		return REASON_NONE;
	if (flags & POD_POLICY_PENDING)
		return DROP_POLICY_PENDING;
	if (packet->flags & PACKET_ICMP_ERROR) {
		if (judged->from_own_node)
			return REASON_NONE;
		flow = quoted ? bpf_map_lookup_elem(&fast_flow_table, quoted) : NULL;
		if (flow && flow->flags & FLOW_JUDGED)
			return REASON_NONE;
		return source && source->egress_rules ? DROP_POLICY_EGRESS : DROP_POLICY_INGRESS;
	}
	flow_key(packet, &key);
	flow = bpf_map_lookup_elem(&fast_flow_table, &key);
	if (flow && flow->flags & FLOW_JUDGED && !opens_backwards(judged, flow) &&
	    is_up_to_date(flow, packet, source, destination)) {
		touch_judged(flow, judged);
		return REASON_NONE;
	}
	return judge_again(judged, flow, source, destination);
}

#endif
