/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_received.h: the readers of requests for programs that may loop, which
 * is from Linux 5.10 on. query_legacy.bpf.c has its own way.
 */

#ifndef MOORING_QUERY_RECEIVED_H
#define MOORING_QUERY_RECEIVED_H

#include <bpf/bpf_core_read.h>

#include "kernel_net.h"
#include "query_flow.h"

/* The most PostgreSQL messages of one receive that are looked at. */
#define PG_MESSAGES 32

/*
 * A global function is verified once and not for each turn of the loop that
 * calls it. Before 5.12 it may only be given numbers, hence the second lookup.
 */
__noinline __u64 read_message(__u64 key, __u64 at, __u64 left)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	return c ? pg_message(c, key, at, left) : 0;
}

static __always_inline void read_messages(struct connection *c, __u64 key, __u64 at, __u64 left)
{
	__u64 number;

	if (!pg_read(c, &at, &left))
		return;
	/* A copy is a number to the verifier, where key may still be a pointer. */
	bpf_probe_read_kernel(&number, sizeof(number), &key);
	for (int i = 0; i < PG_MESSAGES; i++) {
		__u64 took = read_message(number, at, left);

		if (!took || took >= left)
			return;
		at += took;
		left -= took;
	}
	c->flags |= CONN_LOST;
}

/* read_received is called with the n > 0 bytes that a server has received. */
static __always_inline void read_received(struct connection *c, __u64 key, __u64 at, __u64 n)
{
	if (!received(c, at, n))
		return;
	switch (c->protocol) {
	case QUERY_POSTGRES:
		read_messages(c, key, at, n);
		break;
	case QUERY_MYSQL:
		mysql_read(c, key, at, n);
		break;
	case QUERY_REDIS:
		redis_begin(c, at, n);
		break;
	}
}

/* server_side tells whether a socket was accepted from a watched listener. */
static __always_inline int server_side(struct sock *sk, __u32 slot)
{
	__u16 family = sk->__sk_common.skc_family;
	struct unix_sock *local = (void *)sk;

	if (family == AF_UNIX)
		return BPF_CORE_READ(local, addr) != NULL;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	return watched_port(slot, sk->__sk_common.skc_num);
}

#endif
