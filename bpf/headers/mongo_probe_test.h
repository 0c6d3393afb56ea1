/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * mongo_probe_test.h: what query_mongo.h needs of a timer, in its least form. It
 * stands in place of query.h, query_postgres.h and query_mysql.h.
 */

#ifndef MOORING_MONGO_PROBE_TEST_H
#define MOORING_MONGO_PROBE_TEST_H
#define MOORING_QUERY_H
#define MOORING_QUERY_POSTGRES_H
#define MOORING_QUERY_MYSQL_H

/* The numbers are those of query.h. */
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
	QUERY_COMMIT = 30,
	QUERY_ROLLBACK = 31,
};

enum query_phase {
	PHASE_IDLE,
	PHASE_REQUEST,
	PHASE_REPLY,
};

#define CONN_KEEP 0x000f
#define CONN_OPEN 0x0010
#define CONN_HEADER 0x0020
#define CONN_EXECUTED 0x0080
#define CONN_DIRECT 0x0100
#define CONN_SYNCED 0x0200
#define CONN_LOST 0x0800
#define CONN_ROLLBACK 0x4000
#define CONN_COMMIT 0x8000
#define CODE_NUMBER (1ULL << 63)

struct connection {
	__u64 code;
	__u64 rows;
	__u64 unreadable;
	__u32 skip;
	__u32 statements;
	__u32 flags;
	__u8 phase;
	__u8 operation;
	__u8 error;
	__u8 _pad;
};

#define LOSS_UNREADABLE 0
#define count_loss(why) (c->unreadable++)

/* Texts are not looked at here. */
#define take_text(ctx, c, key, text, end, length, is_prepared) ((void)(ctx), (void)(key), 0)
#define set_text(c, hash) ((void)(hash))

static __always_inline int query_read_most(void *dst, __u64 most, __u64 n, __u64 at)
{
	if (n > most)
		n = most;
	asm volatile("" : "+r"(n));
	return n <= most && query_read(dst, n, at);
}

static __always_inline __u32 little_endian(const __u8 *b)
{
	return (__u32)b[3] << 24 | (__u32)b[2] << 16 | (__u32)b[1] << 8 | b[0];
}

static __always_inline int tls_record(const __u8 *b, __u8 type)
{
	return b[0] == type && b[1] == 3 && b[2] <= 4;
}

static __always_inline int tls_handshake(const __u8 *b)
{
	return tls_record(b, 0x14) || tls_record(b, 0x16);
}

static __always_inline void begin_login(struct connection *c)
{
	c->operation = QUERY_AUTH;
	c->flags |= CONN_DIRECT | CONN_OPEN;
	c->phase = PHASE_REQUEST;
}

static __always_inline void begin_tls(struct connection *c)
{
	c->operation = QUERY_TLS;
	c->flags |= CONN_DIRECT | CONN_LOST;
	c->phase = PHASE_REQUEST;
}

#endif
