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
 *   query_read(dst, size, address)      copy user memory, not 0 when it could
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
	QUERY_MONGO = 4,
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
	/* What query_text.h tells of a text besides; both count as QUERY_TXN. */
	QUERY_COMMIT = 30,
	QUERY_ROLLBACK = 31,
};

/* Why something was not counted as it should be. Names: lossNames in query_read.go. */
enum query_loss {
	LOSS_CONNECTIONS_FULL,
	LOSS_OPERATIONS_FULL,
	LOSS_PIDS_FULL,
	LOSS_UNRESOLVED, /* execution of a statement prepared before we looked */
	LOSS_UNREADABLE, /* the user memory of a message was not resident */
	LOSS_TLS_UNSEEN, /* MySQL TLS runs over read and write, which are not hooked */
	LOSS_DIGESTS_FULL,
	LOSS_ERRORS_FULL,
	LOSS_TEXTS,     /* a text was not passed on: the ring was full */
	LOSS_RECORDS,   /* a finished statement was not: likewise */
	LOSS_SESSIONS,  /* a login or logout was not: likewise */
	LOSS_BUDGET,    /* a text or record was not: its server had its share */
	LOSS_ABORTED,   /* the connection closed before the reply was complete */
	LOSS_PREEMPTED, /* another program on this CPU took the scratch memory */
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
#define CONN_STREAM 0x0004  /* ignored, but its bytes count: replication, subscriptions */
#define CONN_COMPRESSED 0x0008 /* MySQL: the login agreed on compression */
#define CONN_KEEP (CONN_IGNORED | CONN_SERVER | CONN_STREAM | CONN_COMPRESSED)
#define CONN_OPEN 0x0010      /* what the client sends next belongs to this request */
#define CONN_HEADER 0x0020    /* only the header of the message has been received */
#define CONN_CANDIDATE 0x0040 /* PostgreSQL: a Parse or Bind gave the operation;
				 MySQL: the reply carries a statement number */
#define CONN_EXECUTED 0x0080  /* PostgreSQL: an Execute belongs to the request */
#define CONN_DIRECT 0x0100    /* operation is final, whatever else the request holds */
#define CONN_SYNCED 0x0200    /* PostgreSQL: the request's Query or Sync was seen */
#define CONN_SEVERAL 0x0400   /* PostgreSQL: and something after it */
#define CONN_LOST 0x0800      /* PostgreSQL: no longer known where messages begin */
#define CONN_ROWS 0x1000      /* PostgreSQL: the reply began with rows */
#define CONN_UNREAD 0x2000    /* there is a text and it was not read */
#define CONN_ROLLBACK 0x4000  /* a ROLLBACK */
#define CONN_COMMIT 0x8000    /* a COMMIT */

/* Digests that the kernel gives. The numbers are those of the Digest constants. */
#define DIGEST_NONE 1      /* a request without a text */
#define DIGEST_TLS 2       /* encrypted */
#define DIGEST_UNSAMPLED 3 /* the text is not known */

struct connection {
	__u64 started; /* return of the receive that began the request, ns */
	__u64 first;   /* return of the first send of its reply, ns */
	__u64 sent;    /* return of the last send, ns */
	__u64 stalled; /* since when the client has taken no more of the reply; or 0 */
	__u64 blocked; /* ns for which that was so */
	__u64 buffer;  /* user address of what the call in progress has to be read */
	__u64 socket;  /* inode number, tracepoints of sockets only */
	__u64 text;    /* hash of the request's text; 0 where there is none */
	__u64 prepared_text; /* hash of the text prepared last, or by the unnamed Parse */
	__u64 transaction;   /* start of the request that opened one, ns; or 0 */
	__u64 in;            /* bytes of the request */
	__u64 out;           /* and of the reply */
	__u64 rows;
	__u64 code;       /* of the error: characters, or a number with CODE_NUMBER */
	__u32 digest;     /* of the text, where it was known when it came */
	__u32 extent;     /* bytes at buffer in one piece */
	__u32 skip;       /* PostgreSQL: bytes of the current message still to come */
	__u32 slot;
	__u32 statements; /* of the request */
	__u32 flags;
	__u32 received_at; /* sequence numbers of TCP up to which seen and carried count */
	__u32 sent_at;
	__u64 seen;    /* bytes received and sent that were seen, not yet added to traffic */
	__u64 carried; /* the same by the socket's own count */
	__u8 protocol;
	__u8 phase;
	__u8 operation;
	__u8 prepared; /* operation of the last PREPARE, or of the unnamed Parse */
	__u8 error;
	__u8 last[2]; /* PostgreSQL: what the last send ended in */
	__u8 status;  /* transaction status after the reply: STATUS_... */
	__u8 address[16]; /* the client's, network byte order; not in legacy */
	__u16 port;	  /* and its port, host byte order */
	__u8 family;	  /* AF_INET or AF_INET6, 0 where there is no address */
	__u8 _pad[5];
};
_Static_assert(sizeof(struct connection) == 192, "connection crosses to Go");

#define CODE_NUMBER (1ULL << 63)

/* How a transaction ended. The numbers are those of outcomeNames in query_read.go. */
#define OUTCOME_UNKNOWN 0
#define OUTCOME_COMMIT 1
#define OUTCOME_ROLLBACK 2

#define STATUS_UNKNOWN 0
#define STATUS_IDLE 1
#define STATUS_OPEN 2
#define STATUS_FAILED 3 /* PostgreSQL: only a rollback is accepted */

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

/* prepared_value is what a prepared statement is. */
struct prepared_value {
	__u64 text; /* hash, 0 where it was not read */
	__u8 operation;
	__u8 _pad[7];
};
_Static_assert(sizeof(struct prepared_value) == 16, "prepared_value crosses to Go");

struct text_key {
	__u64 hash;
	__u32 slot;
	__u32 _pad;
};
_Static_assert(sizeof(struct text_key) == 16, "text_key crosses to Go");

struct digest_key {
	__u32 slot;
	__u32 digest;
};
_Static_assert(sizeof(struct digest_key) == 8, "digest_key crosses to Go");

struct error_key {
	__u64 code;
	__u32 slot;
	__u32 _pad;
};
_Static_assert(sizeof(struct error_key) == 16, "error_key crosses to Go");

#define CLASSIC_BUCKETS 17
#define NATIVE_LOWEST (-160) /* schema 3 index of the first: up to 2^-20 s */
#define NATIVE_BUCKETS 218   /* the last is index 57, above 128 s */
#define COARSE_LOWEST (-40)  /* the same ends in schema 1 */
#define COARSE_BUCKETS 56

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

/* distribution is a histogram of schema 1. */
struct distribution {
	__u64 coarse[COARSE_BUCKETS];
	__u64 sum; /* ns */
};

struct operation_value {
	struct histogram duration;
	struct distribution first; /* to the first byte of the reply */
	__u64 blocked;             /* ns */
	__u64 in;
	__u64 out;
	__u64 rows;
	__u64 statements;
};

struct digest_value {
	struct distribution duration;
	__u64 errors;
	__u64 rows;
};

/* rules is what the agent wants of one server; its place is slot % SERVERS. */
struct server_rules {
	__u64 slow; /* ns from which a statement is recorded; or 0 */
	__u32 slot;
	__u32 audit;  /* bit o is set: record statements of operation o */
	__u32 budget; /* texts and uncounted records a second */
	__u32 flags;  /* RULE_... */
};
_Static_assert(sizeof(struct server_rules) == 24, "rules crosses to Go");

#define RULE_NO_TEXT 1
#define RULE_SESSIONS 2

/* traffic counts what belongs to no operation. Its place is slot % SERVERS. */
struct server_traffic {
	__u64 stream_in;
	__u64 stream_out;
	__u64 seen; /* bytes, see connection */
	__u64 carried;
	__u64 slow;
	__u64 window; /* begin of the second that spent is of, ns */
	__u32 spent;
	__u32 slot;
};
_Static_assert(sizeof(struct server_traffic) == 56, "traffic crosses to Go");

#define SERVERS 1024

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
	__type(value, struct prepared_value);
} prepared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct operation_key);
	__type(value, struct operation_value);
} operations SEC(".maps");

/*
 * A value does not fit on the stack: this is what new ones are copied from, each
 * from as much of it as it has.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct operation_value);
} blank SEC(".maps");

/*
 * The digest of each text that the agent has told. LRU, because texts may hold
 * literals and then come once only; the agent tells again what is asked for again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct text_key);
	__type(value, __u32);
} texts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct digest_key);
	__type(value, struct digest_value);
} digests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct digest_key); /* digest is the outcome here */
	__type(value, struct distribution);
} transactions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct error_key);
	__type(value, __u64);
} errors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVERS);
	__type(key, __u32);
	__type(value, struct server_rules);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVERS);
	__type(key, __u32);
	__type(value, struct server_traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSSES);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

/*
 * query_read_most reads n bytes, at most as many as given. The value that the
 * kernel's helper gets is the one compared: the verifier knows no other by it.
 */
static __always_inline int query_read_most(void *dst, __u64 most, __u64 n, __u64 at)
{
	if (n > most)
		n = most;
	asm volatile("" : "+r"(n));
	return n <= most && query_read(dst, n, at);
}

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

static __always_inline struct server_rules *rules_of(__u32 slot)
{
	__u32 place = slot % SERVERS;

	return bpf_map_lookup_elem(&rules, &place);
}

static __always_inline struct server_traffic *traffic_of(__u32 slot)
{
	__u32 place = slot % SERVERS;

	return bpf_map_lookup_elem(&traffic, &place);
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
