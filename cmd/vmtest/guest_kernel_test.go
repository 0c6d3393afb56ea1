//go:build kernel

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return strings.TrimSpace(string(b))
}

func TestGuestHasTwoNUMANodes(t *testing.T) {
	for _, node := range []struct{ name, distance, processors string }{
		{"node0", "10 21", "0"},
		{"node1", "21 10", "1"},
	} {
		dir := filepath.Join("/sys/devices/system/node", node.name)
		require.Equal(t, node.distance, content(t, filepath.Join(dir, "distance")))
		require.Equal(t, node.processors, content(t, filepath.Join(dir, "cpulist")))
		require.Contains(t, content(t, filepath.Join(dir, "meminfo")), "MemTotal:")
	}
	require.NotEqual(t, content(t, "/sys/devices/system/cpu/cpu0/topology/physical_package_id"),
		content(t, "/sys/devices/system/cpu/cpu1/topology/physical_package_id"))
}

func TestGuestPassesCgroupControllersOn(t *testing.T) {
	dir, err := os.MkdirTemp("/sys/fs/cgroup", "guest")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
	enabled := strings.Fields(content(t, filepath.Join(dir, "cgroup.controllers")))
	require.Subset(t, enabled, []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"})
	require.Contains(t, content(t, filepath.Join(dir, "cpu.pressure")), "some avg10=")
}

func TestGuestHasAScratchDisk(t *testing.T) {
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs("/scratch", &fs))
	require.EqualValues(t, unix.EXT4_SUPER_MAGIC, fs.Type)
	target, err := filepath.EvalSymlinks("/sys/block/vda/device/driver")
	require.NoError(t, err)
	require.Equal(t, "virtio_blk", filepath.Base(target))
	require.NoError(t, os.WriteFile("/scratch/file", []byte("data"), 0o600))
	require.Equal(t, "data", content(t, "/scratch/file"))
}

func TestGuestHasWhatTracingNeeds(t *testing.T) {
	for _, name := range []string{
		"/sys/kernel/btf/vmlinux", "/sys/kernel/tracing/events/sched/enable",
		"/sys/kernel/debug/tracing", "/sys/kernel/security/lsm",
	} {
		_, err := os.Stat(name)
		require.NoError(t, err)
	}
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs("/sys/fs/bpf", &fs))
	require.EqualValues(t, unix.BPF_FS_MAGIC, fs.Type)
	require.Equal(t, "tsc", content(t, "/sys/devices/system/clocksource/clocksource0/current_clocksource"))
}

func TestGuestHasLoopbackOnly(t *testing.T) {
	interfaces, err := net.Interfaces()
	require.NoError(t, err)
	require.Len(t, interfaces, 1)
	require.NotZero(t, interfaces[0].Flags&net.FlagUp)
	l, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestGuestLoadsModules(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "modprobe", "sch_netem").CombinedOutput()
	require.NoError(t, err, "%s", out)
	_, err = os.Stat("/sys/module/sch_netem")
	require.NoError(t, err)
}

func TestGuestRunsAsRootInAnEnvironmentOfItsOwn(t *testing.T) {
	require.Zero(t, os.Getuid())
	require.Equal(t, "1", os.Getenv("VMTEST"))
	require.Equal(t, "/root", os.Getenv("HOME"))
	name, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, "vmtest", name)
	_, err = os.Stat("qemu.go")
	require.NoError(t, err, "the package's folder is the working directory")
}

func TestGuestReapsOrphans(t *testing.T) {
	// The shell ends at once and leaves its child to process 1.
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!").Output()
	require.NoError(t, err)
	orphan := filepath.Join("/proc", strings.TrimSpace(string(out)))
	require.Eventually(t, func() bool {
		_, err := os.Stat(orphan)
		return os.IsNotExist(err)
	}, 10*time.Second, 50*time.Millisecond)
}
