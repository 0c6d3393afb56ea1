/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_redis.h: the Redis protocol as far as the timer must know it: an array
 * "*2\r\n$3\r\nGET\r\n..." or an inline command "GET k\r\n". What one receive
 * brought is one request, a pipeline too.
 */

#ifndef MOORING_QUERY_REDIS_H
#define MOORING_QUERY_REDIS_H

#include "query_postgres.h"
#include "query_text.h"

static __always_inline int digit(__u8 b)
{
	return b >= '0' && b <= '9';
}

/* redis_special knows the commands that their first four letters do not tell. */
static __always_inline __u8 redis_special(__u64 word)
{
	__u32 next = word >> 32;

	switch ((__u32)word) {
	case W4('g', 'e', 't', 'd'): /* GETDEL */
	case W4('g', 'e', 't', 's'): /* GETSET */
	case W4('g', 'e', 't', 'e'): /* GETEX */
		return QUERY_WRITE;
	case W4('s', 'c', 'r', 'i'): /* SCRIPT */
		return QUERY_ADMIN;
	case W4('s', 'i', 'n', 't'): /* SINTER, SINTERSTORE */
	case W4('z', 'i', 'n', 't'):
		return next == W4('e', 'r', 's', 't') ? QUERY_WRITE : QUERY_READ;
	case W4('s', 'd', 'i', 'f'):
	case W4('z', 'd', 'i', 'f'):
		return next == W4('f', 's', 't', 'o') ? QUERY_WRITE : QUERY_READ;
	case W4('s', 'u', 'n', 'i'):
	case W4('z', 'u', 'n', 'i'):
		return next == W4('o', 'n', 's', 't') ? QUERY_WRITE : QUERY_READ;
	case W4('z', 'r', 'a', 'n'): /* ZRANGE, ZRANGEBYSCORE, ZRANGESTORE */
		return next == W4('g', 'e', 's', 't') ? QUERY_WRITE : QUERY_READ;
	case W4('b', 'i', 't', 'o'): /* BITOP */
	case W4('b', 'i', 't', 'f'): /* BITFIELD */
		return QUERY_WRITE;
	}
	return QUERY_OTHER;
}

/* redis_operation tells the family of a command by its name in lower case. */
static __always_inline __u8 redis_operation(__u64 word)
{
	switch ((__u32)word) {
	case W4('g', 'e', 't', ' '): case W4('g', 'e', 't', '-'): /* - is \r in lower case */
	case W4('m', 'g', 'e', 't'): case W4('g', 'e', 't', 'r'): case W4('g', 'e', 't', 'b'):
	case W4('s', 't', 'r', 'l'): case W4('e', 'x', 'i', 's'): case W4('t', 't', 'l', '-'):
	case W4('p', 't', 't', 'l'): case W4('t', 'y', 'p', 'e'): case W4('k', 'e', 'y', 's'):
	case W4('s', 'c', 'a', 'n'): case W4('h', 'g', 'e', 't'): case W4('h', 'm', 'g', 'e'):
	case W4('h', 'k', 'e', 'y'): case W4('h', 'v', 'a', 'l'): case W4('h', 'l', 'e', 'n'):
	case W4('h', 'e', 'x', 'i'): case W4('h', 's', 'c', 'a'): case W4('h', 's', 't', 'r'):
	case W4('l', 'r', 'a', 'n'): case W4('l', 'i', 'n', 'd'): case W4('l', 'l', 'e', 'n'):
	case W4('s', 'm', 'e', 'm'): case W4('s', 'i', 's', 'm'): case W4('s', 'm', 'i', 's'):
	case W4('s', 'c', 'a', 'r'): case W4('s', 'r', 'a', 'n'): case W4('s', 's', 'c', 'a'):
	case W4('z', 's', 'c', 'o'): case W4('z', 'm', 's', 'c'): case W4('z', 'c', 'a', 'r'):
	case W4('z', 'c', 'o', 'u'): case W4('z', 'r', 'e', 'v'): case W4('z', 's', 'c', 'a'):
	case W4('z', 'l', 'e', 'x'): case W4('x', 'r', 'a', 'n'): case W4('x', 'r', 'e', 'v'):
	case W4('x', 'l', 'e', 'n'): case W4('x', 'i', 'n', 'f'): case W4('x', 'p', 'e', 'n'):
	case W4('b', 'i', 't', 'c'): case W4('b', 'i', 't', 'p'): case W4('g', 'e', 'o', 'd'):
	case W4('g', 'e', 'o', 'h'): case W4('g', 'e', 'o', 'p'): case W4('g', 'e', 'o', 's'):
	case W4('p', 'f', 'c', 'o'): case W4('d', 'u', 'm', 'p'): case W4('d', 'b', 's', 'i'):
	case W4('r', 'a', 'n', 'd'):
		return QUERY_READ;
	case W4('s', 'e', 't', ' '): case W4('s', 'e', 't', '-'): case W4('m', 's', 'e', 't'):
	case W4('s', 'e', 't', 'e'): case W4('s', 'e', 't', 'n'): case W4('s', 'e', 't', 'r'):
	case W4('s', 'e', 't', 'b'): case W4('i', 'n', 'c', 'r'): case W4('d', 'e', 'c', 'r'):
	case W4('a', 'p', 'p', 'e'): case W4('d', 'e', 'l', ' '): case W4('d', 'e', 'l', '-'):
	case W4('u', 'n', 'l', 'i'): case W4('e', 'x', 'p', 'i'): case W4('p', 'e', 'x', 'p'):
	case W4('p', 'e', 'r', 's'): case W4('r', 'e', 'n', 'a'): case W4('c', 'o', 'p', 'y'):
	case W4('r', 'e', 's', 't'): case W4('h', 's', 'e', 't'): case W4('h', 'd', 'e', 'l'):
	case W4('h', 'i', 'n', 'c'): case W4('h', 'm', 's', 'e'): case W4('l', 'p', 'u', 's'):
	case W4('r', 'p', 'u', 's'): case W4('l', 'p', 'o', 'p'): case W4('r', 'p', 'o', 'p'):
	case W4('l', 's', 'e', 't'): case W4('l', 't', 'r', 'i'): case W4('l', 'i', 'n', 's'):
	case W4('l', 'r', 'e', 'm'): case W4('l', 'm', 'o', 'v'): case W4('s', 'a', 'd', 'd'):
	case W4('s', 'r', 'e', 'm'): case W4('s', 'p', 'o', 'p'): case W4('s', 'm', 'o', 'v'):
	case W4('z', 'a', 'd', 'd'): case W4('z', 'r', 'e', 'm'): case W4('z', 'i', 'n', 'c'):
	case W4('z', 'p', 'o', 'p'): case W4('x', 'a', 'd', 'd'): case W4('x', 'd', 'e', 'l'):
	case W4('x', 't', 'r', 'i'): case W4('x', 'a', 'c', 'k'): case W4('p', 'f', 'a', 'd'):
	case W4('p', 'f', 'm', 'e'): case W4('g', 'e', 'o', 'a'): case W4('s', 'o', 'r', 't'):
		return QUERY_WRITE;
	case W4('e', 'v', 'a', 'l'): case W4('f', 'c', 'a', 'l'):
		return QUERY_CALL;
	case W4('m', 'u', 'l', 't'): case W4('e', 'x', 'e', 'c'): case W4('d', 'i', 's', 'c'):
	case W4('w', 'a', 't', 'c'): case W4('u', 'n', 'w', 'a'):
		return QUERY_TXN;
	case W4('a', 'u', 't', 'h'): case W4('h', 'e', 'l', 'l'):
		return QUERY_AUTH;
	case W4('p', 'i', 'n', 'g'): case W4('e', 'c', 'h', 'o'):
		return QUERY_PING;
	case W4('s', 'e', 'l', 'e'): case W4('c', 'l', 'i', 'e'):
		return QUERY_SET;
	case W4('i', 'n', 'f', 'o'): case W4('c', 'o', 'n', 'f'): case W4('c', 'l', 'u', 's'):
	case W4('c', 'o', 'm', 'm'): case W4('s', 'l', 'o', 'w'): case W4('d', 'e', 'b', 'u'):
	case W4('s', 'a', 'v', 'e'): case W4('b', 'g', 's', 'a'): case W4('b', 'g', 'r', 'e'):
	case W4('m', 'e', 'm', 'o'): case W4('l', 'a', 't', 'e'): case W4('a', 'c', 'l', ' '):
	case W4('a', 'c', 'l', '-'): case W4('r', 'o', 'l', 'e'): case W4('f', 'l', 'u', 's'):
	case W4('r', 'e', 'p', 'l'): case W4('s', 'h', 'u', 't'):
		return QUERY_ADMIN;
	}
	return redis_special(word);
}

/* redis_stream tells the commands after which the server sends unasked. */
static __always_inline int redis_stream(__u64 word)
{
	__u32 head = word;

	return head == W4('p', 's', 'u', 'b') || head == W4('s', 'u', 'b', 's') ||
	       head == W4('s', 's', 'u', 'b') || head == W4('m', 'o', 'n', 'i') ||
	       head == W4('p', 's', 'y', 'n') || head == W4('s', 'y', 'n', 'c');
}

/* redis_waits tells the commands that are answered late on purpose: BLPOP and its like. */
static __always_inline int redis_waits(__u64 word)
{
	__u32 head = word;

	return head == W4('b', 'l', 'p', 'o') || head == W4('b', 'r', 'p', 'o') ||
	       head == W4('b', 'l', 'm', 'o') || head == W4('b', 'l', 'm', 'p') ||
	       head == W4('b', 'z', 'p', 'o') || head == W4('b', 'z', 'm', 'p');
}

/* redis_begin looks at what the first n bytes of a request are. */
static __always_inline void redis_begin(void *ctx, struct connection *c, __u64 key, __u64 at,
					__u64 n)
{
	__u8 head[16] = {};
	__u64 name = at, word;

	if (!query_read_most(head, 16, n, at)) {
		count_loss(LOSS_UNREADABLE);
		return;
	}
	if (tls_record(head, 0x17)) {
		begin_tls(c);
		return;
	}
	if (head[0] == '*') {
		/* *N\r\n$L\r\nNAME, N with up to three digits, L with up to two. */
		name += 8;
		if (digit(head[3]))
			name += 2 + digit(head[8]);
		else if (digit(head[2]))
			name += 1 + digit(head[7]);
		else
			name += digit(head[6]);
	} else if ((head[0] | 0x20) < 'a' || (head[0] | 0x20) > 'z') {
		return;
	}
	word = text_word(name, at + n);
	/* The cluster bus: nodes talk to each other, no statement. */
	if ((__u32)word == W4('R', 'C', 'm', 'b')) {
		c->flags |= CONN_IGNORED;
		return;
	}
	word |= EACH_BYTE(0x20);
	if (redis_stream(word)) {
		c->flags |= CONN_IGNORED | CONN_STREAM;
		return;
	}
	if (redis_waits(word))
		return; /* not timed */
	c->operation = redis_operation(word);
	c->phase = PHASE_REQUEST;
	c->statements = 1;
	/* What a login says is not read. */
	if (c->operation != QUERY_AUTH)
		set_text(c, take_text(ctx, c, key, at, at + n, n, 0));
}

/*
 * redis_reply looks at how a reply begins. An error is "-" and a word of capitals,
 * in RESP3 also "!21\r\n" and that word.
 */
static __always_inline void redis_reply(struct connection *c, __u64 at, __u64 n)
{
	__u8 head[16] = {};
	__u64 word, marks;

	if (n < 2 || !query_read_most(head, 16, n, at) || (head[0] != '-' && head[0] != '!'))
		return;
	c->error = 1;
	word = *(__u64 *)(head + 8) << 56 | *(__u64 *)head >> 8;
	if (head[0] == '!') {
		marks = bytes_equal(word, '\n');
		if (!marks)
			return;
		word = text_word(at + 1 + first_byte(marks) + 1, at + n);
	}
	/* All from the first byte on that is not a letter goes. */
	marks = bytes_above(word, 'Z') | (~bytes_above(word, '@') & HIGH_BITS);
	if (marks)
		word &= ((marks & -marks) >> 7) - 1;
	c->code = word;
}

#endif
