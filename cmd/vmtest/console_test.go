package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindTrouble(t *testing.T) {
	for _, line := range []string{
		"[    4.1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
		"[    4.1] kernel BUG at fs/ext4/inode.c:2720!",
		"[    4.1] Oops: 0000 [#1] PREEMPT SMP NOPTI",
		"[    4.1] general protection fault, probably for non-canonical address",
		"[    4.1] WARNING: CPU: 1 PID: 77 at kernel/sched/core.c:9 x+0x1/0x2",
		"[    4.1] ------------[ cut here ]------------",
		"[    4.1] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [pg:12]",
		"[    4.1] INFO: task kworker/0:1:9 blocked for more than 120 seconds.",
		"[    4.1] Kernel panic - not syncing: hung_task: blocked tasks",
		"[    4.1] rcu: INFO: rcu_preempt self-detected stall on CPU",
		"[    4.1] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
	} {
		t.Run(line[10:], func(t *testing.T) {
			found := findTrouble([]byte("[    1.0] fine\r\n" + line + "\r\n[    5.0] fine\r\n"))
			require.Equal(t, []string{line}, found)
		})
	}
	t.Run("leaves what a healthy kernel prints", func(t *testing.T) {
		require.Empty(t, findTrouble([]byte("[    0.0] Linux version 6.1.0\n"+
			"[    0.1] Oopsie\n[    0.2] rcu: Hierarchical RCU implementation.\n"+
			"[    0.3] postgres invoked oom-killer: gfp_mask=0xcc0\n[    0.4] debug: BUG_ON is off\n")))
	})
}

func TestConsoleText(t *testing.T) {
	t.Run("shows the last lines only", func(t *testing.T) {
		console := strings.Repeat("old\n", 500) + "a\nb\n"
		require.Equal(t, "old\na\nb", lastLines([]byte(console), 3))
	})
	t.Run("drops what upsets a terminal", func(t *testing.T) {
		require.Equal(t, "SeaBIOS", lastLines([]byte("\x1bc\x1b[?7l\x1b[2JSeaBIOS\r\n"), 3))
	})
	t.Run("splits at the start of the program", func(t *testing.T) {
		console := "[ 1.0] boot\n[ 2.0] " + startMark + "\n[ 3.0] run\n"
		require.Equal(t, "[ 3.0] run\n", string(sinceStart([]byte(console))))
		require.Equal(t, "[ 1.0] boot\n", string(sinceStart([]byte("[ 1.0] boot\n"))))
	})
}

const skipOutput = "=== RUN   TestA\n    a_test.go:7: --- SKIP: no\n--- SKIP: TestA (0.00s)\n" +
	"--- PASS: TestB (0.00s)\n    --- SKIP: TestB/part_one (0.00s)\n\x16--- SKIP: TestC (0.00s)\n--- SKIP: TestD (1.00s)"

func TestSkipFinder(t *testing.T) {
	want := []string{"TestA", "TestB/part_one", "TestC", "TestD"}
	for size := 1; size <= len(skipOutput); size++ {
		f := &skipFinder{}
		for rest := skipOutput; rest != ""; {
			n := min(size, len(rest))
			written, err := f.Write([]byte(rest[:n]))
			require.NoError(t, err)
			require.Equal(t, n, written)
			rest = rest[n:]
		}
		f.finish()
		require.Equal(t, want, f.skipped, "in parts of %d bytes", size)
	}
	t.Run("bounds a line without end", func(t *testing.T) {
		f := &skipFinder{}
		for range 100 {
			_, err := f.Write(make([]byte, maxLine))
			require.NoError(t, err)
		}
		require.LessOrEqual(t, len(f.line), maxLine)
	})
}
