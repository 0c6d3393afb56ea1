/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* query_histogram.h: where a duration is counted. */

#ifndef MOORING_QUERY_HISTOGRAM_H
#define MOORING_QUERY_HISTOGRAM_H

#include "histogram.h"
#include "query.h"

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
