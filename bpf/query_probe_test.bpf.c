//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* query_probe_test: single functions of the statement timer, for the tests. */

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

static __always_inline int query_read(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read_user(dst, size, (const void *)at) == 0;
}

#include "query_histogram.h"
#include "query_text.h"

char probe_license[] SEC("license") = "Dual BSD/GPL";

/* Nanoseconds to the native bucket, above the classic one. */
SEC("raw_tp/mooring_test")
int on_duration(__u64 *ctx)
{
	return native_bucket(ctx[0]) << 8 | classic_index(ctx[0]);
}

/* The address and size of a text to its operation. */
SEC("raw_tp/mooring_test")
int on_text(__u64 *ctx)
{
	struct connection c = {};

	set_operation(&c, sql_operation(ctx[0], ctx[0] + ctx[1]));
	return c.operation;
}
