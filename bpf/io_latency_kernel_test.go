//go:build kernel

package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

// ioDisk is an ext4 on a disk of the virtual machine.
const ioDisk = "/scratch"

func TestIOLatency(t *testing.T) {
	timer, err := OpenIOLatency(ioDisk)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, timer.Close()) })
	require.NoError(t, timer.Block())
	require.NoError(t, timer.Fsync())
	target, neighbour := kerneltest.Cgroup(t), kerneltest.Cgroup(t)
	id := kerneltest.CgroupID(t, target)
	watch := map[uint64]IOWatch{id: {Block: true, Fsync: true}}
	require.NoError(t, timer.Set(watch))
	file := filepath.Join(t.TempDir(), "file")
	if dir, err := os.MkdirTemp(ioDisk, "latency-"); err == nil {
		file = filepath.Join(dir, "file")
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	}

	t.Run("each synchronous write is an fsync, and fsync is one", func(t *testing.T) {
		took := dd(t, target, "if=/dev/zero", "of="+file, "bs=4k", "count=50", "oflag=dsync")
		counts := ioCounts(t, timer, id)
		require.Equal(t, uint64(50), counts["fsync"].Count)
		require.Positive(t, counts["fsync"].SumNanoseconds)
		require.LessOrEqual(t, time.Duration(counts["fsync"].SumNanoseconds), took)
		dd(t, target, "if=/dev/zero", "of="+file, "bs=4k", "count=256", "conv=fsync")
		require.Equal(t, uint64(51), ioCounts(t, timer, id)["fsync"].Count)
	})
	t.Run("reads are those of io.stat", func(t *testing.T) {
		before, stat := ioCounts(t, timer, id)["read"], ioStatReads(t, target)
		took := dd(t, target, "if="+file, "of=/dev/null", "bs=4k", "count=100", "iflag=direct")
		after := ioCounts(t, timer, id)["read"]
		require.Equal(t, ioStatReads(t, target)-stat, after.Count-before.Count)
		require.GreaterOrEqual(t, after.Count-before.Count, uint64(100))
		require.LessOrEqual(t, time.Duration(after.SumNanoseconds-before.SumNanoseconds), took)
	})
	t.Run("what is written back by others is still its writer's", func(t *testing.T) {
		before := ioCounts(t, timer, id)["write"].Count
		dd(t, target, "if=/dev/zero", "of="+file, "bs=64k", "count=64", "conv=notrunc")
		syscall.Sync()
		require.Greater(t, ioCounts(t, timer, id)["write"].Count, before)
	})
	t.Run("neighbours are not counted", func(t *testing.T) {
		before := ioCounts(t, timer, id)
		dd(t, neighbour, "if=/dev/zero", "of="+file+"2", "bs=4k", "count=20", "oflag=dsync")
		dd(t, neighbour, "if="+file+"2", "of=/dev/null", "bs=4k", "iflag=direct")
		require.Equal(t, before, ioCounts(t, timer, id))
		none, err := timer.Read(kerneltest.CgroupID(t, neighbour))
		require.NoError(t, err)
		require.Empty(t, none)
	})
	t.Run("setting the same keeps what was counted, another forgets it", func(t *testing.T) {
		require.NoError(t, timer.Set(watch))
		require.Equal(t, uint64(51), ioCounts(t, timer, id)["fsync"].Count)
		require.NoError(t, timer.Set(map[uint64]IOWatch{id: {Block: true}}))
		require.NotContains(t, ioCounts(t, timer, id), "fsync")
		require.NoError(t, timer.Set(watch))
		require.Zero(t, ioCounts(t, timer, id)["fsync"].Count)
	})
	lost, err := timer.Lost()
	require.NoError(t, err)
	require.Equal(t, map[string]uint64{"requests_full": 0, "fsyncs_full": 0}, lost)
}

func TestIOLatencyWithoutADiskStillTimesFsync(t *testing.T) {
	timer, err := OpenIOLatency("/dev/shm")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, timer.Close()) })
	require.NoError(t, timer.Fsync())
}

// dd runs dd in a cgroup and returns how long it took.
func dd(t *testing.T, cgroup string, args ...string) time.Duration {
	t.Helper()
	dir, err := os.Open(cgroup)
	require.NoError(t, err)
	defer dir.Close()
	cmd := exec.Command("dd", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	start := time.Now()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return time.Since(start)
}

// ioCounts reads a cgroup's operations by name.
func ioCounts(t *testing.T, timer *IOLatency, id uint64) map[string]Operation {
	t.Helper()
	ops, err := timer.Read(id)
	require.NoError(t, err)
	out := map[string]Operation{}
	for _, op := range ops {
		out[op.Name] = op
	}
	return out
}

// ioStatReads adds up the reads of a cgroup's io.stat.
func ioStatReads(t *testing.T, cgroup string) uint64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cgroup, "io.stat"))
	require.NoError(t, err)
	var sum uint64
	for _, field := range strings.Fields(string(text)) {
		var n uint64
		if _, err := fmt.Sscanf(field, "rios=%d", &n); err == nil {
			sum += n
		}
	}
	return sum
}
