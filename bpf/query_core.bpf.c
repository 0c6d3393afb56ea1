//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * query_core: the statement timer on trampolines of the socket functions.
 *
 * Linux 5.10 and later with BTF. Only sockets cost anything: no system call of
 * another kind is touched. A connection is its struct sock, so descriptors,
 * threads and inheritance do not matter. Unseen are receives by splice, and
 * what does not pass these functions: RDMA, MPTCP, user-space TCP.
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

#include "query_received.h"

/* BPF_PROG names every argument up to the last one that is read. */
#pragma clang diagnostic ignored "-Wunused-parameter"

char query_license[] SEC("license") = "Dual BSD/GPL";

/*
 * tcp_recvmsg has 4 arguments in recent kernels, 5 with addr_len behind flags
 * before, and 6 with nonblock before flags until 5.18 (include/net/tcp.h). The
 * agent counts them in the kernel's BTF.
 */
const volatile __u8 recv_args = 5;

/* Only so that the agent finds what these are: they are no value of a map. */
const struct record_event *record_event_type __attribute__((unused));
const struct session_event *session_event_type __attribute__((unused));

static __always_inline int is_iovec(struct iov_iter *it)
{
	__u32 iovec = bpf_core_enum_value(enum iter_type___any, ITER_IOVEC);
	struct iov_iter___v5_14 *now = (void *)it;
	struct iov_iter___v5_10 *then = (void *)it;

	if (bpf_core_field_exists(now->iter_type))
		return BPF_CORE_READ(now, iter_type) == iovec;
	/* The lowest bit was the direction of the transfer. */
	return (BPF_CORE_READ(then, type) & ~1U) == iovec;
}

static __always_inline int is_ubuf(struct iov_iter *it)
{
	struct iov_iter___v5_14 *now = (void *)it;

	return bpf_core_enum_value_exists(enum iter_type___any, ITER_UBUF) &&
	       bpf_core_field_exists(now->iter_type) &&
	       BPF_CORE_READ(now, iter_type) ==
		       bpf_core_enum_value(enum iter_type___any, ITER_UBUF);
}

/* note_buffer keeps the user address of a call for when it returns. */
static __always_inline void note_buffer(struct connection *c, struct msghdr *msg)
{
	struct iov_iter *it = &msg->msg_iter;
	struct iov_iter___ubuf *ubuf = (void *)it;
	struct iov_iter___iov *old = (void *)it;
	struct iov_iter___v6_4 *new = (void *)it;
	__u64 offset = BPF_CORE_READ(it, iov_offset);
	const struct iovec *iov;

	c->buffer = 0;
	c->extent = 0;
	if (is_ubuf(it)) {
		c->buffer = (__u64)BPF_CORE_READ(ubuf, ubuf) + offset;
		c->extent = BPF_CORE_READ(it, count);
		return;
	}
	if (!is_iovec(it))
		return; /* kernel memory: not a server's own call */
	if (bpf_core_field_exists(new->__iov))
		iov = BPF_CORE_READ(new, __iov);
	else
		iov = BPF_CORE_READ(old, iov);
	c->buffer = (__u64)BPF_CORE_READ(iov, iov_base) + offset;
	c->extent = BPF_CORE_READ(iov, iov_len) - offset;
}

static __always_inline int enter_receive(struct sock *sk, struct msghdr *msg, __u32 flags)
{
	struct server *server = watched_server();
	struct connection *c;
	__u64 key = (__u64)sk;

	if (!server)
		return 0;
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c || c->slot != server->slot) {
		if (!server_side(sk, server->slot))
			return 0;
		c = new_connection(key, sk, server);
		if (!c)
			return 0;
	}
	asks(c, key);
	note_buffer(c, msg);
	if (flags & MSG_PEEK)
		c->buffer = 0;
	return 0;
}

static __always_inline int exit_receive(struct sock *sk, int n)
{
	__u64 key = (__u64)sk, at, size;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (!c || n <= 0 || !c->buffer)
		return 0;
	at = c->buffer;
	size = (__u32)n < c->extent ? (__u32)n : c->extent;
	c->buffer = 0;
	count_received(c, sk, (__u32)n);
	read_received(c, key, at, size, (__u32)n);
	return 0;
}

static __always_inline int enter_send(struct sock *sk, struct msghdr *msg)
{
	__u64 key = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		note_buffer(c, msg);
	return 0;
}

static __always_inline int exit_send(struct sock *sk, int n)
{
	__u64 key = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (!c)
		return 0;
	if (n > 0) {
		count_sent(c, sk, (__u32)n);
		take_sent(c, key, c->buffer, c->extent, (__u32)n);
	} else if (n == -EAGAIN) {
		not_sent(c);
	}
	return 0;
}

static __always_inline int forget(struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c) {
		closed(c, key);
		bpf_map_delete_elem(&connections, &key);
	}
	return 0;
}

SEC("fentry/tcp_recvmsg")
int on_tcp_recv(__u64 *ctx)
{
	__u32 flags;

	if (recv_args == 6) {
		flags = ctx[4];
		/* Two loads must stay two: ctx may not be read at a computed offset. */
		asm volatile("" : "+r"(flags));
	} else {
		flags = ctx[3];
	}
	return enter_receive((void *)ctx[0], (void *)ctx[1], flags);
}

/* What the function returned stands behind its last argument. */
SEC("fexit/tcp_recvmsg")
int on_tcp_recvd(__u64 *ctx)
{
	int n;

	if (recv_args == 6) {
		n = ctx[6];
		asm volatile("" : "+r"(n));
	} else if (recv_args == 5) {
		n = ctx[5];
		asm volatile("" : "+r"(n));
	} else {
		n = ctx[4];
	}
	return exit_receive((void *)ctx[0], n);
}

SEC("fentry/tcp_sendmsg")
int BPF_PROG(on_tcp_send, struct sock *sk, struct msghdr *msg)
{
	return enter_send(sk, msg);
}

SEC("fexit/tcp_sendmsg")
int BPF_PROG(on_tcp_sent, struct sock *sk, struct msghdr *msg, __u64 size, int n)
{
	return exit_send(sk, n);
}

SEC("fentry/unix_stream_recvmsg")
int BPF_PROG(on_unix_recv, struct socket *sock, struct msghdr *msg, __u64 size, int flags)
{
	return enter_receive(sock->sk, msg, flags);
}

SEC("fexit/unix_stream_recvmsg")
int BPF_PROG(on_unix_recvd, struct socket *sock, struct msghdr *msg, __u64 size, int flags, int n)
{
	return exit_receive(sock->sk, n);
}

SEC("fentry/unix_stream_sendmsg")
int BPF_PROG(on_unix_send, struct socket *sock, struct msghdr *msg)
{
	return enter_send(sock->sk, msg);
}

SEC("fexit/unix_stream_sendmsg")
int BPF_PROG(on_unix_sent, struct socket *sock, struct msghdr *msg, __u64 size, int n)
{
	return exit_send(sock->sk, n);
}

/* A send waits until the client has taken some (net/core/stream.c). */
SEC("fentry/sk_stream_wait_memory")
int BPF_PROG(on_wait, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c)
		not_sent(c);
	return 0;
}

/* The last descriptor of a socket is gone: its address may be another's soon. */
SEC("fentry/tcp_close")
int BPF_PROG(on_tcp_close, struct sock *sk)
{
	return forget(sk);
}

SEC("fentry/unix_release")
int BPF_PROG(on_unix_close, struct socket *sock)
{
	return forget(sock->sk);
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
