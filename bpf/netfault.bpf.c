//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * netfault: the gate before a netem band.
 *
 * netem has no deadline of its own. This classifier sits on a prio qdisc and
 * sends packets to the netem band while a deadline and a lease hold; at any
 * other time it matches nothing and the prio map sends them to the plain band.
 * So the fault ends in the data path at its deadline, whoever is alive.
 */

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "fault.h"

/* cls_bpf: no match, the next filter or the qdisc's default decides. */
#define CLS_NO_MATCH 0
/* cls_bpf: a match, the packet goes to the class the filter was added with. */
#define CLS_MATCH (-1)

/* Indices of net_gate. Each holds CLOCK_BOOTTIME in ns; zero is closed. */
enum { GATE_DEADLINE, GATE_LEASE, GATE_ENTRIES };

/*
 * The two entries are written one at a time, the deadline last: that one
 * eight-byte write opens the gate.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GATE_ENTRIES);
	__type(key, __u32);
	__type(value, __u64);
} net_gate SEC(".maps");

/* Packets sent to the netem band. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} net_hits SEC(".maps");

SEC("tc")
int on_cls_egress(struct __sk_buff *skb)
{
	__u32 at_deadline = GATE_DEADLINE, at_lease = GATE_LEASE, zero = 0;
	__u64 *deadline, *lease, *hits;

	(void)skb;
	deadline = bpf_map_lookup_elem(&net_gate, &at_deadline);
	lease = bpf_map_lookup_elem(&net_gate, &at_lease);
	if (!deadline || !lease || fault_over(*deadline, *lease))
		return CLS_NO_MATCH;

	/* The qdisc runs us with its lock held and softirqs off: no atomic. */
	hits = bpf_map_lookup_elem(&net_hits, &zero);
	if (hits)
		*hits += 1;
	return CLS_MATCH;
}

char _license[] SEC("license") = "Dual BSD/GPL";
