/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* fault.h: what every fault program shares: the clock that ends it. */

#ifndef MOORING_FAULT_H
#define MOORING_FAULT_H

/* One million parts: the operation or packet is always hit. */
#define FAULT_ALWAYS_PPM 1000000

/*
 * fault_over tells whether a fault has ended: its deadline or the lease of the
 * agent that holds it has passed. Both are CLOCK_BOOTTIME in nanoseconds. A
 * zero is in the past, so that state which was never armed does nothing.
 *
 * The boot clock is used because it goes on while a virtual machine is
 * suspended and because nobody can set it: a fault never outlives its deadline
 * by a stopped or changed clock.
 */
static __always_inline int fault_over(__u64 deadline, __u64 lease)
{
	__u64 now = bpf_ktime_get_boot_ns();

	return now >= deadline || now >= lease;
}

#endif
