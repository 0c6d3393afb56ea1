//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * iofault: reads and writes of one cgroup on one device fail with an errno.
 *
 * The kernel asks security_file_permission before each read and write of an
 * open file, above the page cache; an error returned there reaches the caller
 * and the file system never learns of it. Two programs do the same work on the
 * two ways to get between: a modify-return trampoline on the function, or the
 * BPF LSM. The Go side loads the one that proves to fire.
 */

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "fault.h"
#include "kernel_fs.h"

/* BPF_PROG gives every program a ctx, which none of ours reads. */
#pragma clang diagnostic ignored "-Wunused-parameter"

/* The kernel takes a hook's return value for an errno only above this. */
#define MIN_ERRNO (-4095)

/* io_key names the target: one cgroup on one device. */
struct io_key {
	__u64 cgroup;
	__u32 dev; /* as in super_block.s_dev */
	__u32 _pad;
};
_Static_assert(sizeof(struct io_key) == 16, "io_key crosses to Go");

struct io_rule {
	__u64 deadline; /* CLOCK_BOOTTIME, ns */
	__u64 hits;     /* operations failed */
	__s64 err;      /* MIN_ERRNO..-1 */
	__u32 ppm;      /* share of operations that fail */
	__u32 mask;     /* MAY_READ, MAY_WRITE */
};
_Static_assert(sizeof(struct io_rule) == 32, "io_rule crosses to Go");

/*
 * Rules are inserted and deleted, never changed in place: that makes the
 * insertion the one moment at which a fault begins.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct io_key);
	__type(value, struct io_rule);
} io_rules SEC(".maps");

/*
 * CLOCK_BOOTTIME at which the agent counts as gone. It stands apart from the
 * rules because it says something about the one agent that holds them all:
 * renewing it is a single write, and no rule can be forgotten.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} io_lease SEC(".maps");

/* The cgroup id of the thread that last ran on_self_test. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} io_self SEC(".maps");

static __always_inline long file_fault(struct file *file, int mask)
{
	struct inode *inode = file->f_inode;
	struct io_key key = {};
	struct io_rule *rule;
	__u64 *lease;
	__u32 zero = 0;
	__s64 err;

	if (!(mask & (MAY_READ | MAY_WRITE)))
		return 0;
	/* Sockets, pipes and directories pass here too. */
	if ((inode->i_mode & S_IFMT) != S_IFREG)
		return 0;

	key.cgroup = bpf_get_current_cgroup_id();
	key.dev = inode->i_sb->s_dev;
	rule = bpf_map_lookup_elem(&io_rules, &key);
	if (!rule || !(rule->mask & (__u32)mask))
		return 0;

	lease = bpf_map_lookup_elem(&io_lease, &zero);
	if (!lease || fault_over(rule->deadline, *lease))
		return 0;

	if (rule->ppm < FAULT_ALWAYS_PPM &&
	    bpf_get_prandom_u32() % FAULT_ALWAYS_PPM >= rule->ppm)
		return 0;

	/*
	 * The verifier of newer kernels wants proof that the value is an errno.
	 * The barrier keeps the compiler from folding the two comparisons into
	 * one on a copy, which would prove nothing about the value returned.
	 */
	err = rule->err;
	if (err < MIN_ERRNO)
		return 0;
	barrier_var(err);
	if (err >= 0)
		return 0;

	__sync_fetch_and_add(&rule->hits, 1);
	return err;
}

SEC("fmod_ret/security_file_permission")
long BPF_PROG(on_sec_fileperm, struct file *file, int mask, int ret)
{
	/* A program before us has refused already: its answer stands. */
	if (ret)
		return ret;
	return file_fault(file, mask);
}

SEC("lsm/file_permission")
long BPF_PROG(on_lsm_fileperm, struct file *file, int mask, int ret)
{
	if (ret)
		return ret;
	return file_fault(file, mask);
}

/*
 * Run once by BPF_PROG_TEST_RUN, attached to nothing. A process in a cgroup
 * namespace cannot learn its own cgroup id from /proc; the kernel can tell.
 */
SEC("raw_tp")
int on_self_test(void *ctx)
{
	__u64 id = bpf_get_current_cgroup_id();
	__u32 zero = 0;

	bpf_map_update_elem(&io_self, &zero, &id, BPF_ANY);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
