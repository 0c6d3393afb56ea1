/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* query_histogram.h: where a duration is counted. */

#ifndef MOORING_QUERY_HISTOGRAM_H
#define MOORING_QUERY_HISTOGRAM_H

#include "query.h"

#define US 1000ULL
#define MS 1000000ULL

/*
 * above returns 1 if a > b, else 0. It wants the difference of the two to be
 * less than 2^63. There is no branch in it, nor in what is built on it: the
 * verifier would walk every way through two histograms, hundreds of thousands
 * of instructions.
 */
static __always_inline __u64 above(__u64 a, __u64 b)
{
	__u64 difference = b - a;

	/* Keeps the compiler from seeing a comparison in this. */
	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

/* classic_index returns the bucket whose upper bound is the first not below ns. */
static __always_inline __u64 classic_index(__u64 ns)
{
	return above(ns, 50 * US) + above(ns, 100 * US) + above(ns, 250 * US) +
	       above(ns, 500 * US) + above(ns, 1 * MS) + above(ns, 2500 * US) +
	       above(ns, 5 * MS) + above(ns, 10 * MS) + above(ns, 25 * MS) + above(ns, 50 * MS) +
	       above(ns, 100 * MS) + above(ns, 250 * MS) + above(ns, 500 * MS) +
	       above(ns, 1000 * MS) + above(ns, 2500 * MS) + above(ns, 10000 * MS);
}

/*
 * native_index returns i such that 2^((i-1)/8) s < ns <= 2^(i/8) s, which is
 * the bucket of a Prometheus native histogram of schema 3, exactly and without
 * division.
 *
 * ns is shifted until its top bit is bit 63. One second shifted likewise is
 * 10^9 << 34, so a whole octave of seconds ends there, and the eighths of the
 * octave below are that times 2^(-k/8). What is above it is still below its
 * product with 2^(1/8), for that is more than 64 bits can hold.
 */
static __always_inline __s64 native_index(__u64 ns)
{
	__u64 w = ns + above(1, ns); /* nothing takes no time at all: 0 counts as 1 */
	__s64 top = 63;
	__u64 shift;

#define NORMALIZE(n)                                   \
	shift = above(1, w >> (64 - (n))) * (n);       \
	w <<= shift;                                   \
	top -= shift;
	NORMALIZE(32)
	NORMALIZE(16)
	NORMALIZE(8)
	NORMALIZE(4)
	NORMALIZE(2)
	NORMALIZE(1)
#undef NORMALIZE

	/* 10^9 has its top bit at 29. Fractions are cut off: w is whole. */
	return 8 * (top - 30) + 1 +
	       above(w, 0x81FFA7A9549CA6E3ULL) + /* 2^(-7/8) */
	       above(w, 0x8DC3B8960164A7D9ULL) + above(w, 0x9A9867054D512391ULL) +
	       above(w, 0xA8965F74BF065071ULL) + above(w, 0xB7D88A12D0DD9EA0ULL) +
	       above(w, 0xC87C3E7D03CDBEC3ULL) + above(w, 0xDAA17C2CD19555DBULL) +
	       above(w, 0xEE6B280000000000ULL); /* 1 */
}

/* native_bucket returns the place in histogram.native, clamped at both ends. */
static __always_inline __u64 native_bucket(__u64 ns)
{
	__s64 i = native_index(ns) - NATIVE_LOWEST;

	if (i < 0)
		return 0;
	if (i >= NATIVE_BUCKETS)
		return NATIVE_BUCKETS - 1;
	return i;
}

/* coarse_bucket returns the place in distribution.coarse: an eighth is a quarter of a half. */
static __always_inline __u64 coarse_bucket(__u64 ns)
{
	return (native_bucket(ns) + 3) >> 2;
}

static __always_inline void distribute(struct distribution *d, __u64 ns)
{
	__u64 i = coarse_bucket(ns);

	__sync_fetch_and_add(&d->sum, ns);
	if (i < COARSE_BUCKETS)
		__sync_fetch_and_add(&d->coarse[i], 1);
}

/*
 * entry finds or makes a value in a map that is not larger than blank's. Another
 * CPU may be first to make it: then ours is refused, rightly.
 */
#define entry(map, key, why)                                                   \
	({                                                                     \
		void *_found = bpf_map_lookup_elem(map, key);                  \
		if (!_found) {                                                 \
			__u32 _zero = 0;                                       \
			void *_none = bpf_map_lookup_elem(&blank, &_zero);     \
			if (_none)                                             \
				bpf_map_update_elem(map, key, _none, BPF_NOEXIST); \
			_found = bpf_map_lookup_elem(map, key);                \
			if (!_found)                                           \
				count_loss(why);                               \
		}                                                              \
		_found;                                                        \
	})

/* count_operation adds a finished request to its operation. */
static __always_inline void count_operation(const struct connection *c, __u8 operation, __u64 ns)
{
	struct operation_key key = {
		.slot = c->slot,
		.operation = operation,
		.error = c->error,
	};
	struct operation_value *v = entry(&operations, &key, LOSS_OPERATIONS_FULL);
	__u64 i;

	if (!v)
		return;
	if (c->blocked)
		__sync_fetch_and_add(&v->blocked, c->blocked);
	if (c->rows)
		__sync_fetch_and_add(&v->rows, c->rows);
	__sync_fetch_and_add(&v->in, c->in);
	__sync_fetch_and_add(&v->out, c->out);
	__sync_fetch_and_add(&v->statements, c->statements ? c->statements : 1);
	distribute(&v->first, c->first - c->started);
	__sync_fetch_and_add(&v->duration.sum, ns);
	i = native_bucket(ns);
	if (i < NATIVE_BUCKETS)
		__sync_fetch_and_add(&v->duration.native[i], 1);
	i = classic_index(ns);
	if (i < CLASSIC_BUCKETS)
		__sync_fetch_and_add(&v->duration.classic[i], 1);
}

#endif
