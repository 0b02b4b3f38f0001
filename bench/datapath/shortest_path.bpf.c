// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Only for comparison: the shortest eBPF path between pods that the kernel allows. It checks
 * nothing, counts nothing, knows nothing of Services, fragments or sizes; IPv4 only.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct pod {
	__u32 ifindex;
	__u8 mac[6];
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __be32);
	__type(value, struct pod);
} sp_local SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __be32);
	__type(value, __be32);
} sp_remote SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sp_tunnel SEC(".maps");

static __always_inline int to_local(struct ethhdr *eth, __be32 destination)
{
	struct pod *pod = bpf_map_lookup_elem(&sp_local, &destination);

	if (!pod)
		return -1;
	__builtin_memcpy(eth->h_dest, pod->mac, sizeof(pod->mac));
	return bpf_redirect_peer(pod->ifindex, 0);
}

SEC("tc")
int sp_from_pod(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct bpf_tunnel_key key = {.tunnel_id = 1, .tunnel_ttl = 64};
	__u32 zero = 0, *tunnel;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	__be32 destination, *node;
	int verdict;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	destination = ip->daddr;
	verdict = to_local(eth, destination);
	if (verdict >= 0)
		return verdict;
	node = bpf_map_lookup_elem(&sp_remote, &destination);
	tunnel = bpf_map_lookup_elem(&sp_tunnel, &zero);
	if (!node || !tunnel)
		return TC_ACT_OK;
	key.remote_ipv4 = bpf_ntohl(*node);
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return TC_ACT_SHOT;
	return bpf_redirect(*tunnel, 0);
}

SEC("tc")
int sp_from_tunnel(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	int verdict;

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	verdict = to_local(eth, ip->daddr);
	return verdict >= 0 ? verdict : TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
