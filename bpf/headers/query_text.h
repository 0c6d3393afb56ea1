/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_text.h: what kind of statement a SQL text is, by its first word.
 *
 * All work is done on eight bytes at a time in a register, without a branch per
 * byte: the verifier follows each branch, and old ones give up early.
 */

#ifndef MOORING_QUERY_TEXT_H
#define MOORING_QUERY_TEXT_H

#include "query.h"

#define EACH_BYTE(b) (0x0101010101010101ULL * (b))
#define HIGH_BITS EACH_BYTE(0x80)
#define LOW_BITS EACH_BYTE(0x7f)

/* A statement's text that lies further from its start than this is not found. */
#define TEXT_BLANKS 8   /* times eight bytes of blanks */
#define TEXT_COMMENT 16 /* times eight bytes of comment */

/* bytes_equal sets the high bit of each byte of x that is b. */
static __always_inline __u64 bytes_equal(__u64 x, __u8 b)
{
	x ^= EACH_BYTE(b);
	return ~(((x & LOW_BITS) + LOW_BITS) | x | LOW_BITS);
}

/* bytes_above sets the high bit of each byte of x greater than b, b < 0x80. */
static __always_inline __u64 bytes_above(__u64 x, __u8 b)
{
	return (((x & LOW_BITS) + EACH_BYTE(0x7f - b)) | x) & HIGH_BITS;
}

/* first_byte returns the place (0 to 7) of the lowest high bit; marks is not 0. */
static __always_inline __u64 first_byte(__u64 marks)
{
	__u64 below = ((marks & -marks) >> 7) - 1;

	return ((below & EACH_BYTE(1)) * EACH_BYTE(1)) >> 56;
}

/* text_word returns up to eight bytes at text, zero beyond end. */
static __always_inline __u64 text_word(__u64 text, __u64 end)
{
	__u64 word = 0, left = end - text;

	if (text >= end || !query_read(&word, sizeof(word), text))
		return 0;
	if (left < 8)
		word &= (1ULL << (8 * left)) - 1;
	return word;
}

/* skip_blanks returns the first place that is neither blank nor ( nor ;. */
static __always_inline __u64 skip_blanks(__u64 text, __u64 end)
{
#pragma unroll
	for (int i = 0; i < TEXT_BLANKS; i++) {
		__u64 word = text_word(text, end), marks;

		marks = bytes_above(word, ' ') & ~bytes_equal(word, '(') & ~bytes_equal(word, ';');
		if (marks)
			return text + first_byte(marks);
		text += 8;
	}
	return text;
}

/*
 * skip_comment returns the place behind the comment that begins at text, or end
 * if it is longer than we look. It ends in last, which stands behind before; if
 * before is 0, behind any byte.
 */
static __always_inline __u64 skip_comment(__u64 text, __u64 end, __u8 before, __u8 last)
{
	__u64 words[TEXT_COMMENT + 1] = {};
	__u64 size = end - text, any = before ? 0 : HIGH_BITS;

	if (text >= end)
		return end;
	if (size > 8 * TEXT_COMMENT)
		size = 8 * TEXT_COMMENT;
	if (!query_read(words, size, text))
		return end;
#pragma unroll
	for (int i = 0; i < TEXT_COMMENT; i++) {
		/* The byte behind the last one of this word stands in the next word. */
		__u64 next = (words[i] >> 8) | (words[i + 1] << 56);
		__u64 marks = (bytes_equal(words[i], before) | any) & bytes_equal(next, last);

		if (marks)
			return text + 8 * i + first_byte(marks) + 2;
	}
	return end;
}

#define W4(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)
#define W3(a, b, c) W4(a, b, c, 0)
#define EIGHT(a, b, c, d, e, f, g, h) ((__u64)W4(e, f, g, h) << 32 | W4(a, b, c, d))

/* short_word_operation knows the words of up to three letters. */
static __always_inline __u8 short_word_operation(__u32 word)
{
	__u8 fourth = word >> 24;

	if ((word & 0xffff) == W3('d', 'o', 0) && ((word >> 16) & 0xff) < 'a')
		return QUERY_CALL;
	if ((word & 0xffffff) == W3('x', 'a', ' '))
		return QUERY_TXN;
	if (fourth >= 'a' && fourth <= 'z')
		return QUERY_OTHER;
	switch (word & 0xffffff) {
	case W3('s', 'e', 't'):
	case W3('u', 's', 'e'):
		return QUERY_SET;
	case W3('e', 'n', 'd'):
		return QUERY_TXN;
	}
	return QUERY_OTHER;
}

/* word_operation tells the operation by the first word, in lower case. */
static __always_inline __u8 word_operation(__u64 word)
{
	__u32 next = word >> 32;

	switch ((__u32)word) {
	case W4('s', 'e', 'l', 'e'):
	case W4('w', 'i', 't', 'h'):
	case W4('v', 'a', 'l', 'u'):
	case W4('t', 'a', 'b', 'l'):
		return QUERY_SELECT;
	case W4('i', 'n', 's', 'e'):
		return QUERY_INSERT;
	case W4('u', 'p', 'd', 'a'):
		return QUERY_UPDATE;
	case W4('d', 'e', 'l', 'e'):
		return QUERY_DELETE;
	case W4('r', 'e', 'p', 'l'):
	case W4('m', 'e', 'r', 'g'):
		return QUERY_REPLACE;
	case W4('c', 'a', 'l', 'l'):
	case W4('e', 'x', 'e', 'c'):
		return QUERY_CALL;
	case W4('c', 'o', 'm', 'm'): /* COMMIT or COMMENT */
		return (next & 0xff) == 'i' ? QUERY_COMMIT : QUERY_DDL;
	case W4('s', 't', 'a', 'r'): /* START TRANSACTION or START REPLICA */
		return next == W4('t', ' ', 't', 'r') ? QUERY_TXN : QUERY_ADMIN;
	case W4('r', 'o', 'l', 'l'):
		return QUERY_ROLLBACK;
	case W4('b', 'e', 'g', 'i'):
	case W4('s', 'a', 'v', 'e'):
	case W4('r', 'e', 'l', 'e'):
	case W4('a', 'b', 'o', 'r'):
		return QUERY_TXN;
	case W4('c', 'r', 'e', 'a'):
	case W4('a', 'l', 't', 'e'):
	case W4('d', 'r', 'o', 'p'):
	case W4('t', 'r', 'u', 'n'):
	case W4('r', 'e', 'n', 'a'):
	case W4('g', 'r', 'a', 'n'):
	case W4('r', 'e', 'v', 'o'):
	case W4('i', 'm', 'p', 'o'):
		return QUERY_DDL;
	case W4('r', 'e', 's', 'e'):
	case W4('d', 'i', 's', 'c'):
		return QUERY_SET;
	case W4('s', 'h', 'o', 'w'):
	case W4('e', 'x', 'p', 'l'):
	case W4('d', 'e', 's', 'c'):
	case W4('h', 'e', 'l', 'p'):
		return QUERY_SHOW;
	case W4('c', 'o', 'p', 'y'):
	case W4('l', 'o', 'a', 'd'):
		return QUERY_COPY;
	case W4('p', 'r', 'e', 'p'):
	case W4('d', 'e', 'a', 'l'):
		return QUERY_PREPARE;
	case W4('f', 'e', 't', 'c'):
	case W4('m', 'o', 'v', 'e'):
	case W4('c', 'l', 'o', 's'):
	case W4('h', 'a', 'n', 'd'):
		return QUERY_FETCH;
	case W4('d', 'e', 'c', 'l'): /* DECLARE CURSOR runs the query up to its first row */
		return QUERY_SELECT;
	case W4('v', 'a', 'c', 'u'):
	case W4('a', 'n', 'a', 'l'):
	case W4('r', 'e', 'i', 'n'):
	case W4('r', 'e', 'f', 'r'):
	case W4('c', 'l', 'u', 's'):
	case W4('c', 'h', 'e', 'c'):
	case W4('o', 'p', 't', 'i'):
	case W4('r', 'e', 'p', 'a'):
	case W4('f', 'l', 'u', 's'):
	case W4('k', 'i', 'l', 'l'):
	case W4('l', 'o', 'c', 'k'):
	case W4('u', 'n', 'l', 'o'):
	case W4('p', 'u', 'r', 'g'):
	case W4('c', 'h', 'a', 'n'):
	case W4('s', 't', 'o', 'p'):
		return QUERY_ADMIN;
	}
	return short_word_operation((__u32)word);
}

/* set_operation makes what a text was found to be the request's operation. */
static __always_inline void set_operation(struct connection *c, __u8 found)
{
	c->flags &= ~(CONN_COMMIT | CONN_ROLLBACK);
	if (found == QUERY_COMMIT)
		c->flags |= CONN_COMMIT;
	if (found == QUERY_ROLLBACK)
		c->flags |= CONN_ROLLBACK;
	c->operation = found >= QUERY_COMMIT ? QUERY_TXN : found;
}

/*
 * sets_privilege tells whether the text, whose first eight bytes in lower case are
 * word, is SET PASSWORD or SET DEFAULT ROLE: who may do what is no setting.
 */
static __always_inline int sets_privilege(__u64 word, __u64 text, __u64 end)
{
	__u8 fourth = word >> 24;
	__u64 rest;

	if (fourth >= '0') /* no blank of any kind, with that bit */
		return 0;
	word &= ~0xff000000ULL;
	if (word != EIGHT('s', 'e', 't', 0, 'p', 'a', 's', 's') &&
	    word != EIGHT('s', 'e', 't', 0, 'd', 'e', 'f', 'a'))
		return 0;
	rest = text_word(text + 8, end) | EACH_BYTE(0x20);
	if ((word >> 32) == W4('p', 'a', 's', 's'))
		return (__u32)rest == W4('w', 'o', 'r', 'd');
	return rest == EIGHT('u', 'l', 't', ' ', 'r', 'o', 'l', 'e');
}

/* sql_operation tells what the statement from text up to end is. */
static __always_inline __u8 sql_operation(__u64 text, __u64 end)
{
	__u64 word = text_word(text, end);
	__u8 first = word;

	if ((first | 0x20) < 'a') { /* not a letter: blanks, a comment or both */
		text = skip_blanks(text, end);
		word = text_word(text, end);
		if ((__u16)word == W3('/', '*', 0) || (__u16)word == W3('-', '-', 0)) {
			if ((__u8)word == '/')
				text = skip_comment(text + 2, end, '*', '/');
			else
				text = skip_comment(text + 1, end, 0, '\n');
			text = skip_blanks(text, end);
			word = text_word(text, end);
		}
	}
	word |= EACH_BYTE(0x20);
	return sets_privilege(word, text, end) ? QUERY_DDL : word_operation(word);
}

#endif
