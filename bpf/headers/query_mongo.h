/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_mongo.h: the MongoDB wire protocol as far as the timer must know it. A
 * message is a header of four little-endian numbers (length, request, what it
 * answers, opcode) and a body; that of OP_MSG is flags and sections, the first of
 * which is a BSON document whose first name is the command. Servers read the
 * header by a call of its own, or ahead. Of a document only names, numbers and
 * the lengths of values are looked at, and of a login's nothing but the name.
 */

#ifndef MOORING_QUERY_MONGO_H
#define MOORING_QUERY_MONGO_H

#include "query_mysql.h"
#include "query_postgres.h"
#include "query_text.h"

enum mongo_opcode {
	MONGO_REPLY = 1,
	MONGO_UPDATE = 2001,
	MONGO_INSERT = 2002,
	MONGO_QUERY = 2004,
	MONGO_GET_MORE = 2005,
	MONGO_DELETE = 2006,
	MONGO_KILL_CURSORS = 2007,
	MONGO_COMPRESSED = 2012,
	MONGO_MSG = 2013,
};

#define MONGO_HEADER 16

/* Of OP_MSG: the sender goes on without waiting for an answer. */
#define MONGO_MORE_TO_COME 2
/* Of OP_REPLY: the query failed. */
#define MONGO_QUERY_FAILURE 2

/* Members of connection.flags that mean something else here; see query.h. */
#define CONN_LEGACY_BODY CONN_EXECUTED /* the body to come is of OP_QUERY */
#define CONN_REST CONN_SYNCED	       /* an unanswered message is still coming in */

/* How many elements of a document are looked at. */
#define MONGO_ASKED 4
#ifdef QUERY_LEGACY
#define MONGO_ANSWERED 3
#else
#define MONGO_ANSWERED 5
#endif

enum bson_type {
	BSON_DOUBLE = 0x01,
	BSON_STRING = 0x02,
	BSON_DOCUMENT = 0x03,
	BSON_ARRAY = 0x04,
	BSON_BINARY = 0x05,
	BSON_OBJECT_ID = 0x07,
	BSON_BOOL = 0x08,
	BSON_DATE = 0x09,
	BSON_NULL = 0x0a,
	BSON_INT32 = 0x10,
	BSON_TIMESTAMP = 0x11,
	BSON_INT64 = 0x12,
	BSON_DECIMAL = 0x13,
};

/* bson is an element of a document; at first, the place of the first one. */
struct bson {
	__u64 next; /* address of the next element */
	__u64 end;  /* of what can be read */
	__u64 name; /* up to eight bytes, zero behind its end */
	__u64 value; /* address of the value */
	__u64 number; /* the value, or its first eight bytes */
	__u8 type;
	__u8 _pad[7];
};

/* bson_size returns the size of a value, 0 if it cannot be known. */
static __always_inline __u64 bson_size(__u8 type, __u32 length)
{
	switch (type) {
	case BSON_DOUBLE:
	case BSON_DATE:
	case BSON_TIMESTAMP:
	case BSON_INT64:
		return 8;
	case BSON_STRING:
		return 4 + (__u64)length;
	case BSON_DOCUMENT:
	case BSON_ARRAY:
		return length;
	case BSON_BINARY:
		return 5 + (__u64)length;
	case BSON_OBJECT_ID:
		return 12;
	case BSON_BOOL:
		return 1;
	case BSON_INT32:
		return 4;
	case BSON_DECIMAL:
		return 16;
	}
	return 0;
}

/* bson_next goes to the next element. It returns 0 where there is none it knows. */
static __always_inline int bson_next(struct bson *b)
{
	__u64 word = text_word(b->next, b->end), more, marks, name;

	b->type = word;
	if (!b->type)
		return 0;
	name = b->next + 1;
	b->name = text_word(name, b->end);
	marks = bytes_equal(b->name, 0);
	if (marks) {
		b->name &= ((marks & -marks) >> 7) - 1;
		b->value = name + first_byte(marks) + 1;
	} else {
		more = text_word(name + 8, b->end);
		marks = bytes_equal(more, 0);
		if (!marks)
			return 0; /* no name of interest is that long */
		b->value = name + first_byte(marks) + 9;
	}
	b->number = text_word(b->value, b->end);
	word = bson_size(b->type, b->number);
	if (word < 8)
		b->number &= (1ULL << (8 * word)) - 1;
	b->next = b->value + word;
	return word && b->value + (word < 8 ? word : 8) <= b->end;
}

/* mongo_long knows the commands that their first four letters do not tell. */
static __always_inline __u8 mongo_long(__u64 word)
{
	__u32 next = word >> 32;

	switch ((__u32)word) {
	case W4('f', 'i', 'n', 'd'): /* find, findAndModify */
		return next == W4(' ', ' ', ' ', ' ') ? QUERY_READ : QUERY_UPDATE;
	case W4('u', 'p', 'd', 'a'): /* update, updateUser */
		return next == W4('t', 'e', ' ', ' ') ? QUERY_UPDATE : QUERY_DDL;
	case W4('c', 'o', 'l', 'l'): /* collMod, collStats */
		return next == W4('m', 'o', 'd', ' ') ? QUERY_DDL : QUERY_SHOW;
	case W4('k', 'i', 'l', 'l'): /* killCursors, killOp */
		return next == W4('c', 'u', 'r', 's') ? QUERY_FETCH : QUERY_ADMIN;
	case W4('c', 'o', 'm', 'm'):
		return next == W4('i', 't', 't', 'r') ? QUERY_TXN : QUERY_OTHER;
	case W4('a', 'b', 'o', 'r'):
		return next == W4('t', 't', 'r', 'a') ? QUERY_TXN : QUERY_OTHER;
	case W4('g', 'e', 't', 'm'): /* getMore, getParameter */
		return QUERY_FETCH;
	}
	return QUERY_OTHER;
}

/* mongo_operation tells what a command is by its name in lower case. */
static __always_inline __u8 mongo_operation(__u64 word)
{
	switch ((__u32)word) {
	case W4('a', 'g', 'g', 'r'): case W4('c', 'o', 'u', 'n'): case W4('d', 'i', 's', 't'):
	case W4('m', 'a', 'p', 'r'):
		return QUERY_READ;
	case W4('i', 'n', 's', 'e'):
		return QUERY_INSERT;
	case W4('d', 'e', 'l', 'e'):
		return QUERY_DELETE;
	case W4('b', 'u', 'l', 'k'):
		return QUERY_WRITE;
	case W4('c', 'r', 'e', 'a'): case W4('d', 'r', 'o', 'p'): case W4('r', 'e', 'n', 'a'):
	case W4('c', 'o', 'n', 'v'): case W4('s', 'h', 'a', 'r'): case W4('r', 'e', 'i', 'n'):
	case W4('g', 'r', 'a', 'n'): case W4('r', 'e', 'v', 'o'): case W4('c', 'l', 'o', 'n'):
		return QUERY_DDL;
	case W4('l', 'i', 's', 't'): case W4('d', 'b', 's', 't'): case W4('d', 'a', 't', 'a'):
	case W4('e', 'x', 'p', 'l'): case W4('d', 'b', 'h', 'a'):
		return QUERY_SHOW;
	case W4('h', 'e', 'l', 'l'): case W4('p', 'i', 'n', 'g'): case W4('i', 's', 'm', 'a'):
		return QUERY_PING;
	case W4('s', 'a', 's', 'l'): case W4('a', 'u', 't', 'h'):
		return QUERY_AUTH;
	case W4('s', 'e', 'r', 'v'): case W4('b', 'u', 'i', 'l'): case W4('w', 'h', 'a', 't'):
	case W4('c', 'o', 'n', 'n'): case W4('h', 'o', 's', 't'): case W4('c', 'u', 'r', 'r'):
	case W4('r', 'e', 'p', 'l'): case W4('s', 'e', 't', 'p'): case W4('s', 'e', 't', 'f'):
	case W4('g', 'e', 't', 'p'): case W4('g', 'e', 't', 'l'): case W4('g', 'e', 't', 'c'):
	case W4('g', 'e', 't', 'n'): case W4('c', 'o', 'm', 'p'): case W4('v', 'a', 'l', 'i'):
	case W4('f', 's', 'y', 'n'): case W4('s', 'h', 'u', 't'): case W4('s', 't', 'a', 'r'):
	case W4('e', 'n', 'd', 's'): case W4('r', 'e', 'f', 'r'): case W4('l', 'o', 'g', 'o'):
	case W4('t', 'o', 'p', ' '):
		return QUERY_ADMIN;
	}
	return mongo_long(word);
}

/*
 * mongo_awaited tells whether a command may be answered late on purpose: a hello
 * that waits for a change of the topology (it says which one it knows), or a
 * getMore that waits for new documents (nothing else allows it a time limit).
 */
static __always_inline int mongo_awaited(__u8 operation, __u64 name)
{
	if (operation == QUERY_PING)
		return name == EIGHT('t', 'o', 'p', 'o', 'l', 'o', 'g', 'y') ||
		       name == EIGHT('m', 'a', 'x', 'A', 'w', 'a', 'i', 't');
	return operation == QUERY_FETCH && name == EIGHT('m', 'a', 'x', 'T', 'i', 'm', 'e', 'M');
}

/*
 * mongo_command takes a document of a command, from at up to end. A command that
 * waits on purpose is not timed.
 */
static __always_inline void mongo_command(struct connection *c, __u64 at, __u64 end)
{
	struct bson b = {.next = at + 4, .end = end};
	int more = bson_next(&b);

	/* Of a name too long to get past it, as commitTransaction, this much is known. */
	c->operation = mongo_operation(b.name | EACH_BYTE(0x20));
	if (c->operation == QUERY_TXN) {
		c->flags |= (b.name & 0xff) == 'c' ? CONN_COMMIT : CONN_ROLLBACK;
		return;
	}
	if (!more || (c->operation != QUERY_PING && c->operation != QUERY_FETCH))
		return;
#pragma unroll
	for (int i = 1; i < MONGO_ASKED; i++) {
		if (!bson_next(&b))
			return;
		if (mongo_awaited(c->operation, b.name)) {
			c->phase = PHASE_IDLE;
			return;
		}
	}
}

/* mongo_unanswered leaves out a message without an answer, n bytes of which came. */
static __always_inline void mongo_unanswered(struct connection *c, __u64 n)
{
	if (n >= c->skip) {
		c->flags &= ~(CONN_HEADER | CONN_REST);
		c->phase = PHASE_IDLE;
		return;
	}
	c->skip -= n;
	c->flags |= CONN_HEADER | CONN_REST;
}

/* mongo_body takes a body whose first n bytes stand at address at. */
static __always_inline void mongo_body(void *ctx, struct connection *c, __u64 key, __u64 at,
				       __u64 n)
{
	__u64 head[2] = {}, document = at + 5;

	c->flags &= ~CONN_HEADER;
	if (n < 8)
		return;
	if (!query_read_most(head, 12, n, at)) {
		count_loss(LOSS_UNREADABLE);
		return;
	}
	if (c->flags & CONN_LEGACY_BODY) {
		/* Flags, then the collection: "admin.$cmd" for all a server takes today. */
		if (text_word(at + 4, at + n) == EIGHT('a', 'd', 'm', 'i', 'n', '.', '$', 'c'))
			c->operation = QUERY_PING;
		return;
	}
	/* A section of the command's documents may come before it: its size and they. */
	if ((__u8)(head[0] >> 32) == 1)
		document += 1 + ((head[0] >> 40) | (head[1] & 0xff) << 24);
	mongo_command(c, document, at + n);
	if (c->operation != QUERY_AUTH)
		set_text(c, take_text(ctx, c, key, document, at + n, c->skip, 0));
	if ((__u32)head[0] & MONGO_MORE_TO_COME)
		mongo_unanswered(c, n);
}

/*
 * mongo_begin looks at what the first *n bytes of a request are. It returns
 * whether a body is among them, and moves *at and *n on to it.
 */
static __always_inline int mongo_begin(struct connection *c, __u64 *at, __u64 *n)
{
	__u8 head[24] = {};
	__u32 size;

	if (!query_read_most(head, 20, *n, *at)) {
		count_loss(LOSS_UNREADABLE);
		return 0;
	}
	if (tls_record(head, 0x17)) {
		begin_tls(c);
		return 0;
	}
	if (tls_handshake(head)) {
		begin_login(c);
		return 0;
	}
	size = little_endian(head);
	/* A server that reads ahead may get an unanswered message before an answered one. */
	if (*n > size + 20ULL && little_endian(head + 12) == MONGO_MSG && size >= 20 &&
	    (head[16] & MONGO_MORE_TO_COME)) {
		*at += size;
		*n -= size;
		if (!query_read(head, 20, *at))
			return 0;
		size = little_endian(head);
	}
	if (*n < MONGO_HEADER || size < MONGO_HEADER)
		return 0;
	*at += MONGO_HEADER;
	*n -= MONGO_HEADER;
	c->skip = size - MONGO_HEADER;
	c->phase = PHASE_REQUEST;
	c->statements = 1;
	switch (little_endian(head + 12)) {
	case MONGO_QUERY:
		c->operation = QUERY_READ;
		c->flags |= CONN_LEGACY_BODY | CONN_HEADER;
		return 1;
	case MONGO_MSG:
		c->flags |= CONN_HEADER;
		return 1;
	case MONGO_GET_MORE:
		c->operation = QUERY_FETCH;
		return 0;
	case MONGO_COMPRESSED:
		/* Only the original opcode could be told. */
		return 0;
	case MONGO_INSERT:
	case MONGO_UPDATE:
	case MONGO_DELETE:
	case MONGO_KILL_CURSORS:
		mongo_unanswered(c, *n);
		return 0;
	}
	c->phase = PHASE_IDLE;
	return 0;
}

/* mongo_read reads n received bytes of a request. */
static __always_inline void mongo_read(void *ctx, struct connection *c, __u64 key, __u64 at, __u64 n)
{
	if (c->flags & CONN_REST)
		mongo_unanswered(c, n);
	else if ((c->flags & CONN_HEADER) || (mongo_begin(c, &at, &n) && n))
		mongo_body(ctx, c, key, at, n);
}

/* mongo_write_error takes the array writeErrors: {index, code, ...}, ... */
static __always_inline void mongo_write_error(struct connection *c, const struct bson *array)
{
	/* Behind the array's size, the type and name "0" of the first and its size. */
	struct bson b = {.next = array->value + 4 + 3 + 4, .end = array->end};

	c->error = 1;
	if (bson_next(&b) && bson_next(&b) && b.name == EIGHT('c', 'o', 'd', 'e', 0, 0, 0, 0))
		c->code = CODE_NUMBER | (__u32)b.number;
}

/* mongo_answer notes what an element of an answer says. */
static __always_inline void mongo_answer(struct connection *c, const struct bson *b)
{
	switch (b->name) {
	case EIGHT('o', 'k', 0, 0, 0, 0, 0, 0): /* a double, a number or a truth: 0 is 0 */
		if (!b->number)
			c->error = 1;
		break;
	case EIGHT('c', 'o', 'd', 'e', 0, 0, 0, 0):
		if (c->error)
			c->code = CODE_NUMBER | (__u32)b->number;
		break;
	case EIGHT('n', 0, 0, 0, 0, 0, 0, 0):
		if (c->operation != QUERY_READ)
			c->rows = (__u32)b->number;
		break;
	case EIGHT('d', 'o', 'n', 'e', 0, 0, 0, 0): /* of a login: whether it is over */
		if (c->operation == QUERY_AUTH && !b->number)
			c->flags |= CONN_OPEN;
		break;
	}
}

/*
 * mongo_reply looks at the first n bytes of what is sent. A server that says that
 * more is to come answers without being asked again, for ever perhaps: that is
 * not timed.
 */
static __always_inline void mongo_reply(struct connection *c, __u64 at, __u64 n, int first)
{
	struct bson b = {.end = at + n};
	__u8 head[24] = {};

	if (!first || c->operation == QUERY_TLS || n < 20 || !query_read(head, 20, at))
		return;
	switch (little_endian(head + 12)) {
	case MONGO_MSG:
		b.next = at + 25;
		if (head[16] & MONGO_MORE_TO_COME) {
			c->phase = PHASE_IDLE;
			return;
		}
		break;
	case MONGO_REPLY:
		b.next = at + 40;
		if (head[16] & MONGO_QUERY_FAILURE)
			c->error = 1;
		break;
	default: /* TLS, or compressed */
		return;
	}
	c->flags &= ~CONN_OPEN;
#pragma unroll
	for (int i = 0; i < MONGO_ANSWERED; i++) {
		if (!bson_next(&b))
			return;
		if (b.name == EIGHT('w', 'r', 'i', 't', 'e', 'E', 'r', 'r')) {
			mongo_write_error(c, &b);
			return;
		}
		mongo_answer(c, &b);
	}
}

#endif
