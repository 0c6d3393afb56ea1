package kerneltest

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Cgroup makes a cgroup v2 of the test's own and returns its path. It works on
// hosts that have v1 as well, for it needs no controller.
func Cgroup(t testing.TB) string {
	t.Helper()
	path, err := os.MkdirTemp(cgroupRoot(t), "mooring-test-")
	require.NoError(t, err)
	t.Cleanup(func() {
		// A process that was just waited for may still be counted.
		require.Eventually(t, func() bool { return syscall.Rmdir(path) == nil }, 10*time.Second, 10*time.Millisecond,
			"cgroup %s still has processes", path)
	})
	return path
}

// cgroupRoot finds where cgroup v2 is mounted.
func cgroupRoot(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	require.NoError(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		mount, kind, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(mount); ok && strings.HasPrefix(kind, "cgroup2 ") {
			return fields[4]
		}
	}
	require.FailNow(t, "no cgroup v2 is mounted")
	return ""
}

// CgroupID returns the kernel's number of a cgroup v2.
func CgroupID(t testing.TB, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	require.NoError(t, syscall.Stat(path, &st))
	return st.Ino
}

// PIDs returns the processes in a cgroup.
func PIDs(t testing.TB, cgroup string) []int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	require.NoError(t, err)
	var pids []int
	for _, line := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(line)
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	return pids
}
