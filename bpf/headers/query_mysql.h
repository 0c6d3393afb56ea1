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

/* mysql_executed finds what a prepared statement is by its number. */
static __always_inline void mysql_executed(struct connection *c, __u64 key, __u32 number)
{
	struct prepared_key stmt = {.connection = key, .statement = number};
	struct prepared_value *known;

	if (number == MYSQL_LAST_STATEMENT) {
		set_operation(c, c->prepared);
		set_text(c, c->prepared_text);
		return;
	}
	known = bpf_map_lookup_elem(&prepared, &stmt);
	if (!known) {
		count_loss(LOSS_UNRESOLVED);
		set_text(c, 0);
		return;
	}
	set_operation(c, known->operation);
	set_text(c, known->text);
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

/*
 * mysql_names tells the agent who logs in: the user's name stands at address at.
 * The answer to the challenge is behind it; of that no byte but its length is read,
 * for the database is behind that.
 */
static __always_inline void mysql_names(void *ctx, const struct connection *c, __u64 key, __u64 at,
					__u64 end, int database)
{
	__u8 length = 0;
	__s64 size;
	hello_open(e);

	if (!e) {
		count_loss(LOSS_SESSIONS);
		return;
	}
	begin_hello(e, c, key);
	size = at < end ? query_read_string(e->names, SESSION_NAME, at) : 0;
	if (size <= 0) {
		hello_drop(e);
		return;
	}
	at += size;
	if (database && size < SESSION_NAME && at < end && query_read(&length, 1, at) &&
	    length < 0xfb && at + 1 + length < end)
		query_read_string(e->names + SESSION_NAME, SESSION_NAME, at + 1 + length);
	if (hello_send(ctx, e))
		count_loss(LOSS_SESSIONS);
}

#define CLIENT_CONNECT_WITH_DB 0x00000008U
#define CLIENT_COMPRESS 0x00000020U
#define CLIENT_ZSTD 0x04000000U
#define MYSQL_NAMES 32 /* where the user's name stands in a login */

/* mysql_login_body reads n bytes of a login behind the packet's header. */
static __always_inline void mysql_login_body(void *ctx, struct connection *c, __u64 key, __u64 at,
					     __u64 n)
{
	__u8 head[4] = {};
	__u32 can;

	c->flags &= ~CONN_HEADER;
	if (n <= MYSQL_NAMES || !query_read(head, 4, at))
		return;
	can = little_endian(head);
	if (can & (CLIENT_COMPRESS | CLIENT_ZSTD))
		c->flags |= CONN_COMPRESSED;
	mysql_names(ctx, c, key, at + MYSQL_NAMES, at + n, can & CLIENT_CONNECT_WITH_DB);
}

/* mysql_text notes the operation and the text of a COM_QUERY or COM_STMT_PREPARE. */
static __always_inline void mysql_text(void *ctx, struct connection *c, __u64 key, __u64 text,
				       __u64 end, __u8 is_prepared)
{
	__u8 found = sql_operation(text, end);
	__u64 hash = take_text(ctx, c, key, text, end, c->skip, is_prepared);

	if (!is_prepared) {
		set_operation(c, found);
		set_text(c, hash);
		return;
	}
	c->prepared = found;
	c->prepared_text = hash;
	c->operation = QUERY_PREPARE;
	c->flags |= CONN_CANDIDATE;
}

/*
 * mysql_command takes a command whose first n bytes stand at address at. The
 * packet has c->skip bytes.
 */
static __always_inline void mysql_command(void *ctx, struct connection *c, __u64 key, __u64 at,
					  __u64 n)
{
	__u8 head[8] = {};
	__u64 text = at + 1;

	c->phase = PHASE_IDLE;
	c->flags &= ~CONN_HEADER;
	if (n > c->skip)
		n = c->skip; /* the next command is behind it */
	if (!n || !query_read_most(head, 8, n, at)) {
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
		mysql_text(ctx, c, key, text, at + n, head[0] == COM_STMT_PREPARE);
		return;
	case COM_STMT_EXECUTE:
	case COM_STMT_BULK_EXECUTE:
		mysql_executed(c, key, little_endian(head + 1));
		return;
	case COM_BINLOG_DUMP:
	case COM_BINLOG_DUMP_GTID:
	case COM_TABLE_DUMP:
		c->flags |= CONN_IGNORED | CONN_STREAM;
		c->phase = PHASE_IDLE;
		return;
	case COM_CHANGE_USER:
		begin_login(c);
		mysql_names(ctx, c, key, text, at + n, 1);
		return;
	}
	c->operation = mysql_simple(head[0]);
}

/* mysql_login takes the first packet of a login, or TLS in its place. */
static __always_inline void mysql_login(void *ctx, struct connection *c, __u64 key, const __u8 *head,
					__u64 at, __u64 n)
{
	begin_login(c);
	if (head[3] != 1 || c->skip != MYSQL_SSL_REQUEST) {
		/* Whether more is to come is told by the reply. */
		c->flags &= ~CONN_OPEN;
		if (head[3] != 1)
			return;
		if (n == 4)
			c->flags |= CONN_HEADER;
		else
			mysql_login_body(ctx, c, key, at + 4, n - 4);
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
static __always_inline int mysql_begin(void *ctx, struct connection *c, __u64 key, __u64 *at,
				       __u64 *n)
{
	__u8 head[8] = {};
	__u64 size;

	if (*n < 4 || !query_read_most(head, 8, *n, *at))
		return 0;
	if (tls_record(head, 0x17)) {
		begin_tls(c);
		return 0;
	}
	if (tls_handshake(head)) {
		begin_login(c);
		return 0;
	}
	if (c->flags & CONN_COMPRESSED) {
		c->phase = PHASE_REQUEST;
		set_text(c, 0);
		return 0;
	}
	c->skip = little_endian(head) & 0xffffff;
	if (head[3]) {
		mysql_login(ctx, c, key, head, *at, *n);
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
	c->skip = little_endian(head) & 0xffffff;
	*at += 4;
	*n -= 4;
	return 1;
}

/* mysql_read reads n received bytes of a request. */
static __always_inline void mysql_read(void *ctx, struct connection *c, __u64 key, __u64 at, __u64 n)
{
	if (!(c->flags & CONN_HEADER)) {
		if (!mysql_begin(ctx, c, key, &at, &n))
			return;
	} else if (c->operation == QUERY_AUTH) {
		mysql_login_body(ctx, c, key, at, n);
		return;
	}
	mysql_command(ctx, c, key, at, n);
}

/* mysql_number reads a length-encoded number and moves *at behind it. */
static __always_inline __u64 mysql_number(__u64 *at)
{
	__u64 word = 0;
	__u8 first = 0;

	if (!query_read(&first, 1, *at))
		return 0;
	*at += 1;
	if (first < 0xfb)
		return first;
	if (!query_read(&word, sizeof(word), *at))
		return 0;
	if (first == 0xfc) {
		*at += 2;
		return word & 0xffff;
	}
	if (first == 0xfd) {
		*at += 3;
		return word & 0xffffff;
	}
	*at += 8;
	return word;
}

#define SERVER_STATUS_IN_TRANS 1

static __always_inline void mysql_status(struct connection *c, __u8 low)
{
	c->status = low & SERVER_STATUS_IN_TRANS ? STATUS_OPEN : STATUS_IDLE;
}

/* mysql_ok reads an OK packet whose payload is at address at: rows affected, status. */
static __always_inline void mysql_ok(struct connection *c, __u64 at)
{
	__u8 status = 0;

	at += 1;
	c->rows = mysql_number(&at);
	mysql_number(&at); /* the last number given by AUTO_INCREMENT */
	if (query_read(&status, 1, at))
		mysql_status(c, status);
}

/*
 * mysql_end reads the status from the packet that ends a result and what is sent:
 * an EOF, or an OK without rows in its place.
 */
static __always_inline void mysql_end(struct connection *c, __u64 end)
{
	__u8 b[12] = {};

	if (!query_read(b, 11, end - 11))
		return;
	if (b[2] == 5 && !b[3] && !b[4] && b[6] == 0xfe)
		mysql_status(c, b[9]);
	else if (b[0] == 7 && !b[1] && !b[2] && (b[4] == 0xfe || !b[4]) && !b[5] && !b[6])
		mysql_status(c, b[7]);
}

/* mysql_refused takes the number of an ERR packet. */
static __always_inline void mysql_refused(struct connection *c, const __u8 *payload)
{
	c->error = 1;
	c->code = CODE_NUMBER | payload[1] | (__u64)payload[2] << 8;
}

/*
 * mysql_reply looks at the first packet of what is sent, and with whole, which
 * says that all of it is there, at the last.
 */
static __always_inline void mysql_reply(struct connection *c, __u64 key, __u64 at, __u64 n,
					int first, int whole)
{
	__u8 head[12] = {};

	if ((c->flags & CONN_COMPRESSED) && c->operation != QUERY_AUTH) {
		c->flags &= ~CONN_OPEN;
		return;
	}
	if (!(first || c->operation == QUERY_AUTH)) {
		if (whole && n >= 11)
			mysql_end(c, at + n);
		return;
	}
	if (n < 5 || !query_read_most(head, 9, n, at))
		return;
	if (c->operation == QUERY_AUTH) {
		/* 0xfe: another method; 1: more data, but "1 3" is the fast way's yes. */
		if (tls_record(head, 0x16) || tls_record(head, 0x14) || tls_record(head, 0x17))
			return;
		c->flags &= ~CONN_OPEN;
		if (head[4] == 0xfe || (head[4] == 1 && head[5] != 3))
			c->flags |= CONN_OPEN;
		if (head[4] == 0xff)
			mysql_refused(c, head + 4);
		return;
	}
	/* MariaDB tells of its progress in an error with a number that is none. */
	if (head[4] == 0xff && head[5] == 0xff && head[6] == 0xff) {
		c->phase = PHASE_REQUEST;
		return;
	}
	c->flags &= ~CONN_OPEN;
	if (head[4] == 0xfb) /* LOAD DATA LOCAL: the client sends the file */
		c->flags |= CONN_OPEN;
	if (head[4] == 0xff) {
		mysql_refused(c, head + 4);
	} else if (head[4] != 0) {
		if (whole && n >= 11)
			mysql_end(c, at + n);
	} else if (!(c->flags & CONN_CANDIDATE)) {
		mysql_ok(c, at + 4);
	} else {
		struct prepared_key stmt = {.connection = key, .statement = little_endian(head + 5)};
		struct prepared_value value = {
			.text = c->prepared_text,
			.operation = c->prepared,
		};

		bpf_map_update_elem(&prepared, &stmt, &value, BPF_ANY);
	}
}

#endif
