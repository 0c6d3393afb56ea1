//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * query_legacy: the statement timer on tracepoints of system calls.
 *
 * For kernels without BTF or where trampolines are refused. Any tracepoint of a
 * system call makes every system call of the node a little slower, so those of
 * read and write are attached only while a server needs them. A connection is a
 * process and a descriptor; which side of it the process is on is known from
 * bind, connect and accept, and for older ones from the agent.
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

#include "query_flow.h"

char query_license[] SEC("license") = "Dual BSD/GPL";

#define AF_INET 2
#define AF_INET6 10
#define MSG_PEEK 2

enum call_kind {
	CALL_NONE,
	CALL_RECEIVE,
	CALL_SEND,
	CALL_ACCEPT,
};

/* call is what a thread's system call was given, for when it returns. */
struct call {
	__u64 buffer; /* user address; advances while messages are read */
	__u64 left;   /* bytes there in one piece */
	__u32 fd;
	struct server server;
	__u8 kind;
	__u8 _pad[3];
};
_Static_assert(sizeof(struct call) == 32, "call has no holes");

/* Kept from call to call until the thread ends: finding is cheaper than inserting. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64); /* process and thread */
	__type(value, struct call);
} calls SEC(".maps");

/*
 * Programs that read what was received: by protocol, and one PostgreSQL message.
 * All in one would be more instructions than a program may have.
 */
#define STEP_MESSAGE 0

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

/* The two layouts of all events of the group syscalls (include/trace/events/syscalls.h). */
struct enter {
	__u64 common;
	__u64 number;
	__u64 args[6];
};

struct leave {
	__u64 common;
	__u64 number;
	__s64 result;
};

static __always_inline __u64 connection_key(__u32 fd)
{
	return (bpf_get_current_pid_tgid() >> 32 << 32) | fd;
}

static __always_inline struct call *this_call(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&calls, &thread);
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

static __always_inline void note_call(const struct server *server, __u32 fd, __u64 buffer,
				      __u64 size, __u8 kind)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *old = bpf_map_lookup_elem(&calls, &thread);
	struct call new = {
		.buffer = buffer,
		.left = size,
		.fd = fd,
		.server = *server,
		.kind = kind,
	};

	if (old)
		*old = new;
	else if (bpf_map_update_elem(&calls, &thread, &new, BPF_ANY))
		count_loss(LOSS_CALLS_FULL);
}

/*
 * enter_receive and enter_send: with known set, only descriptors that are known
 * to be accepted sockets are followed, for read and write are for files too.
 */
static __always_inline int enter_receive(__u32 fd, __u64 buffer, __u64 size, int known)
{
	struct server *server = watched_server();
	__u64 key = connection_key(fd);
	struct connection *c;

	if (!server)
		return 0;
	c = bpf_map_lookup_elem(&connections, &key);
	if (c && c->slot != server->slot)
		c = NULL;
	if (c && (c->flags & CONN_IGNORED))
		return 0;
	if ((known || server->protocol == QUERY_REDIS) && !(c && (c->flags & CONN_SERVER)))
		return 0;
	if (c)
		receiving(c);
	note_call(server, fd, buffer, size, CALL_RECEIVE);
	return 0;
}

static __always_inline int enter_send(__u32 fd, __u64 buffer, __u64 size)
{
	struct server *server = watched_server();
	__u64 key = connection_key(fd);
	struct connection *c = server ? bpf_map_lookup_elem(&connections, &key) : NULL;

	/* Nothing is being answered on a descriptor that nothing was received on. */
	if (c && c->phase != PHASE_IDLE)
		note_call(server, fd, buffer, size, CALL_SEND);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_recvfrom")
int on_recv_enter(struct enter *ctx)
{
	if (ctx->args[3] & MSG_PEEK)
		return 0;
	return enter_receive(ctx->args[0], ctx->args[1], ctx->args[2], 0);
}

SEC("tracepoint/syscalls/sys_enter_read")
int on_read_enter(struct enter *ctx)
{
	return enter_receive(ctx->args[0], ctx->args[1], ctx->args[2], 1);
}

/* After recvfrom and read. */
SEC("tracepoint/syscalls/sys_exit_recvfrom")
int on_recv_exit(struct leave *ctx)
{
	struct call *call = this_call();
	struct connection *c;
	__u64 key;

	if (!call || call->kind != CALL_RECEIVE)
		return 0;
	call->kind = CALL_NONE;
	if (ctx->result <= 0)
		return 0;
	call->left = ctx->result;
	key = connection_key(call->fd);
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c || c->slot != call->server.slot) {
		set_connection(call->fd, &call->server, 0);
		c = bpf_map_lookup_elem(&connections, &key);
		if (!c)
			return 0;
	}
	if (received(c, call->buffer, call->left))
		bpf_tail_call(ctx, &steps, c->protocol);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_recvfrom")
int on_mysql(void *ctx __attribute__((unused)))
{
	struct call *call = this_call();
	__u64 key = connection_key(call ? call->fd : 0);
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (call && c)
		mysql_read(c, key, call->buffer, call->left);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_recvfrom")
int on_redis(void *ctx __attribute__((unused)))
{
	struct call *call = this_call();
	__u64 key = connection_key(call ? call->fd : 0);
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (call && c)
		redis_begin(c, call->buffer, call->left);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_recvfrom")
int on_postgres(struct leave *ctx)
{
	struct call *call = this_call();
	__u64 key = connection_key(call ? call->fd : 0);
	struct connection *c = bpf_map_lookup_elem(&connections, &key);

	if (call && c && pg_read(c, &call->buffer, &call->left))
		bpf_tail_call(ctx, &steps, STEP_MESSAGE);
	return 0;
}

/* One PostgreSQL message, and then itself for the next. */
SEC("tracepoint/syscalls/sys_exit_recvfrom")
int on_message(struct leave *ctx)
{
	struct call *call = this_call();
	__u64 key = connection_key(call ? call->fd : 0);
	struct connection *c = bpf_map_lookup_elem(&connections, &key);
	__u64 took;

	if (!call || !c)
		return 0;
	took = pg_message(c, key, call->buffer, call->left);
	if (!took || took >= call->left)
		return 0;
	call->buffer += took;
	call->left -= took;
	bpf_tail_call(ctx, &steps, STEP_MESSAGE);
	/* Refused after some 30 of them (MAX_TAIL_CALL_CNT). */
	c->flags |= CONN_LOST;
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_sendto")
int on_send_enter(struct enter *ctx)
{
	return enter_send(ctx->args[0], ctx->args[1], ctx->args[2]);
}

SEC("tracepoint/syscalls/sys_enter_writev")
int on_writev_enter(struct enter *ctx)
{
	__u64 piece[2] = {}; /* the first struct iovec */

	if (!ctx->args[2] || !query_read(piece, sizeof(piece), ctx->args[1]))
		return 0;
	return enter_send(ctx->args[0], piece[0], piece[1]);
}

/* After sendto, write and writev. */
SEC("tracepoint/syscalls/sys_exit_sendto")
int on_send_exit(struct leave *ctx)
{
	struct call *call = this_call();
	struct connection *c;
	__u64 key;

	if (!call || call->kind != CALL_SEND)
		return 0;
	call->kind = CALL_NONE;
	if (ctx->result <= 0)
		return 0;
	key = connection_key(call->fd);
	c = bpf_map_lookup_elem(&connections, &key);
	if (c)
		sent(c, key, call->buffer, call->left, ctx->result);
	return 0;
}

/* A process that connects is the client on that descriptor. */
SEC("tracepoint/syscalls/sys_enter_connect")
int on_connect(struct enter *ctx)
{
	struct server *server = watched_server();

	if (server)
		set_connection(ctx->args[0], server, CONN_IGNORED);
	return 0;
}

/* What is accepted from a listener on a port of no interest is of none either. */
SEC("tracepoint/syscalls/sys_enter_bind")
int on_bind(struct enter *ctx)
{
	struct server *server = watched_server();
	__u16 address[2] = {}; /* family; port for the two internet ones */
	__u16 flags = 0;

	if (!server || !query_read(address, sizeof(address), ctx->args[1]))
		return 0;
	if ((address[0] == AF_INET || address[0] == AF_INET6) &&
	    !watched_port(server->slot, bpf_ntohs(address[1])))
		flags = CONN_IGNORED;
	set_connection(ctx->args[0], server, flags);
	return 0;
}

/* Before accept and accept4. */
SEC("tracepoint/syscalls/sys_enter_accept4")
int on_accept(struct enter *ctx)
{
	struct server *server = watched_server();

	if (server)
		note_call(server, ctx->args[0], 0, 0, CALL_ACCEPT);
	return 0;
}

/* After accept and accept4. */
SEC("tracepoint/syscalls/sys_exit_accept4")
int on_accepted(struct leave *ctx)
{
	struct call *call = this_call();
	struct connection *listener;
	__u64 key;

	if (!call || call->kind != CALL_ACCEPT)
		return 0;
	call->kind = CALL_NONE;
	if (ctx->result < 0)
		return 0;
	key = connection_key(call->fd);
	listener = bpf_map_lookup_elem(&connections, &key);
	set_connection(ctx->result, &call->server,
		       listener && (listener->flags & CONN_IGNORED) ? CONN_IGNORED : CONN_SERVER);
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
	__u64 thread = bpf_get_current_pid_tgid();
	__u32 pid = thread;

	bpf_map_delete_elem(&calls, &thread);
	bpf_map_delete_elem(&pids, &pid);
	return 0;
}
