/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_received.h: the readers of requests for programs that may loop, which
 * is from Linux 5.10 on. query_legacy.bpf.c has its own way.
 */

#ifndef MOORING_QUERY_RECEIVED_H
#define MOORING_QUERY_RECEIVED_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "kernel_net.h"
#include "query_flow.h"

/* The most PostgreSQL messages of one receive that are looked at. */
#define PG_MESSAGES 32

/*
 * Global functions are verified once each and not with every turn and branch that
 * calls them, and the stack of one is free again when the next is called. Before
 * 5.12 they may only be given numbers, hence the second lookup.
 */
__noinline __u64 read_message(__u64 key, __u64 at, __u64 left)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	return c ? pg_message(NULL, c, key, at, left) : 0;
}

__noinline int read_mysql(__u64 key, __u64 at, __u64 n)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		mysql_read(NULL, c, key, at, n);
	return 0;
}

__noinline int read_redis(__u64 key, __u64 at, __u64 n)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		redis_begin(NULL, c, key, at, n);
	return 0;
}

__noinline int read_mongo(__u64 key, __u64 at, __u64 n)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		mongo_read(NULL, c, key, at, n);
	return 0;
}

__noinline int read_reply(__u64 key, __u64 at, __u64 extent, __u64 n)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	return c ? sent(c, key, at, extent, n) : 0;
}

__noinline int finish_now(__u64 key)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		finish(NULL, c, key);
	return 0;
}

/* as_number makes a copy that is a number to the verifier, where key may be a pointer. */
static __always_inline __u64 as_number(__u64 key)
{
	__u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &key);
	return number;
}

static __always_inline void read_messages(struct connection *c, __u64 key, __u64 at, __u64 left)
{
	if (!pg_read(NULL, c, key, &at, &left))
		return;
	for (int i = 0; i < PG_MESSAGES; i++) {
		__u64 took = read_message(key, at, left);

		if (!took || took >= left)
			return;
		at += took;
		left -= took;
	}
	c->flags |= CONN_LOST;
}

/* asks is called when the server asks for bytes and has got none. */
static __always_inline void asks(struct connection *c, __u64 key)
{
	if (ends_before(c, 0, 0))
		finish_now(as_number(key));
}

/*
 * read_received is called with all > 0 bytes that a server has received, of which
 * the first n stand at address at.
 */
static __always_inline void read_received(struct connection *c, __u64 key, __u64 at, __u64 n,
					  __u64 all)
{
	__u64 number = as_number(key);

	if (ends_before(c, at, n))
		finish_now(number);
	if (!received(c, all))
		return;
	switch (c->protocol) {
	case QUERY_POSTGRES:
		read_messages(c, number, at, n);
		break;
	case QUERY_MYSQL:
		read_mysql(number, at, n);
		break;
	case QUERY_REDIS:
		read_redis(number, at, n);
		break;
	case QUERY_MONGO:
		read_mongo(number, at, n);
		break;
	}
}

/* take_sent is called when the server has sent n > 0 bytes: see sent. */
static __always_inline void take_sent(struct connection *c, __u64 key, __u64 at, __u64 extent,
				      __u64 n)
{
	__u64 number;

	/* The greater part of all sends on a node is not a reply. */
	if (c->phase == PHASE_IDLE && !(c->flags & CONN_STREAM))
		return;
	number = as_number(key);
	if (read_reply(number, at, extent, n))
		finish_now(number);
}

/* note_client notes who is on the other side. */
static __always_inline void note_client(struct connection *c, struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	if (family == AF_INET)
		bpf_probe_read_kernel(c->address, 4, &sk->__sk_common.skc_daddr);
	else if (family == AF_INET6)
		bpf_probe_read_kernel(c->address, 16, &sk->__sk_common.skc_v6_daddr);
	else
		return;
	c->family = family;
	c->port = bpf_ntohs(sk->__sk_common.skc_dport);
}

/* new_connection makes the connection of a server's socket; NULL where there is no room. */
static __always_inline struct connection *new_connection(__u64 key, struct sock *sk,
							 const struct server *server)
{
	struct connection *c;
	__u32 zero = 0;
	void *none = bpf_map_lookup_elem(&blank, &zero);

	if (!none || bpf_map_update_elem(&connections, &key, none, BPF_ANY)) {
		count_loss(LOSS_CONNECTIONS_FULL);
		return NULL;
	}
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c)
		return NULL;
	c->slot = server->slot;
	c->protocol = server->protocol;
	note_client(c, sk);
	return c;
}

/*
 * closed is called before a connection is forgotten. A reply that was complete
 * counts; one that was not is lost.
 */
static __always_inline void closed(struct connection *c, __u64 key)
{
	if ((c->flags & (CONN_IGNORED | CONN_STREAM)) == CONN_IGNORED)
		return;
	/* Over TLS the last that is sent is a farewell, which answers nothing. */
	if (c->operation == QUERY_TLS)
		c->phase = PHASE_IDLE;
	if (ends_before(c, 0, 0))
		finish_now(as_number(key));
	else if (c->phase != PHASE_IDLE)
		count_loss(LOSS_ABORTED);
	tell_session(NULL, c, key, SESSION_LOGOUT, bpf_ktime_get_ns());
}

/*
 * carried returns how far a sequence number of TCP has moved since it was last
 * looked at, and n for a socket that has none.
 */
static __always_inline __u64 carried(__u32 *last, __u32 now, __u64 n)
{
	__u64 moved = *last && now ? now - *last : n;

	*last = now;
	return moved;
}

static __always_inline int is_tcp(struct sock *sk)
{
	return sk->__sk_common.skc_family != AF_UNIX;
}

/* count_received compares what was seen with what the socket has handed out. */
static __always_inline void count_received(struct connection *c, struct sock *sk, __u64 n)
{
	struct tcp_sock *tcp = (void *)sk;

	c->seen += n;
	c->carried += carried(&c->received_at, is_tcp(sk) ? BPF_CORE_READ(tcp, copied_seq) : 0, n);
}

/* count_sent does so with what the socket was given. */
static __always_inline void count_sent(struct connection *c, struct sock *sk, __u64 n)
{
	struct tcp_sock *tcp = (void *)sk;

	c->seen += n;
	c->carried += carried(&c->sent_at, is_tcp(sk) ? BPF_CORE_READ(tcp, write_seq) : 0, n);
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
