/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_event.h: what the agent is told one by one: texts it does not know yet,
 * statements it wants to hear of, logins and logouts. What is lost here is
 * counted and costs no count of statements.
 */

#ifndef MOORING_QUERY_EVENT_H
#define MOORING_QUERY_EVENT_H

#include "query.h"

enum event_kind {
	EVENT_TEXT = 1,
	EVENT_RECORD,
	EVENT_SESSION,
};

/* record_event.why */
#define RECORD_UNCOUNTED 1 /* its text's digest is not known: the agent counts it */
#define RECORD_SLOW 2
#define RECORD_FAILED 4
#define RECORD_AUDITED 8

enum session_kind {
	SESSION_HELLO = 1, /* who logs in */
	SESSION_LOGIN,	   /* accepted, or refused: error */
	SESSION_LOGOUT,
};

struct event_head {
	__u64 connection;
	__u64 at; /* CLOCK_MONOTONIC, ns */
	__u32 slot;
	__u8 kind;
	__u8 operation;
	__u8 error;
	__u8 detail; /* record: why; session: its kind; text: whether prepared */
	__u8 address[16]; /* of the client, network byte order */
	__u16 port;	  /* host byte order; 0 where the client is not known */
	__u8 family;	  /* AF_INET or AF_INET6 */
	__u8 protocol;
	__u32 _pad;
};
_Static_assert(sizeof(struct event_head) == 48, "event_head crosses to Go");

#ifdef QUERY_LEGACY
#define TEXT_MAX 256
#else
#define TEXT_MAX 512
#endif

struct text_event {
	struct event_head head;
	__u64 hash;
	__u64 owner; /* who is at work in this memory; see scratch */
	__u32 length; /* of the text in the message */
	__u32 size;   /* of what follows */
	__u8 text[TEXT_MAX + 8]; /* the last eight stay zero */
};

struct record_event {
	struct event_head head;
	__u64 hash;
	__u64 duration; /* ns, likewise the next two */
	__u64 first;
	__u64 blocked;
	__u64 in;
	__u64 out;
	__u64 rows;
	__u64 code;
	__u32 digest;
	__u32 statements;
};
_Static_assert(sizeof(struct record_event) == 120, "record_event crosses to Go");

/* session_end is a session_event without names. */
struct session_end {
	struct event_head head;
	__u64 code;
};

#define SESSION_NAME 64

struct session_event {
	struct event_head head;
	__u64 code;
	__u8 names[2 * SESSION_NAME]; /* user, database; PostgreSQL: the start of the startup message */
};
_Static_assert(sizeof(struct session_event) == 184, "session_event crosses to Go");

/*
 * A HELLO is too large for the stack of programs that call others, so where there
 * is a ring it is made in the ring itself.
 */
#ifdef QUERY_LEGACY
#define hello_open(name)                            \
	struct session_event name##_memory = {};    \
	struct session_event *name = &name##_memory
#define hello_send(ctx, name) event_output(ctx, name, sizeof(*(name)))
#define hello_drop(name)
#else
#define hello_open(name) \
	struct session_event *name = bpf_ringbuf_reserve(&events, sizeof(*name), 0)
#define hello_send(ctx, name) ((void)(ctx), bpf_ringbuf_submit(name, 0), 0)
#define hello_drop(name) bpf_ringbuf_discard(name, 0)
#endif

#ifdef QUERY_LEGACY
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} events SEC(".maps");

#define event_output(ctx, event, size) \
	bpf_perf_event_output(ctx, &events, 0xffffffffULL /* BPF_F_CURRENT_CPU */, event, size)
#else
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} events SEC(".maps");

#define event_output(ctx, event, size) ((void)(ctx), bpf_ringbuf_output(&events, event, size, 0))
#endif

/*
 * Where a text is read to. A program may be preempted on some kernels and another
 * take its place on the CPU, so the owner is noted and looked at again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct text_event);
} scratch SEC(".maps");

static __always_inline void fill_head(struct event_head *head, const struct connection *c, __u64 key,
				      __u8 kind)
{
	head->connection = key;
	head->slot = c->slot;
	head->kind = kind;
	head->protocol = c->protocol;
	head->operation = c->operation;
	head->error = c->error;
	__builtin_memcpy(head->address, c->address, sizeof(head->address));
	head->port = c->port;
	head->family = c->family;
}

static __always_inline void begin_hello(struct session_event *e, const struct connection *c,
					__u64 key)
{
	__builtin_memset(e, 0, sizeof(*e));
	fill_head(&e->head, c, key, EVENT_SESSION);
	e->head.at = bpf_ktime_get_ns();
	e->head.detail = SESSION_HELLO;
}

/*
 * greet tells the agent who logs in: n bytes at address at, which begin with the
 * user and never hold anything of the authentication.
 */
static __always_inline void greet(void *ctx, const struct connection *c, __u64 key, __u64 at, __u64 n)
{
	hello_open(e);

	if (!e) {
		count_loss(LOSS_SESSIONS);
		return;
	}
	begin_hello(e, c, key);
	if (n > sizeof(e->names))
		n = sizeof(e->names);
	asm volatile("" : "+r"(n));
	if (n > sizeof(e->names) || !query_read(e->names, n, at)) {
		hello_drop(e);
		return;
	}
	if (hello_send(ctx, e))
		count_loss(LOSS_SESSIONS);
}

/* afford takes one event from the server's share of this second. */
static __always_inline int afford(__u32 slot, __u64 now)
{
	struct server_traffic *t = traffic_of(slot);
	struct server_rules *r = rules_of(slot);

	if (!t || !r)
		return 0;
	if (now - t->window >= 1000000000ULL) {
		t->window = now;
		t->spent = 0;
	}
	if (t->spent >= r->budget) {
		count_loss(LOSS_BUDGET);
		return 0;
	}
	t->spent++;
	return 1;
}

#endif
