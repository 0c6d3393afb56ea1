/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_flow.h: the state machine of a connection, the same for all engines.
 *
 * A request begins when a receive returns its first byte, and has been answered
 * when the last send before the next receive returns. So a result of any size
 * is timed to its end without being parsed, and a connection that was open
 * before we came is in step again after one round trip.
 *
 * Functions that may tell the agent something take the program's context for it,
 * which only the legacy programs need; the others give NULL.
 */

#ifndef MOORING_QUERY_FLOW_H
#define MOORING_QUERY_FLOW_H

#include "query_mongo.h"
#include "query_mysql.h"
#include "query_postgres.h"
#include "query_redis.h"

/* follow_transaction notes what a finished request did to the transaction. */
static __always_inline void follow_transaction(struct connection *c)
{
	struct digest_key key = {.slot = c->slot};
	struct distribution *d;

	if (c->status == STATUS_UNKNOWN)
		return;
	if (c->status != STATUS_IDLE) {
		if (!c->transaction)
			c->transaction = c->started;
		return;
	}
	if (!c->transaction)
		return;
	if (c->flags & CONN_COMMIT)
		key.digest = OUTCOME_COMMIT;
	else if (c->flags & CONN_ROLLBACK)
		key.digest = OUTCOME_ROLLBACK;
	d = entry(&transactions, &key, LOSS_OPERATIONS_FULL);
	if (d)
		distribute(d, c->sent - c->transaction);
	c->transaction = 0;
}

static __always_inline void count_error(const struct connection *c)
{
	struct error_key key = {.code = c->code, .slot = c->slot};
	__u64 *n = entry(&errors, &key, LOSS_ERRORS_FULL);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* count_traffic hands what the connection has gathered to its server. */
static __always_inline void count_traffic(struct connection *c)
{
	struct server_traffic *t = traffic_of(c->slot);

	if (!t || (!c->seen && !c->carried))
		return;
	__sync_fetch_and_add(&t->seen, c->seen);
	__sync_fetch_and_add(&t->carried, c->carried);
	c->seen = 0;
	c->carried = 0;
}

/* tell_finished tells the agent of a finished request and returns whether it could. */
static __always_inline int tell_finished(void *ctx, const struct connection *c, __u64 key,
					 __u8 operation, __u32 digest, __u8 why)
{
	struct record_event e = {};

	fill_head(&e.head, c, key, EVENT_RECORD);
	e.head.at = c->sent;
	e.head.operation = operation;
	e.head.detail = why;
	e.hash = c->text;
	e.duration = c->sent - c->started;
	e.first = c->first - c->started;
	e.blocked = c->blocked;
	e.in = c->in;
	e.out = c->out;
	e.rows = c->rows;
	e.code = c->code;
	e.digest = digest;
	e.statements = c->statements;
	if (!event_output(ctx, &e, sizeof(e)))
		return 1;
	count_loss(LOSS_RECORDS);
	return 0;
}

/* tell_session tells the agent of a login's result or a logout. */
static __always_inline void tell_session(void *ctx, const struct connection *c, __u64 key,
					 __u8 kind, __u64 at)
{
	struct session_end e = {};

	fill_head(&e.head, c, key, EVENT_SESSION);
	e.head.at = at;
	e.head.detail = kind;
	e.code = c->code;
	if (event_output(ctx, &e, sizeof(e)))
		count_loss(LOSS_SESSIONS);
}

/* reasons tells why the agent wants to hear of a finished request. */
static __always_inline __u8 reasons(const struct connection *c, __u8 operation, __u64 ns)
{
	struct server_rules *r = rules_of(c->slot);
	__u8 why = 0;

	if (!r || r->slot != c->slot)
		return 0;
	if (r->slow && ns >= r->slow) {
		struct server_traffic *t = traffic_of(c->slot);

		why |= RECORD_SLOW;
		if (t)
			__sync_fetch_and_add(&t->slow, 1);
	}
	if (c->error && r->slow)
		why |= RECORD_FAILED;
	if ((r->audit >> (operation & 31)) & 1)
		why |= RECORD_AUDITED;
	return why;
}

/*
 * finish counts a request that has been answered, once under its operation and
 * once under a digest: that of its text if the kernel knows it, else the agent
 * is told and counts it, and where it cannot be told, "unsampled".
 */
static __always_inline void finish(void *ctx, struct connection *c, __u64 key)
{
	__u8 operation = c->operation, why;
	__u64 ns = c->sent - c->started;
	__u32 digest;

	if (c->protocol == QUERY_POSTGRES)
		operation = pg_operation(c);
	c->phase = PHASE_IDLE;
	count_operation(c, operation, ns);
	digest = digest_of(c, operation);
	why = reasons(c, operation, ns);
	if (!digest || !count_digest(c, digest, ns)) {
		digest = 0;
		if (!afford(c->slot, c->sent) ||
		    !tell_finished(ctx, c, key, operation, 0, why | RECORD_UNCOUNTED))
			count_digest(c, DIGEST_UNSAMPLED, ns);
	} else if (why) {
		tell_finished(ctx, c, key, operation, digest, why);
	}
	if (c->error)
		count_error(c);
	if (operation == QUERY_AUTH)
		tell_session(ctx, c, key, SESSION_LOGIN, c->sent);
	follow_transaction(c);
	count_traffic(c);
}

/*
 * finishing is called when the server asks for more bytes. It returns whether
 * that finishes the request.
 */
static __always_inline int finishing(struct connection *c)
{
	if (c->phase != PHASE_REPLY)
		return 0;
	if (!(c->flags & CONN_OPEN))
		return 1;
	c->phase = PHASE_REQUEST;
	return 0;
}

/*
 * login_encrypted tells whether a login has got as far as encrypted data. What
 * follows cannot be told from statements, so the login counts up to here.
 */
static __always_inline int login_encrypted(struct connection *c, __u64 at, __u64 n)
{
	__u8 head[4] = {};

	if (c->phase == PHASE_IDLE || c->operation != QUERY_AUTH || n < 3 ||
	    !query_read(head, 3, at))
		return 0;
	return tls_record(head, 0x17);
}

/*
 * ends_before tells whether the request before is finished by n received bytes at
 * address at; with n = 0, by the server's asking for some. Then finish has to be
 * called before received.
 */
static __always_inline int ends_before(struct connection *c, __u64 at, __u64 n)
{
	if (c->flags & CONN_IGNORED)
		return 0;
	if (n && login_encrypted(c, at, n)) {
		c->flags &= ~CONN_OPEN;
		c->phase = c->sent > c->started ? PHASE_REPLY : PHASE_IDLE;
	}
	return finishing(c);
}

static __always_inline void count_stream(const struct connection *c, __u64 in, __u64 out)
{
	struct server_traffic *t = c->flags & CONN_STREAM ? traffic_of(c->slot) : NULL;

	if (!t)
		return;
	if (in)
		__sync_fetch_and_add(&t->stream_in, in);
	if (out)
		__sync_fetch_and_add(&t->stream_out, out);
}

/*
 * received is called with n > 0 bytes that the server got at address at, once
 * what they end is finished. It returns whether the engine's reader is to look at
 * them.
 */
static __always_inline int received(struct connection *c, __u64 n)
{
	if (c->flags & CONN_IGNORED) {
		count_stream(c, n, 0);
		return 0;
	}
	if (c->phase != PHASE_IDLE) {
		c->in += n;
		if (c->protocol == QUERY_POSTGRES)
			return !(c->flags & (CONN_LOST | CONN_OPEN));
		return c->flags & CONN_HEADER;
	}
	c->started = bpf_ktime_get_ns();
	c->flags &= CONN_KEEP;
	c->skip = 0;
	c->operation = QUERY_OTHER;
	c->error = 0;
	c->first = 0;
	c->stalled = 0;
	c->blocked = 0;
	c->text = 0;
	c->digest = 0;
	c->in = n;
	c->out = 0;
	c->rows = 0;
	c->code = 0;
	c->statements = 0;
	c->status = STATUS_UNKNOWN;
	return 1;
}

/* not_sent is called when a send was refused because the client has not taken enough. */
static __always_inline void not_sent(struct connection *c)
{
	if (c->phase != PHASE_IDLE && !c->stalled)
		c->stalled = bpf_ktime_get_ns();
}

/*
 * sent is called when the server has sent n > 0 bytes, of which the first
 * extent stand at address at. It returns whether that finishes the request.
 */
static __always_inline int sent(struct connection *c, __u64 key, __u64 at, __u64 extent, __u64 n)
{
	int first = c->phase == PHASE_REQUEST;

	if (c->flags & CONN_IGNORED) {
		count_stream(c, 0, n);
		return 0;
	}
	if (c->phase == PHASE_IDLE)
		return 0;
	c->sent = bpf_ktime_get_ns();
	if (!c->first)
		c->first = c->sent;
	if (c->stalled) {
		c->blocked += c->sent - c->stalled;
		c->stalled = 0;
	}
	c->out += n;
	c->phase = PHASE_REPLY;
	if (extent > n)
		extent = n;
	if (c->operation == QUERY_TLS)
		return 0;
	switch (c->protocol) {
	case QUERY_POSTGRES:
		if (first)
			pg_reply(c, at, extent);
		if (c->flags & CONN_IGNORED) {
			c->phase = PHASE_IDLE;
			return 0;
		}
		return extent == n && pg_replied(c, at, n);
	case QUERY_MYSQL:
		mysql_reply(c, key, at, extent, first, extent == n);
		return 0;
	case QUERY_REDIS:
		/*
		 * An event loop does not come back to receive before the client
		 * has sent again, so the send ends the request.
		 */
		redis_reply(c, at, extent);
		return 1;
	case QUERY_MONGO:
		mongo_reply(c, at, extent, first);
		return 0;
	}
	return 0;
}

#endif
