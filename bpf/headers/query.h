/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query.h: what the two statement timers share: the structures, the maps, the
 * choice of processes and the histogram. The protocols are in query_postgres.h,
 * query_mysql.h and query_redis.h, the state machine in query_flow.h.
 *
 * Everything here must stay within what Linux 4.19 can load when it is built
 * with QUERY_LEGACY: no loop that is not unrolled, no global variable, no
 * helper and no map type younger than that.
 *
 * Before including it a program file defines
 *   query_read(dst, size, address)      copy user memory, 0 when it could
 *   query_read_string(dst, size, address)  the same up to a NUL; bytes with it
 */

#ifndef MOORING_QUERY_H
#define MOORING_QUERY_H

#ifndef NULL
#define NULL ((void *)0)
#endif

/* Engines. The numbers are those of Protocol in query.go. */
enum query_protocol {
	QUERY_POSTGRES = 1,
	QUERY_MYSQL = 2,
	QUERY_REDIS = 3,
};

/* What a statement is. The numbers are those of operationNames in query_operations.go. */
enum query_operation {
	QUERY_OTHER,
	QUERY_SELECT,
	QUERY_INSERT,
	QUERY_UPDATE,
	QUERY_DELETE,
	QUERY_REPLACE,
	QUERY_CALL,
	QUERY_DDL,
	QUERY_TXN,
	QUERY_SET,
	QUERY_SHOW,
	QUERY_COPY,
	QUERY_PREPARE,
	QUERY_FETCH,
	QUERY_PING,
	QUERY_ADMIN,
	QUERY_AUTH,
	QUERY_TLS,
	QUERY_READ,
	QUERY_WRITE,
	QUERY_OPERATIONS, /* how many */
};

/* Why something was not counted as it should be. Names: lossNames in query_read.go. */
enum query_loss {
	LOSS_CONNECTIONS_FULL,
	LOSS_OPERATIONS_FULL,
	LOSS_PIDS_FULL,
	LOSS_UNRESOLVED, /* execution of a statement prepared before we looked */
	LOSS_UNREADABLE, /* the user memory of a message was not resident */
	LOSS_TLS_UNSEEN, /* MySQL TLS runs over read and write, which are not hooked */
	LOSSES,
};

enum query_phase {
	PHASE_IDLE,
	PHASE_REQUEST, /* the first byte of a request has been received */
	PHASE_REPLY,   /* and the first byte of the reply sent */
};

/* Members of connection.flags. Those of KEEP outlive a request. */
#define CONN_IGNORED 0x0001 /* client side, or a stream without statements */
#define CONN_SERVER 0x0002  /* known to be accepted from a watched listener */
#define CONN_KEEP (CONN_IGNORED | CONN_SERVER)
#define CONN_OPEN 0x0010      /* what the client sends next belongs to this request */
#define CONN_HEADER 0x0020    /* MySQL: only the packet header has been received */
#define CONN_CANDIDATE 0x0040 /* PostgreSQL: a Parse or Bind gave the operation;
				 MySQL: the reply carries a statement number */
#define CONN_EXECUTED 0x0080  /* PostgreSQL: an Execute belongs to the request */
#define CONN_DIRECT 0x0100    /* operation is final, whatever else the request holds */
#define CONN_SYNCED 0x0200    /* PostgreSQL: the request's Query or Sync was seen */
#define CONN_SEVERAL 0x0400   /* PostgreSQL: and something after it */
#define CONN_LOST 0x0800      /* PostgreSQL: no longer known where messages begin */
#define CONN_ROWS 0x1000      /* PostgreSQL: the reply began with rows */

struct connection {
	__u64 started; /* return of the receive that began the request, ns */
	__u64 sent;    /* return of the last send, ns */
	__u64 buffer;  /* user address of what the call in progress has to be read */
	__u64 socket;  /* inode number, tracepoints of sockets only */
	__u32 extent;  /* bytes there in one piece */
	__u32 skip;    /* PostgreSQL: bytes of the current message still to come */
	__u32 slot;
	__u16 flags;
	__u8 protocol;
	__u8 phase;
	__u8 operation;
	__u8 prepared; /* operation of the last PREPARE, or of the unnamed Parse */
	__u8 error;
	__u8 last[2]; /* PostgreSQL: what the last send ended in */
	__u8 _pad[3];
};
_Static_assert(sizeof(struct connection) == 56, "connection crosses to Go");

/* server is one watched server, found by cgroup or by process. */
struct server {
	__u32 slot; /* never reused while the programs are loaded */
	__u8 protocol;
	__u8 _pad[3];
};
_Static_assert(sizeof(struct server) == 8, "server crosses to Go");

struct port_key {
	__u32 slot;
	__u16 port; /* host byte order */
	__u16 _pad;
};
_Static_assert(sizeof(struct port_key) == 8, "port_key crosses to Go");

struct operation_key {
	__u32 slot;
	__u8 operation;
	__u8 error;
	__u16 _pad;
};
_Static_assert(sizeof(struct operation_key) == 8, "operation_key crosses to Go");

struct prepared_key {
	__u64 connection;
	__u64 statement; /* MySQL: number; PostgreSQL: hash of the name */
};
_Static_assert(sizeof(struct prepared_key) == 16, "prepared_key crosses to Go");

#define CLASSIC_BUCKETS 17
#define NATIVE_LOWEST (-160) /* schema 3 index of the first: up to 2^-20 s */
#define NATIVE_BUCKETS 218   /* the last is index 57, above 128 s */

/*
 * The agent gets a copy made from the first member to the last while statements
 * are counted from the last member to the first. So a copy whose two counts
 * agree is whole, but for a sum that may know of one statement more.
 */
struct histogram {
	__u64 classic[CLASSIC_BUCKETS];
	__u64 native[NATIVE_BUCKETS];
	__u64 sum; /* ns */
};
_Static_assert(sizeof(struct histogram) == 8 * (1 + CLASSIC_BUCKETS + NATIVE_BUCKETS),
	       "histogram crosses to Go");

/* query_settings.follow: what is in use at all, of the ways of choosing processes. */
#define FOLLOW_CGROUPS 1
#define FOLLOW_PIDS 2
#define FOLLOW_READS 4 /* read and write too, legacy only */

struct query_settings {
	__u32 follow;
	__u32 child_pid; /* offset in the event sched_process_fork, legacy only */
	__u64 ports;     /* bit p % 64 is set for each watched port p */
};
_Static_assert(sizeof(struct query_settings) == 16, "query_settings crosses to Go");

/*
 * An array map and not a global: it changes while we run, and the legacy
 * programs cannot have globals.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct query_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64); /* cgroup v2 id */
	__type(value, struct server);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32); /* process; also threads, which are never looked up */
	__type(value, struct server);
} pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct port_key);
	__type(value, __u8);
} ports SEC(".maps");

/* Keyed by socket (trampolines) or by process and descriptor (tracepoints). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct connection);
} connections SEC(".maps");

/*
 * LRU, because clients prepare without ever closing: an evicted name costs the
 * operation of its next executions ("other", counted as unresolved), not their
 * time.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct prepared_key);
	__type(value, __u8);
} prepared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct operation_key);
	__type(value, struct histogram);
} operations SEC(".maps");

/* A histogram does not fit on the stack: this is what new ones are copied from. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct histogram);
} blank SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

static __always_inline void count_loss(__u32 why)
{
	__u64 *n = bpf_map_lookup_elem(&losses, &why);

	if (n)
		*n += 1;
}

/* server_by finds the server that the current process belongs to. */
static __always_inline struct server *server_by(const struct query_settings *set)
{
	struct server *found;

	if (set->follow & FOLLOW_CGROUPS) {
		__u64 cgroup = bpf_get_current_cgroup_id();

		found = bpf_map_lookup_elem(&cgroups, &cgroup);
		if (found)
			return found;
	}
	if (set->follow & FOLLOW_PIDS) {
		__u32 tgid = bpf_get_current_pid_tgid() >> 32;

		return bpf_map_lookup_elem(&pids, &tgid);
	}
	return NULL;
}

static __always_inline struct server *watched_server(void)
{
	__u32 zero = 0;
	struct query_settings *set = bpf_map_lookup_elem(&settings, &zero);

	return set ? server_by(set) : NULL;
}

static __always_inline int watched_port(__u32 slot, __u16 port)
{
	struct port_key key = {.slot = slot, .port = port};

	return bpf_map_lookup_elem(&ports, &key) != NULL;
}

/* follow_child watches a new process of a watched one. Current is the parent. */
static __always_inline void follow_child(__u32 child)
{
	__u32 zero = 0, tgid = bpf_get_current_pid_tgid() >> 32;
	struct query_settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct server *parent;

	if (!set || !(set->follow & FOLLOW_PIDS))
		return;
	parent = bpf_map_lookup_elem(&pids, &tgid);
	if (parent && bpf_map_update_elem(&pids, &child, parent, BPF_ANY))
		count_loss(LOSS_PIDS_FULL);
}

#endif
