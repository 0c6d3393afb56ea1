/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_flow.h: the state machine of a connection, the same for all engines.
 *
 * A request begins when a receive returns its first byte, and has been answered
 * when the last send before the next receive returns. So a result of any size
 * is timed to its end without being parsed, and a connection that was open
 * before we came is in step again after one round trip.
 */

#ifndef MOORING_QUERY_FLOW_H
#define MOORING_QUERY_FLOW_H

#include "query_histogram.h"
#include "query_mysql.h"
#include "query_postgres.h"
#include "query_redis.h"

static __always_inline void finish(struct connection *c)
{
	__u8 operation = c->operation;

	if (c->protocol == QUERY_POSTGRES)
		operation = pg_operation(c);
	c->phase = PHASE_IDLE;
	record(c->slot, operation, c->error, c->sent - c->started);
}

/* receiving is called when the server asks for more bytes. */
static __always_inline void receiving(struct connection *c)
{
	if (c->phase != PHASE_REPLY)
		return;
	if (c->flags & CONN_OPEN)
		c->phase = PHASE_REQUEST;
	else
		finish(c);
}

/*
 * login_encrypted tells whether a login has got as far as encrypted data. What
 * follows cannot be told from statements, so the login counts up to here.
 */
static __always_inline int login_encrypted(struct connection *c, __u64 at, __u64 n)
{
	__u8 head[4] = {};

	if (c->operation != QUERY_AUTH || n < 3 || !query_read(head, 3, at))
		return 0;
	return tls_record(head, 0x17);
}

/*
 * received is called with n > 0 bytes that the server got at address at. It
 * returns whether the engine's reader is to look at them.
 */
static __always_inline int received(struct connection *c, __u64 at, __u64 n)
{
	if (c->flags & CONN_IGNORED)
		return 0;
	if (c->phase != PHASE_IDLE && login_encrypted(c, at, n)) {
		c->flags &= ~CONN_OPEN;
		c->phase = c->sent > c->started ? PHASE_REPLY : PHASE_IDLE;
	}
	receiving(c);
	if (c->phase != PHASE_IDLE) {
		if (c->protocol == QUERY_POSTGRES)
			return !(c->flags & (CONN_LOST | CONN_OPEN));
		return c->flags & CONN_HEADER;
	}
	c->started = bpf_ktime_get_ns();
	c->flags &= CONN_KEEP;
	c->skip = 0;
	c->operation = QUERY_OTHER;
	c->error = 0;
	return 1;
}

/*
 * sent is called when the server has sent n > 0 bytes, of which the first
 * extent stand at address at.
 */
static __always_inline void sent(struct connection *c, __u64 key, __u64 at, __u64 extent, __u64 n)
{
	int first = c->phase == PHASE_REQUEST;

	if (c->phase == PHASE_IDLE || (c->flags & CONN_IGNORED))
		return;
	c->sent = bpf_ktime_get_ns();
	c->phase = PHASE_REPLY;
	if (extent > n)
		extent = n;
	switch (c->protocol) {
	case QUERY_POSTGRES:
		if (c->operation == QUERY_TLS)
			return;
		if (first)
			pg_reply(c, at, extent);
		if (c->flags & CONN_IGNORED)
			c->phase = PHASE_IDLE;
		else if (extent == n && pg_replied(c, at, n))
			finish(c);
		return;
	case QUERY_MYSQL:
		mysql_reply(c, key, at, extent, first);
		return;
	case QUERY_REDIS:
		/*
		 * An event loop does not come back to receive before the client
		 * has sent again, so the send ends the request.
		 */
		redis_reply(c, at, extent);
		finish(c);
		return;
	}
}

#endif
