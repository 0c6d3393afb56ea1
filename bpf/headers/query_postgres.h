/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_postgres.h: the PostgreSQL frontend/backend protocol, version 3, as far
 * as the timer must know it (PostgreSQL manual, "Message Formats"). Of a login
 * no byte is read but the types of its messages.
 */

#ifndef MOORING_QUERY_POSTGRES_H
#define MOORING_QUERY_POSTGRES_H

#include "query_digest.h"

#define PG_CANCEL 80877102U
#define PG_SSL 80877103U
#define PG_GSS 80877104U

static __always_inline __u32 big_endian(const __u8 *b)
{
	return (__u32)b[0] << 24 | (__u32)b[1] << 16 | (__u32)b[2] << 8 | b[3];
}

/* tls_record tells whether three bytes begin a TLS record of the given type. */
static __always_inline int tls_record(const __u8 *b, __u8 type)
{
	return b[0] == type && b[1] == 3 && b[2] <= 4;
}

static __always_inline int tls_handshake(const __u8 *b)
{
	return tls_record(b, 0x14) || tls_record(b, 0x16);
}

/* begin_login opens a request that lasts until the server accepts or refuses. */
static __always_inline void begin_login(struct connection *c)
{
	c->operation = QUERY_AUTH;
	c->flags |= CONN_DIRECT | CONN_OPEN;
	c->phase = PHASE_REQUEST;
}

static __always_inline void begin_tls(struct connection *c)
{
	c->operation = QUERY_TLS;
	c->flags |= CONN_DIRECT | CONN_LOST;
	c->phase = PHASE_REQUEST;
}

/* pg_begin looks at what the first n bytes of a request are. */
static __always_inline void pg_begin(void *ctx, struct connection *c, __u64 key, __u64 at, __u64 n)
{
	__u8 head[8] = {};
	__u32 code;

	if (!query_read_most(head, 8, n, at)) {
		count_loss(LOSS_UNREADABLE);
		return;
	}
	switch (head[0]) {
	case 'Q':
	case 'P':
	case 'B':
	case 'E':
	case 'D':
	case 'C':
	case 'S':
	case 'F':
	case 'H':
	case 'U':
		if (head[1] < 0x40) /* no message has a gigabyte */
			c->phase = PHASE_REQUEST;
		return;
	case 'p':
		begin_login(c);
		return;
	case 0: /* messages before the login have no type */
		code = big_endian(head + 4);
		if (code == PG_SSL || code == PG_GSS || code >> 16 == 3)
			begin_login(c);
		/* Names and values of parameters; no password is among them. */
		if (code >> 16 == 3 && n > 8)
			greet(ctx, c, key, at + 8, n - 8);
		return;
	}
	if (tls_record(head, 0x17))
		begin_tls(c);
	else if (tls_handshake(head))
		begin_login(c);
}

/*
 * pg_name hashes the name at address at and sets *next behind it. PostgreSQL
 * cuts names to 63 bytes.
 */
static __always_inline __u64 pg_name(__u64 at, __u64 *next)
{
	__u64 name[8] = {}, hash = 0xcbf29ce484222325ULL;
	__s64 size = query_read_string(name, sizeof(name), at);

	*next = at + (size > 0 ? size : 0);
#pragma unroll
	for (int i = 0; i < 8; i++) {
		hash = (hash ^ name[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 29;
	}
	return hash;
}

/* pg_candidate notes the operation and the text of one statement of a batch. */
static __always_inline void pg_candidate(struct connection *c, __u8 operation, __u64 text)
{
	/* Drivers put BEGIN before the first statement of a transaction. */
	if (operation == QUERY_TXN && (c->flags & CONN_CANDIDATE))
		return;
	set_operation(c, operation);
	set_text(c, text);
	c->flags |= CONN_CANDIDATE;
}

/* pg_bind finds the operation of the statement that a Bind at address at names. */
static __always_inline void pg_bind(struct connection *c, __u64 key, __u64 at, const __u8 *head)
{
	struct prepared_key stmt = {.connection = key};
	__u64 name = at + 6;
	struct prepared_value *known;

	if (!head[5] && !head[6]) {
		pg_candidate(c, c->prepared, c->prepared_text);
		return;
	}
	if (head[5])
		pg_name(at + 5, &name); /* the portal's name comes first */
	stmt.statement = pg_name(name, &name);
	known = bpf_map_lookup_elem(&prepared, &stmt);
	if (!known) {
		count_loss(LOSS_UNRESOLVED);
		pg_candidate(c, QUERY_OTHER, 0);
		return;
	}
	pg_candidate(c, known->operation, known->text);
}

/*
 * pg_text notes the operation and the text of a Query or Parse, which ends at end
 * as far as it has been received and has size bytes in all.
 */
static __always_inline void pg_text(void *ctx, struct connection *c, __u64 key, __u64 at, __u64 end,
				    __u64 size, const __u8 *head)
{
	struct prepared_key stmt = {.connection = key};
	struct prepared_value value = {};
	__u64 text = at + 5;

	if (head[0] == 'P') {
		text = at + 6;
		if (head[5])
			stmt.statement = pg_name(at + 5, &text);
	}
	value.operation = sql_operation(text, end);
	/* The text ends in a zero byte; in a Parse, the types of parameters follow. */
	value.text = take_text(ctx, c, key, text, end, size, head[0] == 'P');
	if (head[0] == 'Q') {
		set_operation(c, value.operation);
		set_text(c, value.text);
		c->flags |= CONN_DIRECT;
		return;
	}
	if (head[5]) {
		bpf_map_update_elem(&prepared, &stmt, &value, BPF_ANY);
	} else {
		c->prepared = value.operation;
		c->prepared_text = value.text;
	}
	pg_candidate(c, value.operation, value.text);
}

/*
 * pg_batch takes a message U of openGauss: the number of sets of parameters, then
 * as in a Bind, and each set is executed.
 */
static __always_inline void pg_batch(struct connection *c, __u64 key, __u64 at)
{
	__u8 head[8] = {};

	if (!query_read(head, sizeof(head), at + 4))
		return;
	c->statements += big_endian(head + 1) & 0xffff;
	pg_bind(c, key, at + 4, head);
	c->flags |= CONN_EXECUTED;
}

/*
 * pg_message reads one message of a request at address at, of which left bytes
 * have been received. It returns how many of them it took, 0 if no more can be
 * read.
 */
static __always_inline __u64 pg_message(void *ctx, struct connection *c, __u64 key, __u64 at,
					__u64 left)
{
	__u8 head[8] = {};
	__u64 size;

	if (left < 5 || !query_read_most(head, 8, left, at) || head[1] >= 0x40) {
		c->flags |= CONN_LOST;
		return 0;
	}
	size = 1 + (__u64)big_endian(head + 1);
	/* The data of a COPY that the client did not wait with belongs to it. */
	if ((c->flags & CONN_SYNCED) && head[0] != 'd' && head[0] != 'c' && head[0] != 'f')
		c->flags |= CONN_SEVERAL;
	switch (head[0]) {
	case 'Q':
	case 'P':
		pg_text(ctx, c, key, at, at + (size < left ? size : left), size, head);
		break;
	case 'B':
		pg_bind(c, key, at, head);
		break;
	case 'E':
		c->flags |= CONN_EXECUTED;
		break;
	case 'U':
		pg_batch(c, key, at);
		break;
	case 'F':
		c->operation = QUERY_CALL;
		c->flags |= CONN_DIRECT;
		break;
	}
	if (head[0] == 'Q' || head[0] == 'E' || head[0] == 'F')
		c->statements++;
	if (head[0] == 'Q' || head[0] == 'S' || head[0] == 'F')
		c->flags |= CONN_SYNCED;
	if (size < 5) {
		c->flags |= CONN_LOST;
		return 0;
	}
	if (size > left) {
		c->skip = size - left;
		return left;
	}
	return size;
}

/*
 * pg_read prepares to read *left received bytes of a request by pg_message: it
 * steps over what is still to come of a message begun before. It returns
 * whether there is anything to read then.
 */
static __always_inline int pg_read(void *ctx, struct connection *c, __u64 key, __u64 *at,
				   __u64 *left)
{
	__u64 skip = c->skip < *left ? c->skip : *left;

	if (c->phase == PHASE_IDLE)
		pg_begin(ctx, c, key, *at, *left);
	if (c->phase == PHASE_IDLE || (c->flags & (CONN_LOST | CONN_OPEN)))
		return 0;
	c->skip -= skip;
	*at += skip;
	*left -= skip;
	return *left != 0;
}

/* pg_operation tells what a request was, once all of it has been seen. */
static __always_inline __u8 pg_operation(const struct connection *c)
{
	if (c->flags & CONN_DIRECT)
		return c->operation;
	if (!(c->flags & CONN_EXECUTED))
		return QUERY_PREPARE;
	if (!(c->flags & CONN_CANDIDATE))
		return QUERY_FETCH; /* more rows of a portal opened before */
	return c->operation;
}

/*
 * pg_code returns the SQLSTATE of an ErrorResponse whose fields begin at address
 * at: those are a letter, a text and a zero byte each, and C comes third.
 */
static __always_inline __u64 pg_code(__u64 at, __u64 end)
{
	__u64 words[9] = {}, code = 0, place = 0;
	__u64 size = end - at;

	if (at >= end)
		return 0;
	if (size > 64)
		size = 64;
	asm volatile("" : "+r"(size));
	if (size > 64 || !query_read(words, size, at))
		return 0;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		__u64 next = (words[i] >> 8) | (words[i + 1] << 56);
		__u64 marks = bytes_equal(words[i], 0) & bytes_equal(next, 'C');

		if (marks && !place)
			place = 8 * i + first_byte(marks) + 2;
	}
	if (place)
		query_read(&code, 5, at + place);
	return code;
}

/*
 * pg_reply_message looks at the message of a reply at address at. It returns
 * the address of the next one, or end if that cannot tell more. An error's address
 * goes to *refused.
 */
static __always_inline __u64 pg_reply_message(struct connection *c, __u64 at, __u64 end,
					      __u64 *refused)
{
	__u8 head[8];

	if (at + 5 > end || !query_read(head, 5, at))
		return end;
	switch (head[0]) {
	case 'E':
		c->error = 1;
		*refused = at;
		return end;
	case 'T':
	case 'D':
	case 'H':
		c->flags |= CONN_ROWS;
		return end;
	case 'G':
		c->flags |= CONN_OPEN;
		return end;
	case 'W': /* replication */
		c->flags |= CONN_IGNORED | CONN_STREAM;
		return end;
	case 'Z':
		return end;
	}
	return at + 1 + big_endian(head + 1);
}

/* pg_reply looks at how a reply begins: with an error, with rows, or with COPY. */
static __always_inline void pg_reply(struct connection *c, __u64 at, __u64 n)
{
	__u64 end = at + n, refused = 0;

	if (c->operation != QUERY_AUTH)
		c->flags &= ~CONN_OPEN;
	/* ParseComplete, BindComplete, one more and then the message that tells. */
	at = pg_reply_message(c, at, end, &refused);
	at = pg_reply_message(c, at, end, &refused);
	at = pg_reply_message(c, at, end, &refused);
	pg_reply_message(c, at, end, &refused);
	if (refused)
		c->code = pg_code(refused + 5, end);
}

/*
 * pg_late_error tells whether an error came behind rows. An ErrorResponse ends
 * in two zero bytes, a CommandComplete does not. Other messages may, so this is
 * asked behind rows only. The server sends an error at once and ReadyForQuery
 * by itself later; last holds the two bytes before the latter.
 */
static __always_inline int pg_late_error(const struct connection *c, const __u8 *last)
{
	return (c->flags & CONN_ROWS) && (c->flags & (CONN_DIRECT | CONN_EXECUTED)) && !last[0] &&
	       !last[1];
}

/*
 * pg_tag reads the tag of the CommandComplete that stands before a ReadyForQuery
 * at address at: "SELECT 50000", "INSERT 0 1", "COMMIT". It takes the bytes before
 * it as they are; what they are not, they do not look like.
 */
static __always_inline void pg_tag(struct connection *c, __u64 at)
{
	__u8 tag[24] = {};
	__u64 rows = 0, unit = 1, live = 1, before = 0, end;

	if (!query_read(tag, sizeof(tag), at - sizeof(tag)) || tag[23])
		return;
	end = *(__u64 *)(tag + 16);
	if (end == EIGHT('O', 'L', 'L', 'B', 'A', 'C', 'K', 0))
		c->flags |= CONN_ROLLBACK;
	if (end >> 8 == EIGHT('C', 'O', 'M', 'M', 'I', 'T', 0, 0))
		c->flags |= CONN_COMMIT;
	/* From the last digit to the first, without a branch for each. */
#pragma unroll
	for (int i = 22; i >= 8; i--) {
		__u64 digit = (__u64)tag[i] - '0';
		__u64 is_digit = above(10, digit) & above(1 + digit, 0);

		rows += (live & is_digit) * digit * unit;
		before += (live & (is_digit ^ 1)) * tag[i];
		live &= is_digit;
		unit *= 10;
	}
	/* SET is answered with a setting before the end, and that is anything. */
	if (before == ' ' && c->operation != QUERY_SET)
		c->rows = rows;
}

/*
 * pg_replied tells from the end of a send whether the reply is complete, which
 * is when it ends in ReadyForQuery. Not so if the client has pipelined several
 * requests: each has its own, and only the next receive tells the last one.
 */
static __always_inline int pg_replied(struct connection *c, __u64 at, __u64 n)
{
	__u8 tail[8] = {c->last[0], c->last[1]};

	if (c->operation == QUERY_AUTH && c->error)
		return 1; /* refused; the server closes */
	if (n < 6)
		return 0;
	if (!(n < 8 ? query_read(tail + 2, 6, at + n - 6) : query_read(tail, 8, at + n - 8)))
		return 0;
	if (tail[2] != 'Z' || big_endian(tail + 3) != 5) {
		c->last[0] = tail[6];
		c->last[1] = tail[7];
		return 0;
	}
	if (pg_late_error(c, tail))
		c->error = 1;
	c->status = tail[7] == 'I' ? STATUS_IDLE : tail[7] == 'T' ? STATUS_OPEN : STATUS_FAILED;
	c->flags &= ~(CONN_COMMIT | CONN_ROLLBACK);
	pg_tag(c, at + n - 6);
	if (c->operation == QUERY_AUTH)
		return 1;
	c->flags &= ~CONN_OPEN;
	return (c->flags & CONN_SYNCED) && !(c->flags & (CONN_SEVERAL | CONN_LOST)) && !c->skip;
}

#endif
