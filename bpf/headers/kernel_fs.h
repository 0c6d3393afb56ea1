/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * kernel_fs.h: the members of the kernel's file structures that our programs
 * read, and no others. The loader finds their real offsets in the BTF of the
 * running kernel, so order and size here mean nothing; names and types do.
 */

#ifndef MOORING_KERNEL_FS_H
#define MOORING_KERNEL_FS_H

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/fs.h */
struct super_block {
	__u32 s_dev; /* MAJOR << 20 | MINOR, unlike st_dev of stat(2) */
};

struct inode {
	struct super_block *i_sb;
	__u16 i_mode;
};

struct file {
	struct inode *f_inode;
};

#pragma clang attribute pop
#pragma clang diagnostic pop

/* include/linux/fs.h: bits of the mask given to security_file_permission. */
#define MAY_WRITE 0x2
#define MAY_READ 0x4

/* include/uapi/linux/stat.h */
#define S_IFMT 0170000
#define S_IFREG 0100000

#endif
