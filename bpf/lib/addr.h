/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses of both families in one form, which is also the key of the maps: 16 bytes, IPv4 as
 * ::ffff:a.b.c.d. */
#ifndef FAST_ADDR_H
#define FAST_ADDR_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct fast_addr {
	__be32 words[4];
} __attribute__((aligned(8)));

typedef __u64 __attribute__((may_alias)) fast_half;
typedef __u32 __attribute__((may_alias)) fast_u32;
typedef __u16 __attribute__((may_alias)) fast_u16;

/* The address as two machine words: for comparing, equal or in any order that is always the same.
 */
static __always_inline __u64 addr_half(const volatile struct fast_addr *addr, int index)
{
	return ((const volatile fast_half *)addr->words)[index];
}

static __always_inline bool addr_equal(const struct fast_addr *a,
				       const volatile struct fast_addr *b)
{
	return addr_half(a, 1) == addr_half(b, 1) && addr_half(a, 0) == addr_half(b, 0);
}

static __always_inline void addr_from_ipv4(struct fast_addr *addr, __be32 ipv4)
{
	addr->words[0] = 0;
	addr->words[1] = 0;
	addr->words[2] = bpf_htonl(0xffff);
	addr->words[3] = ipv4;
}

static __always_inline bool addr_is_ipv4(const struct fast_addr *addr)
{
	return addr_half(addr, 0) == 0 && addr->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool addr_is_unspecified(const struct fast_addr *addr)
{
	if (addr_is_ipv4(addr))
		return addr->words[3] == 0;
	return addr_half(addr, 0) == 0 && addr_half(addr, 1) == 0;
}

/* 169.254.0.0/16 (RFC 3927), fe80::/10. */
static __always_inline bool addr_is_link_local(const struct fast_addr *addr)
{
	if (addr_is_ipv4(addr))
		return (addr->words[3] & bpf_htonl(0xffff0000)) == bpf_htonl(0xa9fe0000);
	return (addr->words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* 127.0.0.0/8, ::1. */
static __always_inline bool addr_is_loopback(const struct fast_addr *addr)
{
	if (addr_is_ipv4(addr))
		return (addr->words[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return addr_half(addr, 0) == 0 && addr->words[2] == 0 && addr->words[3] == bpf_htonl(1);
}

/* The clouds' metadata services: 169.254.169.254, fd00:ec2::254. */
static __always_inline bool addr_is_metadata(const struct fast_addr *addr)
{
	if (addr_is_ipv4(addr))
		return addr->words[3] == bpf_htonl(0xa9fea9fe);
	return addr->words[0] == bpf_htonl(0xfd000ec2) && addr->words[1] == 0 &&
	       addr->words[2] == 0 && addr->words[3] == bpf_htonl(0x254);
}

/* 224.0.0.0/4, 255.255.255.255, ff00::/8. */
static __always_inline bool addr_is_multicast(const struct fast_addr *addr)
{
	if (addr_is_ipv4(addr))
		return (addr->words[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) ||
		       addr->words[3] == bpf_htonl(0xffffffff);
	return (addr->words[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

#endif
