package keeper

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary stand in for the agent's: Arm starts it again
// with the keeper's arguments.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == Command {
		if Main(os.Args[2]) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// frozen makes a directory that looks like a frozen cgroup.
func frozen(t *testing.T) Duty {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "cgroup.freeze")
	require.NoError(t, os.WriteFile(file, []byte("1"), 0o644))
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	return Duty{File: file, CgroupID: fi.Sys().(*syscall.Stat_t).Ino, Old: "0", Deadline: bootTime() + 300*time.Millisecond}
}

// cgroups makes a directory that looks like a cgroup hierarchy with room for a
// keeper.
func cgroups(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "mooring.keeper"), 0o755))
	for _, f := range []string{"cgroup.procs", "mooring.keeper/cgroup.procs"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, f), nil, 0o644))
	}
	return root
}

func TestAKeeperThatCannotLeaveTheAgentsCgroupIsRefused(t *testing.T) {
	dir := t.TempDir()
	require.ErrorContains(t, Arm(dir, t.TempDir(), "f1", frozen(t)), "no cgroup hierarchy")
	require.True(t, missing(filepath.Join(dir, "f1")))
}

func TestSweepRestoresWhatNobodyKnowsOf(t *testing.T) {
	dir := t.TempDir()
	lost, known := frozen(t), frozen(t)
	for uid, d := range map[string]Duty{"lost": lost, "known": known} {
		b, err := json.Marshal(d)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, uid), b, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "torn"), []byte("{"), 0o600))
	require.ErrorContains(t, Sweep(dir, func(uid string) bool { return uid == "known" }), "torn")
	require.Equal(t, "0", content(t, lost))
	require.Equal(t, "1", content(t, known))
	require.True(t, missing(filepath.Join(dir, "lost")))
	require.False(t, missing(filepath.Join(dir, "known")))
	require.NoError(t, Sweep(filepath.Join(dir, "absent"), nil))
}

func content(t *testing.T, d Duty) string {
	t.Helper()
	b, err := os.ReadFile(d.File)
	require.NoError(t, err)
	return string(b)
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func TestAKeeperRestoresAtTheDeadlineAndNotBefore(t *testing.T) {
	dir, d := t.TempDir(), frozen(t)
	require.NoError(t, Arm(dir, cgroups(t), "f1", d))
	require.Eventually(t, func() bool {
		done := content(t, d) == "0"
		require.False(t, done && bootTime() < d.Deadline, "restored too early")
		return done
	}, 5*time.Second, 5*time.Millisecond)
	require.Less(t, bootTime()-d.Deadline, time.Second)
	// A freeze that comes late is undone as well.
	require.NoError(t, os.WriteFile(d.File, []byte("1"), 0o644))
	require.Eventually(t, func() bool { return content(t, d) == "0" }, 5*time.Second, 5*time.Millisecond)
	require.NoError(t, Disarm(dir, "f1"))
	// What comes after it was disarmed is somebody else's.
	require.NoError(t, os.WriteFile(d.File, []byte("1"), 0o644))
	require.Never(t, func() bool { return content(t, d) == "0" }, 2*poll, 10*time.Millisecond)
}

func TestADisarmedKeeperDoesNothing(t *testing.T) {
	dir, d := t.TempDir(), frozen(t)
	require.NoError(t, Arm(dir, cgroups(t), "f1", d))
	require.NoError(t, Disarm(dir, "f1"))
	require.NoError(t, Disarm(dir, "f1"), "twice is fine")
	require.Never(t, func() bool { return content(t, d) == "0" }, time.Second, 20*time.Millisecond)
}

func TestAKeeperLeavesAnotherCgroupAlone(t *testing.T) {
	d := frozen(t)
	d.CgroupID++
	require.NoError(t, restore(d))
	require.Equal(t, "1", content(t, d))
	d.File = filepath.Join(t.TempDir(), "gone", "cgroup.freeze")
	require.NoError(t, restore(d))
}

func TestArmRefusesWhatCannotNameAFile(t *testing.T) {
	for _, uid := range []string{"", "../x", "a/b", ".hidden"} {
		require.Error(t, Arm(t.TempDir(), cgroups(t), uid, frozen(t)), uid)
	}
}

func TestMainRefusesAMarkerItCannotRead(t *testing.T) {
	require.Error(t, Main(filepath.Join(t.TempDir(), "absent")))
	marker := filepath.Join(t.TempDir(), "m")
	require.NoError(t, os.WriteFile(marker, []byte("{"), 0o600))
	require.Error(t, Main(marker))
}

func TestAnExtendedKeeperWaitsLonger(t *testing.T) {
	dir, d := t.TempDir(), frozen(t)
	d.Deadline = bootTime() + 1500*time.Millisecond
	require.NoError(t, Arm(dir, cgroups(t), "f1", d))
	last := bootTime() + 4*time.Second
	require.NoError(t, Extend(dir, "f1", last))
	require.Eventually(t, func() bool {
		done := content(t, d) == "0"
		require.False(t, done && bootTime() < last, "restored too early")
		return done
	}, 10*time.Second, 5*time.Millisecond)
	require.Less(t, bootTime()-last, 2*time.Second)
	require.NoError(t, Disarm(dir, "f1"))
	require.ErrorIs(t, Extend(dir, "f1", last), fs.ErrNotExist, "a keeper that was dismissed is not called back")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestSweepDropsAMarkerThatWasNotFinished(t *testing.T) {
	dir, d := t.TempDir(), frozen(t)
	require.NoError(t, mark(dir, "known", d))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".known"), []byte(`{"file":`), 0o600))
	require.NoError(t, Sweep(dir, func(uid string) bool { return uid == "known" }))
	require.True(t, missing(filepath.Join(dir, ".known")))
	require.False(t, missing(filepath.Join(dir, "known")))
	require.Equal(t, "1", content(t, d))
}

func TestAKeeperLeavesEveryHierarchyOfVersion1(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"systemd/mooring.keeper", "unified/mooring.keeper", "memory", "freezer", "cpu,cpuacct", "pids"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, dir := range []string{"systemd", "unified", "systemd/mooring.keeper", "unified/mooring.keeper", "memory", "freezer", "cpu,cpuacct", "pids"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, dir, "cgroup.procs"), nil, 0o644))
	}
	require.NoError(t, os.Symlink("cpu,cpuacct", filepath.Join(root, "cpu")))
	require.NoError(t, settle(root, 4711))
	for dir, want := range map[string]string{
		"systemd/mooring.keeper": "4711", "unified/mooring.keeper": "4711", "systemd": "", "unified": "",
		"memory": "4711", "freezer": "4711", "cpu,cpuacct": "4711", "pids": "4711",
	} {
		b, err := os.ReadFile(filepath.Join(root, dir, "cgroup.procs"))
		require.NoError(t, err)
		require.Equal(t, want, string(b), dir)
	}
}
