//go:build kernel

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestHangReproducer does what hung QEMU 7.2 for good within 20 rounds: it makes
// the kernel patch its own text, by static keys, while both processors are busy
// and are interrupted all the time. Attaching a BPF program, loading a queueing
// discipline and setting the first cpu.max patch text too, so a QEMU that cannot
// pass this test is of no use for any other one.
func TestHangReproducer(t *testing.T) {
	const rounds, sleepers = 20, 8
	require.Equal(t, 2, runtime.NumCPU())
	// Enough for the busy threads not to keep this one from running.
	before := runtime.GOMAXPROCS(2 + sleepers + 2)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })

	var stop atomic.Bool
	var threads sync.WaitGroup
	t.Cleanup(threads.Wait)
	t.Cleanup(func() { stop.Store(true) })
	for processor := range 2 {
		threads.Go(func() { spin(t, processor, &stop) })
	}
	for range sleepers {
		threads.Go(func() { doze(t, &stop) })
	}
	begun := time.Now()
	for i := range rounds {
		toggle(t, i)
	}
	t.Logf("%d rounds took %v", rounds, time.Since(begun).Round(time.Second))
}

func spin(t *testing.T, processor int, stop *atomic.Bool) {
	// Never unlocked: the thread ends with its affinity.
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(processor)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Errorf("pin to processor %d: %v", processor, err)
		return
	}
	for !stop.Load() {
	}
}

func doze(t *testing.T, stop *atomic.Bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !stop.Load() {
		nap := unix.NsecToTimespec((500 * time.Microsecond).Nanoseconds())
		if err := unix.Nanosleep(&nap, nil); err != nil && err != unix.EINTR {
			t.Errorf("sleep: %v", err)
			return
		}
	}
}

func toggle(t *testing.T, round int) {
	t.Helper()
	group := fmt.Sprintf("/sys/fs/cgroup/toggle%d", round)
	require.NoError(t, os.Mkdir(group, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(group, "cpu.max"), []byte("50000 100000"), 0))
	for _, value := range []string{"1", "0"} {
		for _, events := range []string{"sched", "syscalls", "timer", "irq"} {
			name := filepath.Join("/sys/kernel/tracing/events", events, "enable")
			require.NoError(t, os.WriteFile(name, []byte(value), 0))
		}
	}
	require.NoError(t, os.Remove(group))
}
