/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * kernel_net.h: the members of the kernel's socket structures that our programs
 * read, and no others. The loader finds their real offsets in the BTF of the
 * running kernel, so order and size here mean nothing; names and types do.
 */

#ifndef MOORING_KERNEL_NET_H
#define MOORING_KERNEL_NET_H

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/sched.h */
struct task_struct {
	int pid;
	int tgid;
};

/* include/net/sock.h */
struct in6_addr {
	__u8 in6_u[16];
};

struct sock_common {
	__u32 skc_daddr;
	__u16 skc_dport; /* network byte order */
	__u16 skc_family;
	__u16 skc_num; /* local port, host byte order */
	struct in6_addr skc_v6_daddr;
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
};

/* include/linux/tcp.h: what was handed to the reader, and what the writer gave. */
struct tcp_sock {
	__u32 copied_seq;
	__u32 write_seq;
};

/* include/linux/fs.h */
struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

/* include/linux/net.h */
struct socket {
	struct sock *sk;
	struct file *file;
};

/* include/net/af_unix.h: an accepted socket shares its listener's addr. */
struct unix_address;

struct unix_sock {
	struct unix_address *addr;
};

/* include/uapi/linux/uio.h */
struct iovec {
	void *iov_base;
	__u64 iov_len;
};

/*
 * include/linux/uio.h. The part after ___ is dropped by the loader: these are
 * the shapes one structure had over time.
 */
struct iov_iter {
	__u64 iov_offset;
	__u64 count;
};

struct iov_iter___v5_14 { /* 5.14: iter_type without the direction bit */
	__u8 iter_type;
};

struct iov_iter___v5_10 { /* until 5.13 */
	__u32 type;
};

struct iov_iter___ubuf { /* since 6.0 */
	void *ubuf;
};

struct iov_iter___iov { /* until 6.3 */
	const struct iovec *iov;
};

struct iov_iter___v6_4 {
	const struct iovec *__iov;
};

/* include/linux/socket.h */
struct msghdr {
	struct iov_iter msg_iter;
};

#pragma clang attribute pop
#pragma clang diagnostic pop

/* include/linux/uio.h: the numbers change between kernels, the names do not. */
enum iter_type___any {
	ITER_IOVEC = 0,
	ITER_UBUF = 1,
};

/* include/linux/socket.h */
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define MSG_PEEK 2

/* include/uapi/asm-generic/errno-base.h */
#define EAGAIN 11

#endif
