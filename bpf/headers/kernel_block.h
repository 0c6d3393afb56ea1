/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/*
 * kernel_block.h: the members of the block layer's structures that our programs
 * read, and no others. The loader finds their real offsets in the BTF of the
 * running kernel, so order and size here mean nothing; names and types do.
 */

#ifndef MOORING_KERNEL_BLOCK_H
#define MOORING_KERNEL_BLOCK_H

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/linux/kernfs.h: on 64 bits the id is the directory's inode number. */
struct kernfs_node {
	__u64 id;
};

/* include/linux/cgroup-defs.h */
struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

/* block/blk-cgroup.h */
struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

/* include/linux/blk_types.h: bi_blkg is there with CONFIG_BLK_CGROUP. */
struct bio {
	struct blkcg_gq *bi_blkg;
};

/* include/linux/blk-mq.h */
struct request {
	struct bio *bio;
	__u32 cmd_flags;
	__u32 __data_len;
};

#pragma clang attribute pop
#pragma clang diagnostic pop

/* include/linux/blk_types.h: the lowest eight bits of cmd_flags. */
#define REQ_OP_MASK 0xff
#define REQ_OP_READ 0
#define REQ_OP_WRITE 1

#endif
