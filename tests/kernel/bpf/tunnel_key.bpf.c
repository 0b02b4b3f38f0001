// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* For tests: gives a packet the tunnel key it would have from a vxlan device, then runs one of Fast's programs on it. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct sender {
	__u32 program;
	__u32 vni;
	__u32 ipv4; /* host order */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sender);
} sender SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} programs SEC(".maps");

SEC("tc")
int with_tunnel_key(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct sender *from = bpf_map_lookup_elem(&sender, &zero);
	struct bpf_tunnel_key key = {};

	if (!from)
		return TC_ACT_STOLEN;
	/* Who sent a packet is the key's source, which a program may only set as its local end. */
	key.tunnel_id = from->vni;
	key.local_ipv4 = from->ipv4;
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0))
		return TC_ACT_STOLEN;
	bpf_tail_call(skb, &programs, from->program);
	return TC_ACT_STOLEN;
}

char _license[] SEC("license") = "Dual BSD/GPL";
