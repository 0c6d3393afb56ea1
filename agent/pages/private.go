package pages

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
// A process that ended, or is about to and has no memory any more, is no error;
// pages that cannot move now stay.
func Private(procRoot string, pids, from, to []int) error {
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
		switch {
		case errno == 0, errno == unix.ESRCH:
		// EINVAL stands for a process whose address space is gone, too
		// (kernel_migrate_pages in mm/mempolicy.c).
		case errno == unix.EINVAL && ended(procRoot, pid):
		default:
			errs = append(errs, fmt.Errorf("migrate pages of process %d: %w", pid, errno))
		}
	}
	return errors.Join(errs...)
}

// ended says whether the process is gone or has no address space left: its size
// in /proc/PID/statm is 0.
func ended(procRoot string, pid int) bool {
	b, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "statm"))
	return gone(err) || bytes.HasPrefix(b, []byte("0 "))
}
