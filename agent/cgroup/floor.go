package cgroup

import (
	"fmt"
	"math"
)

// minHeadroom is the least that a memory limit leaves above what is in use: a
// few new connections' worth.
const minHeadroom = 64 << 20

// MemoryFloor returns the smallest memory limit in bytes that is safe to set
// now: MemoryInUseBytes plus headroom, which is 5 % of it (rounded down) or
// 64 MiB, whichever is more. 400 MiB in use give 464 MiB; 8 GiB give 8.4 GiB.
func MemoryFloor(s Stat) int64 {
	return s.MemoryInUseBytes + headroom(s)
}

func headroom(s Stat) int64 {
	return max(s.MemoryInUseBytes/20, minHeadroom)
}

// CheckMemory refuses a memory limit below MemoryFloor, because the kernel
// answers such a limit by killing the database (version 2) or by refusing it
// after having thrown out its page cache (version 1). 0 is no limit. Raising
// the limit is never refused, and force refuses nothing.
func CheckMemory(s Stat, newLimit int64, force bool) error {
	raises := newLimit == 0 || s.MemoryLimitBytes > 0 && newLimit >= s.MemoryLimitBytes
	if force || raises || newLimit >= MemoryFloor(s) {
		return nil
	}
	return fmt.Errorf("memory limit %s is below what the database has in use (%s) plus headroom (%s): "+
		"lower the database's cache first, or use --force and risk an OOM kill",
		sizeText(newLimit), sizeText(roundUpMiB(s.MemoryInUseBytes)), sizeText(headroom(s)))
}

// sizeText writes bytes in the largest unit in which they are whole, or else
// in MiB with the rest dropped.
func sizeText(n int64) string {
	switch {
	case n == 0:
		return "none"
	case n%(1<<30) == 0:
		return fmt.Sprintf("%dGi", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%dMi", n>>20)
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}

func roundUpMiB(n int64) int64 {
	const mib = 1 << 20
	if n > math.MaxInt64-mib {
		return n
	}
	return (n + mib - 1) / mib * mib
}
