/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* histogram.h: in which bucket of a histogram a duration counts. */

#ifndef MOORING_HISTOGRAM_H
#define MOORING_HISTOGRAM_H

/* query.h says the same; the compiler refuses a difference. */
#define CLASSIC_BUCKETS 17
#define NATIVE_LOWEST (-160) /* schema 3 index of the first: up to 2^-20 s */
#define NATIVE_BUCKETS 218   /* the last is index 57, above 128 s */

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

#endif
