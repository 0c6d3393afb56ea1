package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/change"
)

// changeOf is a change of one file of the container in a version 2 tree.
func changeOf(t *testing.T, root, file, value string) change.Change {
	t.Helper()
	id, err := inode(filepath.Join(root, "pod/db"))
	require.NoError(t, err)
	class := change.File
	if file == "cgroup.freeze" {
		class = change.Freeze
	}
	return change.Change{Class: class, File: &change.FileChange{
		Path: filepath.Join(root, "pod/db", file), CgroupID: id, New: value,
	}}
}

func TestFilesWriteOnlyWhatIsAllowed(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	good := changeOf(t, root, "cpu.max", "50000 100000")
	require.NoError(t, Files{}.Prepare(&good))
	require.Equal(t, "max 100000", good.File.Old)
	for name, c := range map[string]struct {
		damage func(*change.Change)
		want   string
	}{
		"a file not on the list": {func(c *change.Change) { c.File.Path = filepath.Join(root, "pod/db/cgroup.procs") }, "not one that Mooring writes"},
		"controllers":            {func(c *change.Change) { c.File.Path = filepath.Join(root, "cgroup.subtree_control") }, "not one that Mooring writes"},
		"a relative path":        {func(c *change.Change) { c.File.Path = "cpu.max" }, "not an absolute and clean path"},
		"a path that climbs":     {func(c *change.Change) { c.File.Path = root + "/pod/../pod/db/cpu.max" }, "not an absolute and clean path"},
		"no file":                {func(c *change.Change) { c.File = nil }, "names no file"},
		"another class":          {func(c *change.Change) { c.Class = change.Freeze }, `belongs to class "file", not "freeze"`},
		"a freeze as a file": {func(c *change.Change) { c.File.Path = filepath.Join(root, "pod/db/cgroup.freeze") },
			`belongs to class "freeze", not "file"`},
		"another cgroup":   {func(c *change.Change) { c.File.CgroupID++ }, "another cgroup of the same name"},
		"a missing cgroup": {func(c *change.Change) { c.File.Path = filepath.Join(root, "other/cpu.max") }, "cgroup is gone"},
		"a bad value":      {func(c *change.Change) { c.File.New = "fast" }, "is not a CPU limit"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := changeOf(t, root, "cpu.max", "50000 100000")
			c.damage(&bad)
			require.ErrorContains(t, Files{}.Prepare(&bad), c.want)
			require.ErrorContains(t, Files{}.Apply(bad), c.want)
		})
	}
	t.Run("a symbolic link", func(t *testing.T) {
		require.NoError(t, os.Remove(good.File.Path))
		require.NoError(t, os.Symlink(filepath.Join(root, "cgroup.procs"), good.File.Path))
		require.ErrorIs(t, Files{}.Apply(good), unix.ELOOP)
	})
	t.Run("a file that does not exist is not made", func(t *testing.T) {
		require.NoError(t, os.Remove(good.File.Path))
		require.ErrorContains(t, Files{}.Apply(good), "the controller is not enabled")
		require.NoFileExists(t, good.File.Path)
	})
}

func TestFilesRefuseValuesAFileCannotHold(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	for file, values := range map[string][]string{
		"cpu.max":       {"", "0", "-1", "max max", "1 2 3"},
		"cpu.weight":    {"", "heavy"},
		"memory.max":    {"", "1Gi", "-2"},
		"cpuset.cpus":   {"x", "3-1"},
		"cgroup.freeze": {"", "2", "FROZEN", "0"},
	} {
		for _, v := range values {
			c := changeOf(t, root, file, v)
			require.Error(t, Files{}.Prepare(&c), "%q in %s", v, file)
		}
	}
}

func TestFilesReadBackByMeaning(t *testing.T) {
	for _, c := range []struct {
		file, asked, shown string
		same               bool
	}{
		{"cpu.max", "50000", "50000 100000", true},
		{"cpu.max", "max 100000", "max 100000", true},
		{"cpu.max", "50000 100000", "50000 50000", false},
		{"memory.max", "max", "max", true},
		{"memory.max", "1000000", "999424", true},
		{"memory.max", "1000000", "1000000", true},
		{"memory.max", "1000000", "995328", false},
		{"memory.max", "1000000", "max", false},
		{"memory.limit_in_bytes", "-1", "9223372036854771712", true},
		{"memory.limit_in_bytes", "9223372036854771712", "9223372036854771712", true},
		{"cpu.cfs_quota_us", "-1", "-1", true},
		{"cpu.cfs_quota_us", "1000", "2000", false},
		{"cpuset.cpus", "0,1,2", "0-2", true},
		{"cpuset.cpus", "0-2", "0-1", false},
		{"cpuset.cpus", "", "", true},
		{"freezer.state", "FROZEN", "FREEZING", false},
	} {
		control, ok := controlOf(c.file)
		require.True(t, ok)
		require.Equal(t, c.same, control.same(c.shown, c.asked), "%s: asked for %q, shown %q", c.file, c.asked, c.shown)
	}
}

func TestFilesSayWhatTheKernelMeans(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	for name, c := range map[string]struct {
		file, value string
		err         unix.Errno
		want        string
	}{
		"more in use":     {"memory.max", "1", unix.EBUSY, "more is in use than the new limit"},
		"child in use":    {"cpuset.cpus", "0", unix.EBUSY, "a cgroup below it uses more"},
		"parent forbids":  {"cpuset.cpus", "0", unix.EACCES, "the cgroup above it does not allow"},
		"missing node":    {"cpuset.mems", "9", unix.EINVAL, "a node does not exist"},
		"odd value":       {"cpu.max", "1", unix.EINVAL, "out of range"},
		"read-only mount": {"cpu.max", "1", unix.EROFS, "mounted read-only"},
		"not root":        {"cpu.max", "1", unix.EACCES, "must be root"},
		"gone":            {"cpu.max", "1", unix.ENODEV, "cgroup is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			h := Files{write: func(int, string, string) error { return c.err }}
			err := h.Apply(changeOf(t, root, c.file, c.value))
			require.ErrorIs(t, err, c.err)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, c.file)
			require.Equal(t, c.err == unix.ENODEV, strings.Contains(err.Error(), ErrGone.Error()))
		})
	}
	t.Run("a value that did not take", func(t *testing.T) {
		h := Files{write: func(int, string, string) error { return nil }}
		require.ErrorContains(t, h.Apply(changeOf(t, root, "cpu.max", "1000 100000")),
			`it holds "max 100000" after "1000 100000" was written`)
	})
	t.Run("a cpuset that the parent overrides", func(t *testing.T) {
		h := Files{write: func(fd int, _, value string) error {
			_, err := unix.Write(fd, []byte(value+"\n"))
			return err
		}}
		require.ErrorContains(t, h.Apply(changeOf(t, root, "cpuset.cpus", "3")),
			`cpuset.cpus.effective is "0-7" although "3" was accepted: a cgroup above it overrides it`)
	})
}

func TestRevertOfWhatIsGoneIsDone(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	h := Files{write: kernel}
	c := changeOf(t, root, "cpu.max", "50000 100000")
	require.ErrorContains(t, h.Revert(c), "no usable value was recorded")
	require.NoError(t, h.Prepare(&c))
	require.NoError(t, h.Apply(c))
	require.NoError(t, os.Rename(filepath.Join(root, "pod/db"), filepath.Join(root, "old")))
	require.NoError(t, h.Revert(c), "no directory")
	tree2().make(t, root)
	require.NoError(t, os.WriteFile(c.File.Path, []byte("70000 100000\n"), 0o644))
	require.NoError(t, h.Revert(c), "another directory")
	got, err := readValue(c.File.Path)
	require.NoError(t, err)
	require.Equal(t, "70000 100000", got)
	gone := Files{write: func(int, string, string) error { return unix.ENODEV }}
	c = changeOf(t, root, "cpu.max", "1")
	c.File.Old = "max 100000"
	require.NoError(t, gone.Revert(c), "removed while it was written")
}

func TestFreezeWaitsForTheKernel(t *testing.T) {
	t.Run("until it is frozen", func(t *testing.T) {
		root := tree2().make(t, t.TempDir())
		c := changeOf(t, root, "cgroup.freeze", "1")
		require.NoError(t, Files{}.Prepare(&c))
		h := Files{write: kernel}
		require.NoError(t, h.Apply(c))
		again := changeOf(t, root, "cgroup.freeze", "1")
		require.ErrorContains(t, h.Prepare(&again), "somebody else has frozen this cgroup")
		require.NoError(t, h.Revert(c))
	})
	t.Run("and no longer than two seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			root := tree2().make(t, t.TempDir())
			err := Files{}.Apply(changeOf(t, root, "cgroup.freeze", "1"))
			require.ErrorContains(t, err, `cgroup.freeze is "1" after 2s and the cgroup still says "frozen 0"`)
		})
	})
	t.Run("and not at all on a kernel that does not say", func(t *testing.T) {
		root := tree2().make(t, t.TempDir())
		require.NoError(t, os.WriteFile(filepath.Join(root, "pod/db/cgroup.events"), []byte("populated 1\n"), 0o644))
		require.ErrorContains(t, Files{}.Apply(changeOf(t, root, "cgroup.freeze", "1")), "needs Linux 5.2")
	})
}

func TestAnEmptyCpusetOfARunningInstanceComesBackAsTheParents(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	h := Files{write: kernel}
	c := changeOf(t, root, "cpuset.cpus", "4-7")
	require.NoError(t, h.Prepare(&c))
	require.Empty(t, c.File.Old)
	require.NoError(t, h.Apply(c))
	require.NoError(t, h.Revert(c))
	now := snapshot(t, root)
	require.Equal(t, "0-7\n", now["pod/db/cpuset.cpus"])
	require.Equal(t, "0-7\n", now["pod/db/cpuset.cpus.effective"])
}

// TestWhatIsAppliedAndRevertedLeavesNoTrace applies plans drawn at random,
// stops after any number of changes, reverts those that were applied, and
// compares every byte.
func TestWhatIsAppliedAndRevertedLeavesNoTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.IntRange(1, 2).Draw(t, "version")
		tr := tree2()
		if version == 1 {
			tr = tree1()
		} else {
			tr["pod/db/cgroup.procs"] = "" // or the cpuset comes back spelt out
			// Little is in use, or a limit drawn below it would not come back.
			tr["pod/db/memory.stat"] = "anon 4096\nshmem 0\nsock 0\n"
			tr["pod/memory.stat"] = "anon 4096\nshmem 0\nsock 0\n"
		}
		drawLimits(t, tr, version)
		root, err := os.MkdirTemp("", "cgroup")
		require.NoError(t, err)
		defer os.RemoveAll(root)
		g := open(t, tr.make(t, root), version)
		before := snapshot(t, root)
		s, err := g.Stat()
		require.NoError(t, err)

		plan, err := g.PlanResize(s, want(
			rapid.Int64Range(-1, 5000).Draw(t, "cpu"), rapid.Int64Range(-1, 4096).Draw(t, "memory"),
			rapid.Bool().Draw(t, "parents")))
		if err != nil {
			plan = nil
		}
		lists := rapid.SampledFrom([]string{"", "0", "0-3", "4-7", "1,3,5"})
		pin, err := g.PlanPin(lists.Draw(t, "cpus"), rapid.SampledFrom([]string{"", "0", "1", "0-1"}).Draw(t, "mems"))
		require.NoError(t, err)
		changes := plain(append(plan, pin...))
		if freeze, err := g.PlanFreeze(); err == nil && rapid.Bool().Draw(t, "freeze") {
			changes = append(changes, change.Change{Class: change.Freeze, File: &freeze})
		}
		require.Equal(t, before, snapshot(t, root), "planning")

		h := Files{write: kernel}
		changes = changes[:rapid.IntRange(0, len(changes)).Draw(t, "applied")]
		for i := range changes {
			require.NoError(t, h.Prepare(&changes[i]))
			require.NoError(t, h.Apply(changes[i]))
			require.NoError(t, h.Apply(changes[i]), "applying is idempotent")
		}
		for i := len(changes) - 1; i >= 0; i-- {
			require.NoError(t, Files{write: kernel}.Revert(changes[i]))
			require.NoError(t, Files{write: kernel}.Revert(changes[i]), "reverting is idempotent")
		}
		require.Equal(t, before, snapshot(t, root), "reverting")
	})
}

// drawLimits gives the pod and the container limits, or none.
func drawLimits(t *rapid.T, tr tree, version int) {
	child := rapid.Int64Range(1, 40).Draw(t, "child")
	parent := child + rapid.Int64Range(0, 10).Draw(t, "parent")
	number := func(n, unit int64) string { return bytesOr(n*unit, "") + "\n" }
	if !rapid.Bool().Draw(t, "limited") {
		return
	}
	if version == 2 {
		tr["pod/db/cpu.max"] = bytesOr(child*10000, "") + " 100000\n"
		tr["pod/cpu.max"] = bytesOr(parent*10000, "") + " 100000\n"
		tr["pod/db/memory.max"] = number(child, 100*testMiB)
		tr["pod/memory.max"] = number(parent, 100*testMiB)
		return
	}
	tr["cpu/pod/db/cpu.cfs_quota_us"] = number(child, 10000)
	tr["cpu/pod/cpu.cfs_quota_us"] = number(parent, 10000)
	tr["memory/pod/db/memory.limit_in_bytes"] = number(child, 100*testMiB)
	tr["memory/pod/memory.limit_in_bytes"] = number(parent, 100*testMiB)
	tr["memory/pod/db/memory.memsw.limit_in_bytes"] = number(parent, 100*testMiB)
}

func TestProbesSayWhyTheyCannot(t *testing.T) {
	tr := tree2()
	tr["cgroup.subtree_control"] = "memory\n"
	root := tr.make(t, t.TempDir())
	f, err := New(root)
	require.NoError(t, err)
	_, err = f.ProbeLimits()
	require.ErrorContains(t, err, "the cpu controller is not enabled for cgroups below the root")
	_, err = f.ProbeCpuset()
	require.ErrorContains(t, err, "the cpuset controller is not enabled for cgroups below the root")
	_, err = f.ProbeFreeze()
	require.ErrorContains(t, err, "probe freezer")
	require.Equal(t, tr, snapshot(t, root))
	require.NoDirExists(t, filepath.Join(root, probeName))

	f, err = New(tree{"cpu/cgroup.procs": "", "memory/cgroup.procs": ""}.make(t, t.TempDir()))
	require.NoError(t, err)
	_, err = f.ProbeFreeze()
	require.ErrorContains(t, err, "the freezer controller is not mounted")
}

func TestALimitBelowUseIsNotPutBack(t *testing.T) {
	tr := tree2()
	tr["pod/db/memory.max"] = "1073741824\n"
	root := tr.make(t, t.TempDir())
	dir := filepath.Join(root, "pod/db")
	var st unix.Stat_t
	require.NoError(t, unix.Stat(dir, &st))
	c := change.Change{Class: change.File, File: &change.FileChange{
		Path: filepath.Join(dir, "memory.max"), CgroupID: st.Ino, New: "1073741824", Old: "104857600",
	}}
	require.ErrorContains(t, Files{}.Revert(c), "510Mi are in use and the old limit is 100Mi")
	b, err := os.ReadFile(c.File.Path)
	require.NoError(t, err)
	require.Equal(t, "1073741824\n", string(b))
}
