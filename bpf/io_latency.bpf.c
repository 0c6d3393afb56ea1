//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * io_latency: how long the block requests and the fsyncs of some cgroups take.
 *
 * A block request belongs to the cgroup that its data is charged to, which the
 * bio carries: what is written back later by a kernel thread is still the
 * database's. An fsync belongs to the cgroup of the thread that waits in it.
 * Linux 5.10 and later with BTF.
 */

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "histogram.h"
#include "kernel_block.h"

/* BPF_PROG names every argument up to the last one that is read. */
#pragma clang diagnostic ignored "-Wunused-parameter"

enum io_kind {
	IO_READ = 0,
	IO_WRITE = 1,
	IO_FSYNC = 2,
};

enum io_loss {
	IO_SEEN = 0,       /* no loss: requests issued at all, to see that we fire */
	IO_ISSUED_FULL = 1,  /* a request was not followed */
	IO_SYNCING_FULL = 2, /* an fsync was not followed */
	IO_COUNTS = 3,
};

struct io_key {
	__u64 cgroup;
	__u32 kind;
	__u32 _pad;
};
_Static_assert(sizeof(struct io_key) == 16, "io_key crosses to Go");

/*
 * The agent gets a copy made from the first member to the last while durations
 * are counted from the last member to the first. So a copy whose two counts
 * agree is whole, but for a sum that may know of one more.
 */
struct io_histogram {
	__u64 classic[CLASSIC_BUCKETS];
	__u64 native[NATIVE_BUCKETS];
	__u64 sum; /* ns */
};
_Static_assert(sizeof(struct io_histogram) == 8 * (1 + CLASSIC_BUCKETS + NATIVE_BUCKETS),
	       "io_histogram crosses to Go");

/* begun is what is under way. */
struct begun {
	struct io_key key;
	__u64 at; /* CLOCK_MONOTONIC, ns */
};

/* Made by the agent alone: what has no histogram is not timed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 3072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct io_key);
	__type(value, struct io_histogram);
} io_histograms SEC(".maps");

/* Requests at the device, by their address. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct begun);
} io_issued SEC(".maps");

/* Threads in fsync. One that is in it a second time, from within, counts once. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct begun);
} io_syncing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, IO_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} io_counts SEC(".maps");

/* The cgroup id of the thread that last ran on_io_self. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} io_own SEC(".maps");

/*
 * The tracepoint block_rq_issue has the queue before the request until 5.10
 * (include/trace/events/block.h). The agent counts in the kernel's BTF.
 */
const volatile __u8 queue_first = 0;

static __always_inline void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&io_counts, &what);

	if (n)
		*n += 1;
}

static __always_inline void record(struct io_key *key, __u64 ns)
{
	struct io_histogram *h = bpf_map_lookup_elem(&io_histograms, key);
	__u64 i;

	if (!h)
		return;
	__sync_fetch_and_add(&h->sum, ns);
	i = native_bucket(ns);
	if (i < NATIVE_BUCKETS)
		__sync_fetch_and_add(&h->native[i], 1);
	i = classic_index(ns);
	if (i < CLASSIC_BUCKETS)
		__sync_fetch_and_add(&h->classic[i], 1);
}

SEC("tp_btf/block_rq_issue")
int on_rq_issue(__u64 *ctx)
{
	struct begun begun = {};
	struct request *rq;
	__u64 address;

	count(IO_SEEN);
	if (queue_first) {
		rq = (void *)ctx[1];
		/* Two loads must stay two: ctx may not be read at a computed offset. */
		asm volatile("" : "+r"(rq));
	} else {
		rq = (void *)ctx[0];
	}
	begun.key.kind = rq->cmd_flags & REQ_OP_MASK;
	if (begun.key.kind != REQ_OP_READ && begun.key.kind != REQ_OP_WRITE)
		return 0;
	/* A flush has no bio: then these are reads of nothing, which yield 0. */
	begun.key.cgroup = rq->bio->bi_blkg->blkcg->css.cgroup->kn->id;
	if (!bpf_map_lookup_elem(&io_histograms, &begun.key))
		return 0;
	begun.at = bpf_ktime_get_ns();
	address = (__u64)rq;
	/* One that is issued again is timed from then on. */
	if (bpf_map_update_elem(&io_issued, &address, &begun, BPF_ANY))
		count(IO_ISSUED_FULL);
	return 0;
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(on_rq_complete, struct request *rq, int error, __u32 bytes)
{
	__u64 address = (__u64)rq;
	struct begun *begun = bpf_map_lookup_elem(&io_issued, &address);
	struct io_key key;

	/* A device may finish a request in parts; the last one ends it. */
	if (!begun || bytes < rq->__data_len)
		return 0;
	key = begun->key;
	record(&key, bpf_ktime_get_ns() - begun->at);
	bpf_map_delete_elem(&io_issued, &address);
	return 0;
}

SEC("fentry/vfs_fsync_range")
int on_sync(__u64 *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct begun begun = {};

	begun.key.kind = IO_FSYNC;
	begun.key.cgroup = bpf_get_current_cgroup_id();
	if (!bpf_map_lookup_elem(&io_histograms, &begun.key))
		return 0;
	begun.at = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&io_syncing, &thread, &begun, BPF_NOEXIST) &&
	    !bpf_map_lookup_elem(&io_syncing, &thread))
		count(IO_SYNCING_FULL);
	return 0;
}

SEC("fexit/vfs_fsync_range")
int on_synced(__u64 *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct begun *begun = bpf_map_lookup_elem(&io_syncing, &thread);
	struct io_key key;

	if (!begun)
		return 0;
	key = begun->key;
	record(&key, bpf_ktime_get_ns() - begun->at);
	bpf_map_delete_elem(&io_syncing, &thread);
	return 0;
}

/*
 * Run once by BPF_PROG_TEST_RUN, attached to nothing. A process in a cgroup
 * namespace cannot learn its own cgroup id from /proc; the kernel can tell.
 */
SEC("raw_tp")
int on_io_self(void *ctx)
{
	__u64 id = bpf_get_current_cgroup_id();
	__u32 zero = 0;

	bpf_map_update_elem(&io_own, &zero, &id, BPF_ANY);
	return 0;
}

char io_license[] SEC("license") = "Dual BSD/GPL";
