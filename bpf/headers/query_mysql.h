/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * query_mysql.h: the MySQL and MariaDB client/server protocol as far as the
 * timer must know it. A packet is three bytes of length, one of sequence, and a
 * payload; a command is a packet of sequence 0 whose payload begins with the
 * command's number. Of a login no byte is read behind the packet header.
 */

#ifndef MOORING_QUERY_MYSQL_H
#define MOORING_QUERY_MYSQL_H

#include "query_postgres.h"
#include "query_text.h"

enum mysql_command {
	COM_QUIT = 0x01,
	COM_INIT_DB = 0x02,
	COM_QUERY = 0x03,
	COM_FIELD_LIST = 0x04,
	COM_CREATE_DB = 0x05,
	COM_DROP_DB = 0x06,
	COM_REFRESH = 0x07,
	COM_SHUTDOWN = 0x08,
	COM_STATISTICS = 0x09,
	COM_PROCESS_INFO = 0x0a,
	COM_PROCESS_KILL = 0x0c,
	COM_DEBUG = 0x0d,
	COM_PING = 0x0e,
	COM_CHANGE_USER = 0x11,
	COM_BINLOG_DUMP = 0x12,
	COM_TABLE_DUMP = 0x13,
	COM_REGISTER_SLAVE = 0x15,
	COM_STMT_PREPARE = 0x16,
	COM_STMT_EXECUTE = 0x17,
	COM_STMT_SEND_LONG_DATA = 0x18,
	COM_STMT_CLOSE = 0x19,
	COM_STMT_RESET = 0x1a,
	COM_SET_OPTION = 0x1b,
	COM_STMT_FETCH = 0x1c,
	COM_BINLOG_DUMP_GTID = 0x1e,
	COM_RESET_CONNECTION = 0x1f,
	COM_STMT_BULK_EXECUTE = 0xfa, /* MariaDB */
};

/* MariaDB: the statement prepared last, its number not being known yet. */
#define MYSQL_LAST_STATEMENT 0xffffffffU

/* The request that asks for TLS: 32 bytes, where a login has more. */
#define MYSQL_SSL_REQUEST 32

static __always_inline __u32 little_endian(const __u8 *b)
{
	return (__u32)b[3] << 24 | (__u32)b[2] << 16 | (__u32)b[1] << 8 | b[0];
}

static __always_inline int mysql_unanswered(__u8 command)
{
	return command == COM_QUIT || command == COM_STMT_CLOSE ||
	       command == COM_STMT_SEND_LONG_DATA;
}

/* mysql_executed finds the operation of a prepared statement by its number. */
static __always_inline __u8 mysql_executed(struct connection *c, __u64 key, __u32 number)
{
	struct prepared_key stmt = {.connection = key, .statement = number};
	__u8 *operation;

	if (number == MYSQL_LAST_STATEMENT)
		return c->prepared;
	operation = bpf_map_lookup_elem(&prepared, &stmt);
	if (operation)
		return *operation;
	count_loss(LOSS_UNRESOLVED);
	return QUERY_OTHER;
}

/* mysql_simple tells the operation of the commands that need no second look. */
static __always_inline __u8 mysql_simple(__u8 command)
{
	switch (command) {
	case COM_INIT_DB:
	case COM_SET_OPTION:
	case COM_RESET_CONNECTION:
		return QUERY_SET;
	case COM_FIELD_LIST:
	case COM_PROCESS_INFO:
		return QUERY_SHOW;
	case COM_CREATE_DB:
	case COM_DROP_DB:
		return QUERY_DDL;
	case COM_PING:
		return QUERY_PING;
	case COM_STMT_FETCH:
		return QUERY_FETCH;
	case COM_STMT_RESET:
		return QUERY_PREPARE;
	case COM_CHANGE_USER:
		return QUERY_AUTH;
	case COM_REFRESH:
	case COM_SHUTDOWN:
	case COM_STATISTICS:
	case COM_PROCESS_KILL:
	case COM_DEBUG:
	case COM_REGISTER_SLAVE:
		return QUERY_ADMIN;
	}
	return QUERY_OTHER;
}

/* mysql_command takes a command whose first n bytes stand at address at. */
static __always_inline void mysql_command(struct connection *c, __u64 key, __u64 at, __u64 n)
{
	__u8 head[8] = {};
	__u64 text = at + 1;

	c->phase = PHASE_IDLE;
	c->flags &= ~CONN_HEADER;
	if (!n || !query_read(head, n < 8 ? n : 8, at)) {
		count_loss(LOSS_UNREADABLE);
		return;
	}
	if (mysql_unanswered(head[0]))
		return;
	c->phase = PHASE_REQUEST;
	switch (head[0]) {
	case COM_QUERY:
	case COM_STMT_PREPARE:
		/* Query attributes: no parameters, in one set, then the text. */
		if (head[0] == COM_QUERY && head[1] == 0 && head[2] == 1)
			text += 2;
		c->operation = sql_operation(text, at + n);
		if (head[0] == COM_STMT_PREPARE) {
			c->prepared = c->operation;
			c->operation = QUERY_PREPARE;
			c->flags |= CONN_CANDIDATE;
		}
		return;
	case COM_STMT_EXECUTE:
	case COM_STMT_BULK_EXECUTE:
		c->operation = mysql_executed(c, key, little_endian(head + 1));
		return;
	case COM_BINLOG_DUMP:
	case COM_BINLOG_DUMP_GTID:
	case COM_TABLE_DUMP:
		c->flags |= CONN_IGNORED;
		c->phase = PHASE_IDLE;
		return;
	}
	c->operation = mysql_simple(head[0]);
}

/* mysql_login takes the first packet of a login, or TLS in its place. */
static __always_inline void mysql_login(struct connection *c, const __u8 *head)
{
	begin_login(c);
	if (head[3] != 1 || (little_endian(head) & 0xffffff) != MYSQL_SSL_REQUEST) {
		/* Whether more is to come is told by the reply. */
		c->flags &= ~CONN_OPEN;
		return;
	}
#ifdef QUERY_LEGACY
	count_loss(LOSS_TLS_UNSEEN);
	c->flags |= CONN_IGNORED;
#endif
}

/*
 * mysql_begin looks at what the first *n bytes of a request are. It returns
 * whether they hold a command, and moves *at and *n on to it.
 */
static __always_inline int mysql_begin(struct connection *c, __u64 *at, __u64 *n)
{
	__u8 head[8] = {};
	__u64 size;

	if (*n < 4 || !query_read(head, *n < 8 ? *n : 8, *at))
		return 0;
	if (tls_record(head, 0x17)) {
		begin_tls(c);
		return 0;
	}
	if (tls_handshake(head)) {
		begin_login(c);
		return 0;
	}
	if (head[3]) {
		mysql_login(c, head);
		return 0;
	}
	if (*n == 4) {
		c->flags |= CONN_HEADER;
		c->phase = PHASE_REQUEST;
		return 0;
	}
	/* A server that reads ahead may get commands without a reply before one with. */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		size = 4 + (little_endian(head) & 0xffffff);
		if (!mysql_unanswered(head[4]) || size + 5 > *n)
			break;
		*at += size;
		*n -= size;
		if (!query_read(head, 5, *at))
			break;
	}
	*at += 4;
	*n -= 4;
	return 1;
}

/* mysql_read reads n received bytes of a request. */
static __always_inline void mysql_read(struct connection *c, __u64 key, __u64 at, __u64 n)
{
	if ((c->flags & CONN_HEADER) || mysql_begin(c, &at, &n))
		mysql_command(c, key, at, n);
}

/* mysql_reply looks at the first packet of what is sent. */
static __always_inline void mysql_reply(struct connection *c, __u64 key, __u64 at, __u64 n,
					int first)
{
	__u8 head[12] = {};

	if (!(first || c->operation == QUERY_AUTH) || c->operation == QUERY_TLS)
		return;
	if (n < 5 || !query_read(head, n < 9 ? n : 9, at))
		return;
	if (c->operation == QUERY_AUTH) {
		/* 0xfe: another method; 1: more data, but "1 3" is the fast way's yes. */
		if (tls_record(head, 0x16) || tls_record(head, 0x14) || tls_record(head, 0x17))
			return;
		c->flags &= ~CONN_OPEN;
		if (head[4] == 0xfe || (head[4] == 1 && head[5] != 3))
			c->flags |= CONN_OPEN;
	} else {
		c->flags &= ~CONN_OPEN;
		if (head[4] == 0xfb) /* LOAD DATA LOCAL: the client sends the file */
			c->flags |= CONN_OPEN;
	}
	if (head[4] == 0xff)
		c->error = 1;
	if ((c->flags & CONN_CANDIDATE) && head[4] == 0) {
		struct prepared_key stmt = {.connection = key, .statement = little_endian(head + 5)};

		bpf_map_update_elem(&prepared, &stmt, &c->prepared, BPF_ANY);
	}
}

#endif
