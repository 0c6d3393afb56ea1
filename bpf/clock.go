package bpf

import (
	"time"

	"golang.org/x/sys/unix"
)

// Lease is how long an armed fault stays in effect without being renewed. The
// agent renews once a second, so a lease survives two missed turns and an
// agent that has died or hangs is found out within three seconds.
const Lease = 3 * time.Second

// BootTime returns CLOCK_BOOTTIME, the clock of every deadline. It is the
// clock that bpf_ktime_get_boot_ns reads in the kernel: it counts suspended
// time and nobody can set it.
//
// The clock exists since Linux 2.6.39. Should it ever be unreadable the result
// is zero; a deadline reckoned from that is in the past and does nothing.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
