//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * query_socket: the statement timer on the tracepoints of sockets, which are
 * reached when a receive or a send returns.
 *
 * Linux 6.3 and later with BTF, where trampolines are refused. Nothing but
 * sockets pays for it. A connection is a process and a descriptor, and the inode
 * number of the socket tells one from the next with that descriptor. Which side
 * of it the process is on is known from the socket. The user address comes from
 * the registers that the kernel saved at the system call.
 */

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel_net.h"

static __always_inline int query_read(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read_user(dst, size, (const void *)at) == 0;
}

static __always_inline long query_read_string(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read_user_str(dst, size, (const void *)at);
}

#include "kernel_syscall.h"
#include "query_received.h"

/* BPF_PROG names every argument up to the last one that is read. */
#pragma clang diagnostic ignored "-Wunused-parameter"

char query_license[] SEC("license") = "Dual BSD/GPL";

/* place is where the call in progress has or wants its bytes. */
struct place {
	__u64 key; /* process and descriptor */
	__u64 at;
	__u64 size; /* bytes in one piece */
};

/*
 * may_be_server tells cheaply of most sockets that they are not on the server's
 * side: those of clients, on this node or of what runs beside.
 */
static __always_inline int may_be_server(struct sock *sk, const struct query_settings *set)
{
	__u16 family = sk->__sk_common.skc_family;

	if (family == AF_UNIX)
		return 1;
	return (family == AF_INET || family == AF_INET6) &&
	       (set->ports >> (sk->__sk_common.skc_num % 64)) & 1;
}

/* settings_for returns the settings if they leave a socket in question. */
static __always_inline struct query_settings *settings_for(struct sock *sk)
{
	__u32 zero = 0;
	struct query_settings *set = bpf_map_lookup_elem(&settings, &zero);

	return set && set->follow && may_be_server(sk, set) ? set : NULL;
}

/* find_place fills in place; it returns 0 for a call that is not followed. */
static __always_inline int find_place(struct place *place)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs((void *)task);
	__u64 at = regs_second(regs), size = regs_third(regs);

	/* One load must not serve for registers and stack: the verifier refuses it. */
	asm volatile("" : "+r"(at), "+r"(size));
	if (!first_piece(regs_number(regs), &at, &size))
		return 0;
	place->at = at;
	place->size = size;
	place->key = (__u64)task->tgid << 32 | (__u32)regs_first(regs);
	return 1;
}

static __always_inline __u64 inode_number(struct sock *sk)
{
	return sk->sk_socket->file->f_inode->i_ino;
}

/* known_connection finds what a descriptor is, if it is the same socket still. */
static __always_inline struct connection *known_connection(struct sock *sk, __u64 key)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	return c && c->socket == inode_number(sk) ? c : NULL;
}

/* connection_of finds or adds the connection that a watched server receives on. */
static __always_inline struct connection *connection_of(struct sock *sk, __u64 key,
							const struct query_settings *set)
{
	struct server *server = server_by(set);
	struct connection *c;

	if (!server)
		return NULL;
	c = known_connection(sk, key);
	if (c && c->slot == server->slot)
		return c;
	if (!server_side(sk, server->slot))
		return NULL;
	c = new_connection(key, sk, server);
	if (c)
		c->socket = inode_number(sk);
	return c;
}

/*
 * A receive has got n bytes or an error. That the server asked for more ends
 * what it sent before, though it got nothing: one that waits for readiness asks
 * first and is told to wait.
 */
SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_received, struct sock *sk, int n, int flags)
{
	struct query_settings *set = settings_for(sk);
	struct place place = {};
	struct connection *c;

	if (!set || (flags & MSG_PEEK) || !find_place(&place))
		return 0;
	if (n <= 0) {
		c = known_connection(sk, place.key);
		if (c)
			asks(c, place.key);
		return 0;
	}
	c = connection_of(sk, place.key, set);
	if (c) {
		count_received(c, sk, (__u32)n);
		read_received(c, place.key, place.at, (__u32)n, (__u32)n);
	}
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(on_sent, struct sock *sk, int n)
{
	struct place place = {};
	struct connection *c;

	if ((n <= 0 && n != -EAGAIN) || !settings_for(sk) || !find_place(&place))
		return 0;
	c = known_connection(sk, place.key);
	if (!c)
		return 0;
	if (n > 0) {
		count_sent(c, sk, (__u32)n);
		take_sent(c, place.key, place.at, place.size, (__u32)n);
	} else {
		not_sent(c);
	}
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (child->pid == child->tgid)
		follow_child(child->pid);
	return 0;
}

/* A number is given to another process once it is free: forget it before. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	__u32 pid = task->pid;

	bpf_map_delete_elem(&pids, &pid);
	return 0;
}
