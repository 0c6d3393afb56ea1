/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * kernel_syscall.h: what a system call was asked, read when it returns from the
 * user's registers that the kernel saved. It did not change them, but for the
 * one of the result. They are a stable interface (struct pt_regs and
 * user_pt_regs in arch/.../include/uapi/asm/ptrace.h), so no BTF is needed.
 */

#ifndef MOORING_KERNEL_SYSCALL_H
#define MOORING_KERNEL_SYSCALL_H

struct arguments {
	__u64 first;
	__u64 second;
	__u64 third;
	__u64 fourth;
};

static __always_inline int kernel_read(void *dst, __u32 size, __u64 at)
{
	return bpf_probe_read(dst, size, (const void *)at) == 0;
}

#if defined(__TARGET_ARCH_x86)

/* arch/x86/entry/syscalls/syscall_64.tbl */
#define NR_READ 0
#define NR_WRITE 1
#define NR_READV 19
#define NR_WRITEV 20
#define NR_CONNECT 42
#define NR_ACCEPT 43
#define NR_SENDTO 44
#define NR_RECVFROM 45
#define NR_SENDMSG 46
#define NR_RECVMSG 47
#define NR_BIND 49
#define NR_ACCEPT4 288

#define SAVED_AT 56 /* of r10 in struct pt_regs */
#define NUMBER_AT 120
#define SELECTOR32 0x23 /* USER32_CS: a 32-bit task has other numbers */

/* saved is the part of struct pt_regs that is needed. */
struct saved {
	__u64 r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs;
};

static __always_inline __u64 syscall_number(__u64 regs)
{
	__u64 number = -1;

	kernel_read(&number, sizeof(number), regs + NUMBER_AT);
	return number;
}

/* regs_... read the registers through a pointer that the verifier knows. */
struct pt_regs {
	__u64 before[SAVED_AT / 8];
	struct saved saved;
};

static __always_inline __u64 regs_number(const struct pt_regs *regs)
{
	return regs->saved.orig_ax;
}

static __always_inline __u64 regs_first(const struct pt_regs *regs)
{
	return regs->saved.di;
}

static __always_inline __u64 regs_second(const struct pt_regs *regs)
{
	return regs->saved.si;
}

static __always_inline __u64 regs_third(const struct pt_regs *regs)
{
	return regs->saved.dx;
}

/* syscall_arguments returns 0 for what is not a call of this architecture. */
static __always_inline int syscall_arguments(struct arguments *args, __u64 regs)
{
	struct saved saved;

	if (!kernel_read(&saved, sizeof(saved), regs + SAVED_AT))
		return 0;
	args->first = saved.di;
	args->second = saved.si;
	args->third = saved.dx;
	args->fourth = saved.r10;
	return (saved.cs & 0xffff) != SELECTOR32;
}

#elif defined(__TARGET_ARCH_arm64)

/* include/uapi/asm-generic/unistd.h */
#define NR_READ 63
#define NR_WRITE 64
#define NR_READV 65
#define NR_WRITEV 66
#define NR_BIND 200
#define NR_ACCEPT 202
#define NR_CONNECT 203
#define NR_SENDTO 206
#define NR_RECVFROM 207
#define NR_SENDMSG 211
#define NR_RECVMSG 212
#define NR_ACCEPT4 242

#define SECOND_AT 8 /* of x1 in struct pt_regs */
#define SAVED_AT 264 /* of pstate */
#define NUMBER_AT 280
#define MODE32 0x10 /* PSR_MODE32_BIT: a 32-bit task has other numbers */

/* saved is what follows the general registers (arch/arm64/include/asm/ptrace.h). */
struct saved {
	__u64 pstate, orig_x0;
};

/* regs_... read the registers through a pointer that the verifier knows. */
struct pt_regs {
	__u64 regs[SAVED_AT / 8];
	struct saved saved;
	__s32 number;
	__s32 _pad;
};

static __always_inline __u64 regs_number(const struct pt_regs *regs)
{
	return regs->number;
}

static __always_inline __u64 regs_first(const struct pt_regs *regs)
{
	return regs->saved.orig_x0;
}

static __always_inline __u64 regs_second(const struct pt_regs *regs)
{
	return regs->regs[1];
}

static __always_inline __u64 regs_third(const struct pt_regs *regs)
{
	return regs->regs[2];
}

static __always_inline __u64 syscall_number(__u64 regs)
{
	__s32 number = -1;

	kernel_read(&number, sizeof(number), regs + NUMBER_AT);
	return number;
}

/* syscall_arguments returns 0 for what is not a call of this architecture. */
static __always_inline int syscall_arguments(struct arguments *args, __u64 regs)
{
	struct saved saved;

	if (!kernel_read(&saved, sizeof(saved), regs + SAVED_AT) ||
	    !kernel_read(&args->second, 3 * sizeof(__u64), regs + SECOND_AT))
		return 0;
	args->first = saved.orig_x0;
	return !(saved.pstate & MODE32);
}

#else
#error "no registers for this architecture"
#endif

/* include/linux/socket.h, struct user_msghdr: where the vector stands. */
#define MSGHDR_VECTOR 16

/*
 * first_piece finds the bytes that a call has or wants, those of them that stand in
 * one piece: at *at there are *size of them, given the call's second and third
 * argument. It returns 0 for a call that is none of sockets.
 */
static __always_inline int first_piece(__u64 number, __u64 *at, __u64 *size)
{
	__u64 piece[2] = {}; /* a struct iovec */

	switch (number) {
	case NR_RECVFROM:
	case NR_READ:
	case NR_SENDTO:
	case NR_WRITE:
		return 1;
	case NR_RECVMSG:
	case NR_SENDMSG:
		if (!query_read(piece, sizeof(piece[0]), *at + MSGHDR_VECTOR))
			return 0;
		*at = piece[0];
		break;
	case NR_READV:
	case NR_WRITEV:
		break;
	default:
		return 0;
	}
	if (!query_read(piece, sizeof(piece), *at))
		return 0;
	*at = piece[0];
	*size = piece[1];
	return 1;
}

#endif
