package pages

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxNodes is more than any kernel is built for (MAX_NUMNODES, 1024).
const maxNodes = 1024

// nodemask is a set of NUMA nodes as the kernel's system calls take it.
type nodemask [maxNodes / 64]uint64

func newMask(nodes []int) (*nodemask, error) {
	m := new(nodemask)
	for _, n := range nodes {
		if n < 0 || n >= maxNodes {
			return nil, fmt.Errorf("NUMA node %d is out of range", n)
		}
		m[n/64] |= 1 << (n % 64)
	}
	return m, nil
}

// Private moves the pages that the processes have in their page tables from
// some nodes to others, by migrate_pages(2). It is needed after a write to
// cpuset.mems where the kernel did not move them itself: on cgroup version 2
// before Linux 5.16, and for processes started into their cgroup by clone3,
// for which cpuset_attach (kernel/cgroup/cpuset.c) never noted where they were.
//
// A process that ended is no error; pages that cannot move now stay.
func Private(pids, from, to []int) error {
	old, err := newMask(from)
	if err != nil {
		return err
	}
	fresh, err := newMask(to)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		// maxnode is one more than the bits that are read (get_nodes in
		// mm/mempolicy.c).
		_, _, errno := unix.Syscall6(unix.SYS_MIGRATE_PAGES, uintptr(pid), maxNodes+1,
			uintptr(unsafe.Pointer(old)), uintptr(unsafe.Pointer(fresh)), 0, 0)
		if errno != 0 && errno != unix.ESRCH {
			errs = append(errs, fmt.Errorf("migrate pages of process %d: %w", pid, errno))
		}
	}
	return errors.Join(errs...)
}
