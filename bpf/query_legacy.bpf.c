//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * query_legacy: the statement timer on the tracepoint of the end of system calls.
 *
 * For kernels without BTF or without the tracepoints of query_socket. One raw tracepoint
 * sees every system call of the node return, so all it does for most of them is
 * to read their number. What a call was asked is still in the registers saved,
 * so its beginning need not be seen and nothing is kept meanwhile. A connection
 * is a process and a descriptor; which side of it the process is on is known
 * from bind, connect and accept, and for older ones from the agent.
 *
 * Written for what Linux 4.19 can load: see query.h.
 */

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define QUERY_LEGACY

/*
 * bpf_probe_read_user exists since 5.5. bpf_probe_read still reads user memory
 * where user and kernel addresses cannot overlap, as on x86 and arm64
 * (kernel/trace/bpf_trace.c, bpf_probe_read_compat).
 */
static __always_inline int query_read(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read(dst, size, (const void *)at) == 0;
}

static __always_inline long query_read_string(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read_str(dst, size, (const void *)at);
}

#include "kernel_syscall.h"
#include "query_flow.h"

char query_license[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define MSG_PEEK 2
#define EAGAIN 11 /* include/uapi/asm-generic/errno-base.h */

/* Those from CALL_READ on are for files too. */
enum call_kind {
	CALL_OTHER,
	CALL_RECEIVE,
	CALL_SEND,
	CALL_ACCEPT,
	CALL_CONNECT,
	CALL_BIND,
	CALL_READ,
	CALL_WRITE,
};

/*
 * Programs for parts of the work, the first by protocol: all in one would be more
 * instructions than a program may have. What those are to read is noted in
 * connection.buffer and extent.
 */
#define STEP_REPLY 8
#define STEP_FINISH 9

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

static __always_inline enum call_kind call_kind(__u64 number)
{
	switch (number) {
	case NR_RECVFROM:
	case NR_RECVMSG:
		return CALL_RECEIVE;
	case NR_SENDTO:
	case NR_SENDMSG:
		return CALL_SEND;
	case NR_ACCEPT:
	case NR_ACCEPT4:
		return CALL_ACCEPT;
	case NR_CONNECT:
		return CALL_CONNECT;
	case NR_BIND:
		return CALL_BIND;
	case NR_READ:
	case NR_READV:
		return CALL_READ;
	case NR_WRITE:
	case NR_WRITEV:
		return CALL_WRITE;
	}
	return CALL_OTHER;
}

static __always_inline __u64 connection_key(__u32 fd)
{
	return (bpf_get_current_pid_tgid() >> 32 << 32) | fd;
}

static __always_inline void set_connection(__u32 fd, const struct server *server, __u16 flags)
{
	struct connection new = {
		.slot = server->slot,
		.protocol = server->protocol,
		.flags = flags,
	};
	__u64 key = connection_key(fd);

	if (bpf_map_update_elem(&connections, &key, &new, BPF_ANY))
		count_loss(LOSS_CONNECTIONS_FULL);
}

/* go_on takes n > 0 received bytes at address at, once what they end is finished. */
static __always_inline void go_on(void *ctx, struct connection *c, __u64 key, __u64 at, __u64 n)
{
	__u64 left = n;

	c->seen += n;
	if (!received(c, n))
		return;
	if (c->protocol == QUERY_POSTGRES && !pg_read(ctx, c, key, &at, &left))
		return;
	c->buffer = at;
	c->extent = left;
	/* A constant index is a plain jump where the kernel can make it one. */
	if (c->protocol == QUERY_POSTGRES)
		bpf_tail_call(ctx, &steps, QUERY_POSTGRES);
	else if (c->protocol == QUERY_MYSQL)
		bpf_tail_call(ctx, &steps, QUERY_MYSQL);
	else if (c->protocol == QUERY_MONGO)
		bpf_tail_call(ctx, &steps, QUERY_MONGO);
	else
		bpf_tail_call(ctx, &steps, QUERY_REDIS);
}

/* reads tells whether a server may use read and write on its sockets. */
static __always_inline int reads(const struct server *server)
{
	return server->protocol != QUERY_POSTGRES;
}

/*
 * exit_receive takes a receive that got n bytes or an error. That the server
 * asked for more ends what it sent before, though it got nothing: one that
 * waits for readiness asks first and is told to wait.
 */
static __always_inline void exit_receive(void *ctx, const struct server *server,
					 const struct arguments *args, __s64 n, int file)
{
	__u64 key = connection_key(args->first);
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (c && c->slot != server->slot)
		c = NULL;
	/* Keeps the compiler from asking for the slot once more in place of c. */
	asm volatile("" : "+r"(c));
	/* read is for files too: only what is known to be accepted is followed. */
	if (file && !(c && (c->flags & CONN_SERVER)))
		return;
	if (n <= 0) {
		if (c && ends_before(c, 0, 0))
			bpf_tail_call(ctx, &steps, STEP_FINISH);
		return;
	}
	if (!c) {
		set_connection(args->first, server, 0);
		c = bpf_map_lookup_elem(&connections, &key);
		if (!c)
			return;
	}
	/* It goes on from there: see on_finish. */
	if (ends_before(c, args->second, n))
		bpf_tail_call(ctx, &steps, STEP_FINISH);
	go_on(ctx, c, key, args->second, n);
}

static __always_inline void exit_send(void *ctx, const struct arguments *args, __s64 n)
{
	__u64 key = connection_key(args->first);
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	/* Nothing is being answered on a descriptor that nothing was received on. */
	if (!c)
		return;
	if (n > 0)
		bpf_tail_call(ctx, &steps, STEP_REPLY);
	else if (n == -EAGAIN)
		not_sent(c);
}

/* What is accepted from a listener on a port of no interest is of none either. */
static __always_inline void exit_accept(const struct server *server, const struct arguments *args,
					__s64 fd)
{
	__u64 key = connection_key(args->first);
	struct connection *listener;

	if (fd < 0)
		return;
	listener = bpf_map_lookup_elem(&connections, &key);
	set_connection(fd, server,
		       listener && (listener->flags & CONN_IGNORED) ? CONN_IGNORED : CONN_SERVER);
}

static __always_inline void exit_bind(const struct server *server, const struct arguments *args)
{
	__u16 address[2] = {}; /* family; port for the two internet ones */
	__u16 flags = 0;

	if (!query_read(address, sizeof(address), args->second))
		return;
	if ((address[0] == AF_INET || address[0] == AF_INET6) &&
	    !watched_port(server->slot, bpf_ntohs(address[1])))
		flags = CONN_IGNORED;
	set_connection(args->first, server, flags);
}

/* The arguments of the tracepoint are the registers and the call's result. */
SEC("raw_tp/sys_exit")
int on_syscall(__u64 *ctx)
{
	enum call_kind kind = call_kind(syscall_number(ctx[0]));
	struct arguments args = {};
	struct query_settings *set;
	struct server *server;
	__u32 zero = 0;

	if (kind == CALL_OTHER)
		return 0;
	set = bpf_map_lookup_elem(&settings, &zero);
	if (!set || (kind >= CALL_READ && !(set->follow & FOLLOW_READS)))
		return 0;
	server = server_by(set);
	if (!server || (kind >= CALL_READ && !reads(server)))
		return 0;
	if (!syscall_arguments(&args, ctx[0]))
		return 0;
	switch (kind) {
	case CALL_RECEIVE:
		if (syscall_number(ctx[0]) == NR_RECVMSG)
			args.fourth = args.third; /* its flags */
		if (args.fourth & MSG_PEEK)
			return 0;
		/* fallthrough */
	case CALL_READ:
		if (!first_piece(syscall_number(ctx[0]), &args.second, &args.third))
			return 0;
		exit_receive(ctx, server, &args, ctx[1], kind == CALL_READ);
		return 0;
	case CALL_ACCEPT:
		exit_accept(server, &args, ctx[1]);
		return 0;
	case CALL_CONNECT:
		/* A process that connects is the client on that descriptor. */
		set_connection(args.first, server, CONN_IGNORED);
		return 0;
	case CALL_BIND:
		exit_bind(server, &args);
		return 0;
	default:
		exit_send(ctx, &args, ctx[1]);
		return 0;
	}
}

/* this_connection finds the connection that a step is to read from. */
static __always_inline struct connection *this_connection(__u64 *ctx, __u64 *key)
{
	struct arguments args = {};

	if (!syscall_arguments(&args, ctx[0]))
		return NULL;
	*key = connection_key(args.first);
	return bpf_map_lookup_elem(&connections, key);
}

/* What was sent: see sent. */
SEC("raw_tp/sys_exit")
int on_reply(__u64 *ctx)
{
	struct arguments args = {};
	__u64 key;
	struct connection *c;

	if (!syscall_arguments(&args, ctx[0]))
		return 0;
	key = connection_key(args.first);
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c)
		return 0;
	if (!first_piece(syscall_number(ctx[0]), &args.second, &args.third))
		return 0;
	c->seen += ctx[1];
	if (sent(c, key, args.second, args.third, ctx[1]))
		bpf_tail_call(ctx, &steps, STEP_FINISH);
	return 0;
}

/* The end of a request, and then the bytes received that ended it. */
SEC("raw_tp/sys_exit")
int on_finish(__u64 *ctx)
{
	enum call_kind kind = call_kind(syscall_number(ctx[0]));
	__u64 key = 0;
	struct connection *c = this_connection(ctx, &key);
	struct arguments args = {};

	if (!c)
		return 0;
	finish(ctx, c, key);
	if ((kind != CALL_RECEIVE && kind != CALL_READ) || (__s64)ctx[1] <= 0)
		return 0;
	if (syscall_arguments(&args, ctx[0]) &&
	    first_piece(syscall_number(ctx[0]), &args.second, &args.third))
		go_on(ctx, c, key, args.second, ctx[1]);
	return 0;
}

/* One PostgreSQL message, and then itself for the next. */
SEC("raw_tp/sys_exit")
int on_postgres(__u64 *ctx)
{
	__u64 key = 0, took;
	struct connection *c = this_connection(ctx, &key);

	if (!c)
		return 0;
	took = pg_message(ctx, c, key, c->buffer, c->extent);
	if (!took || took >= c->extent)
		return 0;
	c->buffer += took;
	c->extent -= took;
	bpf_tail_call(ctx, &steps, QUERY_POSTGRES);
	/* Refused after some 30 of them (MAX_TAIL_CALL_CNT). */
	c->flags |= CONN_LOST;
	return 0;
}

SEC("raw_tp/sys_exit")
int on_mysql(__u64 *ctx)
{
	__u64 key = 0;
	struct connection *c = this_connection(ctx, &key);

	if (c)
		mysql_read(ctx, c, key, c->buffer, c->extent);
	return 0;
}

SEC("raw_tp/sys_exit")
int on_mongo(__u64 *ctx)
{
	__u64 key = 0;
	struct connection *c = this_connection(ctx, &key);

	if (c)
		mongo_read(ctx, c, key, c->buffer, c->extent);
	return 0;
}

SEC("raw_tp/sys_exit")
int on_redis(__u64 *ctx)
{
	__u64 key = 0;
	struct connection *c = this_connection(ctx, &key);

	if (c)
		redis_begin(ctx, c, key, c->buffer, c->extent);
	return 0;
}

/*
 * The layout of this event changed with 6.1x kernels, so the agent gives the
 * offset. It cannot be an access of ctx, whose offsets must be constant.
 */
SEC("tracepoint/sched/sched_process_fork")
int on_fork(void *ctx)
{
	__u32 zero = 0, child = 0;
	struct query_settings *set = bpf_map_lookup_elem(&settings, &zero);

	if (!set || !(set->follow & FOLLOW_PIDS))
		return 0;
	bpf_probe_read(&child, sizeof(child), ctx + set->child_pid);
	follow_child(child);
	return 0;
}

/* A number is given to another process once it is free: forget it before. */
SEC("tracepoint/sched/sched_process_exit")
int on_exit(void *ctx __attribute__((unused)))
{
	__u32 pid = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&pids, &pid);
	return 0;
}
