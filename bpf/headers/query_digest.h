/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_digest.h: which digest a statement's text belongs to. The kernel knows
 * texts by a hash of their bytes only; the agent has read each text once and has
 * told the number of its digest.
 */

#ifndef MOORING_QUERY_DIGEST_H
#define MOORING_QUERY_DIGEST_H

#include "query_event.h"
#include "query_histogram.h"
#include "query_text.h"

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 32);
}

#ifdef QUERY_LEGACY
/* text_hash hashes n bytes, 0 < n <= TEXT_MAX, that are followed by zeros up to a word. */
static __always_inline __u64 text_hash(const __u8 *text, __u64 n, __u64 length)
{
	__u64 hash = mix(0xcbf29ce484222325ULL, length);
	__u64 words = (n + 7) / 8;

#pragma unroll
	for (__u32 i = 0; i < TEXT_MAX / 8; i++) {
		if (i >= words)
			break;
		hash = mix(hash, ((const __u64 *)text)[i]);
	}
	return hash ? hash : 1;
}
#else
/*
 * Most literals of statements that are not prepared are numbers, and each number
 * would make another text. So digits are hashed as zeros where they are a number
 * for certain: between blanks, brackets, commas, operators, and not between double
 * quotes or backquotes, where they would be part of a name. Where that is not
 * certain the texts are different, which costs an event and nothing else.
 */
static __always_inline __u64 digits(__u64 word)
{
	return bytes_above(word, '0' - 1) & ~bytes_above(word, '9');
}

/* borders marks the bytes next to which digits are a number: not letters, not _ $ @ # . : and quotes. */
static __always_inline __u64 borders(__u64 word)
{
	return (~bytes_above(word, ' ') & HIGH_BITS) |
	       (bytes_above(word, '$') & ~bytes_above(word, '/') & ~bytes_equal(word, '.')) |
	       (bytes_above(word, ':') & ~bytes_above(word, '>'));
}

/* spread_up lets marks run upwards, to later bytes, through those of path. */
static __always_inline __u64 spread_up(__u64 marks, __u64 path)
{
	marks |= path & (marks << 8);
	path &= path << 8;
	marks |= path & (marks << 16);
	path &= path << 16;
	return marks | (path & (marks << 32));
}

static __always_inline __u64 spread_down(__u64 marks, __u64 path)
{
	marks |= path & (marks >> 8);
	path &= path >> 8;
	marks |= path & (marks >> 16);
	path &= path >> 16;
	return marks | (path & (marks >> 32));
}

/* within marks the bytes behind an odd number of quotes; *odd is carried from word to word. */
static __always_inline __u64 within(__u64 word, __u64 *odd)
{
	__u64 marks = bytes_equal(word, '"') | bytes_equal(word, '`');

	marks ^= marks << 8;
	marks ^= marks << 16;
	marks ^= marks << 32;
	marks ^= *odd;
	*odd = (0 - (marks >> 63)) & HIGH_BITS;
	return marks;
}

/*
 * text_hash hashes n bytes, 0 < n <= TEXT_MAX, that are followed by zeros up to a
 * word and by one word of zeros. But for its end the loop has no branch.
 */
static __always_inline __u64 text_hash(const __u8 *text, __u64 n, __u64 length)
{
	__u64 hash = mix(0xcbf29ce484222325ULL, length), words = (n + 7) / 8;
	__u64 word = *(const __u64 *)text, number = digits(word), border = borders(word);
	__u64 before = 0x80, odd = 0; /* before the first byte is a border */

	for (__u32 i = 0; i < TEXT_MAX / 8; i++) {
		__u64 next, next_number, next_border, up, down, last, quoted;

		if (i >= words)
			break;
		next = ((const __u64 *)text)[i + 1];
		next_number = digits(next);
		next_border = borders(next);
		quoted = within(word, &odd);
		up = spread_up(number & (border << 8 | before), number);
		/* What ends the number that goes on into the next word, if it ends there. */
		last = next_border | spread_down(next_number & (next_border >> 8), next_number);
		down = spread_down(number & (border >> 8 | last << 56), number);
		before = (border | up) >> 63 << 7;
		last = (up & down & ~quoted) >> 7;
		hash = mix(hash, (word & ~(last * 0xff)) | last * '0');
		word = next;
		number = next_number;
		border = next_border;
	}
	return hash ? hash : 1;
}
#endif

static __always_inline __u32 digest_of_text(__u32 slot, __u64 hash)
{
	struct text_key key = {.hash = hash, .slot = slot};
	__u32 *digest = bpf_map_lookup_elem(&texts, &key);

	return digest ? *digest : 0;
}

/* ask tells the agent a text, which stands in s. */
static __always_inline void ask(void *ctx, const struct connection *c, __u64 key,
				struct text_event *s, __u8 is_prepared)
{
	__u64 now = bpf_ktime_get_ns(), size;

	if (!afford(c->slot, now))
		return;
	fill_head(&s->head, c, key, EVENT_TEXT);
	s->head.at = now;
	s->head.detail = is_prepared;
	size = s->size & (2 * TEXT_MAX - 1);
	if (size > TEXT_MAX)
		return;
	if (event_output(ctx, s, __builtin_offsetof(struct text_event, text) + size))
		count_loss(LOSS_TEXTS);
}

/*
 * text_at reads the text from text up to end, of which the message has length
 * bytes, and returns its hash, or 0 if it may not or cannot be read.
 */
static __always_inline __u64 text_at(void *ctx, struct connection *c, __u64 key, __u64 text,
				     __u64 end, __u64 length, __u8 is_prepared)
{
	struct server_rules *r = rules_of(c->slot);
	__u64 n = end - text, owner = bpf_get_current_pid_tgid(), hash;
	struct text_event *s;
	__u32 zero = 0;

	if (text >= end || !r || (r->flags & RULE_NO_TEXT))
		return 0;
	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return 0;
	if (n > TEXT_MAX)
		n = TEXT_MAX;
	s->owner = owner;
	s->length = length;
	s->size = n;
	/* The last word is hashed whole; the text may overwrite most of these zeros. */
	*(__u64 *)(s->text + ((n - 1) & (TEXT_MAX - 8))) = 0;
	*(__u64 *)(s->text + ((n - 1) & (TEXT_MAX - 8)) + 8) = 0;
	asm volatile("" : "+r"(n));
	if (n > TEXT_MAX || !query_read(s->text, n, text)) {
		count_loss(LOSS_UNREADABLE);
		return 0;
	}
	hash = text_hash(s->text, n, length);
	if (s->owner != owner) {
		count_loss(LOSS_PREEMPTED);
		return 0;
	}
	/* What becomes of the text from here on is seen by the agent, which hashes it, too. */
	if (!digest_of_text(c->slot, hash)) {
		s->hash = hash;
		ask(ctx, c, key, s, is_prepared);
	}
	return hash;
}

#ifdef QUERY_LEGACY
#define take_text text_at
#else
/* A function of its own, so that the verifier walks the hash once: see query_received.h. */
__noinline __u64 read_text(__u64 key, __u64 text, __u64 end, __u64 length, __u32 is_prepared)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	return c ? text_at(NULL, c, key, text, end, length, is_prepared) : 0;
}

#define take_text(ctx, c, key, text, end, length, is_prepared) \
	((void)(ctx), (void)(c), read_text(key, text, end, length, is_prepared))
#endif

/* set_text makes a text that of the request; 0 is one that was not read. */
static __always_inline void set_text(struct connection *c, __u64 hash)
{
	c->text = hash;
	c->digest = hash ? digest_of_text(c->slot, hash) : 0;
	if (hash)
		c->flags &= ~CONN_UNREAD;
	else
		c->flags |= CONN_UNREAD;
}

/* digest_of returns the digest a finished request counts under, 0 where the agent has to tell. */
static __always_inline __u32 digest_of(const struct connection *c, __u8 operation)
{
	if (operation == QUERY_TLS)
		return DIGEST_TLS;
	if (operation == QUERY_PREPARE || operation == QUERY_AUTH || operation == QUERY_PING ||
	    operation == QUERY_FETCH)
		return DIGEST_NONE;
	if (c->digest)
		return c->digest;
	if (c->text)
		return digest_of_text(c->slot, c->text);
	return c->flags & CONN_UNREAD ? DIGEST_UNSAMPLED : DIGEST_NONE;
}

/* count_digest adds to a digest and returns whether it could: the agent may have dropped it. */
static __always_inline int count_digest(const struct connection *c, __u32 digest, __u64 ns)
{
	struct digest_key key = {.slot = c->slot, .digest = digest};
	struct digest_value *v;

	if (digest <= DIGEST_UNSAMPLED)
		v = entry(&digests, &key, LOSS_DIGESTS_FULL);
	else
		v = bpf_map_lookup_elem(&digests, &key);
	if (!v)
		return 0;
	if (c->error)
		__sync_fetch_and_add(&v->errors, 1);
	if (c->rows)
		__sync_fetch_and_add(&v->rows, c->rows);
	distribute(&v->duration, ns);
	return 1;
}

#endif
