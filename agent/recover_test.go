package agent

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/change"
)

// interrupted journals a resize of orders that a killed agent left open, with
// CPU and memory as they are now.
func (f *fixture) interrupted(t *testing.T, boot, cpu, memory string) {
	t.Helper()
	dir := filepath.Join(f.root, "cgroup/db/orders")
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	op := &change.Operation{ID: "resize-1", Kind: "resize", Instance: "/db/orders", BootID: boot}
	for file, v := range map[string]struct{ old, fresh, now string }{
		"cpu.max":    {"50000 100000", "70000 100000", cpu},
		"memory.max": {"1073741824", "2147483648", memory},
	} {
		path := filepath.Join(dir, file)
		require.NoError(t, os.WriteFile(path, []byte(v.now+"\n"), 0o644))
		op.Changes = append(op.Changes, change.Change{Class: change.File, File: &change.FileChange{
			Path: path, CgroupID: fi.Sys().(*syscall.Stat_t).Ino, New: v.fresh, Old: v.old,
		}})
	}
	record, err := op.Encode()
	require.NoError(t, err)
	a := f.agent(t)
	require.NoError(t, a.journal.Append(op.ID, record))
	a.Close()
}

func (f *fixture) limits(t *testing.T) (cpu, memory string) {
	t.Helper()
	var out [2]string
	for i, file := range []string{"cpu.max", "memory.max"} {
		b, err := os.ReadFile(filepath.Join(f.root, "cgroup/db/orders", file))
		require.NoError(t, err)
		out[i] = string(b)
	}
	return out[0], out[1]
}

func TestRecoveryOfAnInterruptedResize(t *testing.T) {
	for _, c := range []struct {
		name, boot, cpu, memory string
		wantCPU, wantMemory     string
	}{
		{"half of it done is undone", "boot-1", "70000 100000", "1073741824", "50000 100000\n", "1073741824\n"},
		{"all of it done stays: the database uses it", "boot-1", "70000 100000", "2147483648", "70000 100000\n", "2147483648\n"},
		{"one of another boot is only closed", "boot-0", "70000 100000", "1073741824", "70000 100000\n", "1073741824\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.instance(t, "/db/orders", "orders")
			f.interrupted(t, c.boot, c.cpu, c.memory)
			a := f.agent(t)
			cpu, memory := f.limits(t)
			require.Equal(t, c.wantCPU, cpu)
			require.Equal(t, c.wantMemory, memory)
			records, err := a.journal.Records()
			require.NoError(t, err)
			require.Empty(t, records)
			require.Empty(t, a.Snapshot().Unresolved)
		})
	}
}

func TestAResizeThatCannotBeUndoneIsKeptAndShown(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	// The database has grown into the new limit since.
	write(t, filepath.Join(f.root, "cgroup/db/orders/memory.stat"), "anon 1900000000\nshmem 0\nsock 0\n")
	f.interrupted(t, "boot-1", "50000 100000", "2147483648")
	a := f.agent(t)
	_, memory := f.limits(t)
	require.Equal(t, "2147483648\n", memory)
	require.Len(t, a.Snapshot().Unresolved, 1)
	require.Contains(t, a.Snapshot().Unresolved[0], "interrupted resize")
	require.Contains(t, a.Snapshot().Unresolved[0], "in use")
}

func TestAStoppingAgentRefusesWhatComesAfter(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	a.Close()
	_, err := a.Place(t.Context(), "orders", "", nil, PlaceOptions{})
	require.ErrorContains(t, err, "stopping")
}
