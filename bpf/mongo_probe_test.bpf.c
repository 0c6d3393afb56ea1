//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * mongo_probe_test: the reader of the MongoDB protocol alone, for the tests. Its
 * connection is in a map, so that several calls make a conversation.
 */

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

static __always_inline int query_read(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read_user(dst, size, (const void *)at) == 0;
}

#define NULL ((void *)0)

#include "mongo_probe_test.h"
#include "query_mongo.h"

char mongo_license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct connection);
} conversation SEC(".maps");

/* What query_flow.h does before a reader is called. */
static __always_inline int begin(struct connection *c)
{
	if (c->phase != PHASE_IDLE)
		return c->flags & CONN_HEADER;
	c->flags &= CONN_KEEP;
	c->skip = 0;
	c->operation = QUERY_OTHER;
	c->error = 0;
	c->code = 0;
	c->rows = 0;
	return 1;
}

/* The address and number of received bytes. */
SEC("raw_tp/mooring_test")
int on_request(__u64 *ctx)
{
	__u32 zero = 0;
	struct connection *c = bpf_map_lookup_elem(&conversation, &zero);

	if (!c)
		return -1;
	if (c->phase == PHASE_REPLY)
		c->phase = c->flags & CONN_OPEN ? PHASE_REQUEST : PHASE_IDLE;
	if (begin(c))
		mongo_read(NULL, c, 0, ctx[0], ctx[1]);
	return c->phase;
}

/* The address and number of sent bytes. */
SEC("raw_tp/mooring_test")
int on_reply(__u64 *ctx)
{
	__u32 zero = 0;
	struct connection *c = bpf_map_lookup_elem(&conversation, &zero);
	int first;

	if (!c)
		return -1;
	if (c->phase == PHASE_IDLE)
		return PHASE_IDLE;
	first = c->phase == PHASE_REQUEST;
	c->phase = PHASE_REPLY;
	mongo_reply(c, ctx[0], ctx[1], first);
	return c->phase;
}
