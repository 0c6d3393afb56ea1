package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
)

// pinned notes a pin of the instance and writes it, as Place does. The lists
// are of one length, since a plain file keeps what is not written over.
func (f *fixture) pinned(t *testing.T, a *Agent, in *state.Instance) (cpus, mems string) {
	t.Helper()
	dir := filepath.Join(f.root, "cgroup", in.Cgroup.Path)
	cpus, mems = filepath.Join(dir, "cpuset.cpus"), filepath.Join(dir, "cpuset.mems")
	write(t, cpus, "0-3\n")
	write(t, mems, "0-1\n")
	a.settings.Lock()
	defer a.settings.Unlock()
	require.NoError(t, a.notePin(in, []change.FileChange{
		{Path: cpus, CgroupID: in.Cgroup.ID, New: "2-3"}, {Path: mems, CgroupID: in.Cgroup.ID, New: "1-1"},
	}))
	write(t, cpus, "2-3\n")
	write(t, mems, "1-1\n")
	return cpus, mems
}

func (f *fixture) uninstall(t *testing.T, cfg Config) (string, error) {
	t.Helper()
	cfg.Socket = filepath.Join(f.root, "agent.sock")
	var out bytes.Buffer
	err := Uninstall(t.Context(), cfg, slog.New(slog.DiscardHandler), &out)
	return out.String(), err
}

func holds(t *testing.T, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want+"\n", string(b))
}

func TestUninstallGivesAPinBackOnlyWhereItIsStillOurs(t *testing.T) {
	for name, tt := range map[string]struct {
		since      func(t *testing.T, f *fixture, cpus, mems string)
		cpus, mems string
		says       string
	}{
		"a pin in force gets back the lists before it": {nil, "0-3", "0-1", "cpuset.cpus"},
		"a list written in other words is the same":    {func(t *testing.T, _ *fixture, cpus, _ string) { write(t, cpus, "2,3\n") }, "0-3", "0-1", "cpuset.cpus"},
		"a foreign value keeps the cpuset as it is":    {func(t *testing.T, _ *fixture, cpus, _ string) { write(t, cpus, "1-3\n") }, "1-3", "1-1", "left alone"},
		"a foreign value in the second file does too":  {func(t *testing.T, _ *fixture, _, mems string) { write(t, mems, "0\n") }, "2-3", "0", "left alone"},
		"a record of another boot is dropped": {func(t *testing.T, f *fixture, _, _ string) {
			write(t, filepath.Join(f.root, "proc/sys/kernel/random/boot_id"), "boot-2\n")
		}, "2-3", "1-1", ""},
		"a pin whose write failed is nothing": {func(t *testing.T, _ *fixture, cpus, mems string) {
			write(t, cpus, "0-3\n")
			write(t, mems, "0-1\n")
		}, "0-3", "0-1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			in := f.instance(t, "/db/orders", "orders")
			a := f.agent(t)
			cpus, mems := f.pinned(t, a, in)
			a.Close()
			if tt.since != nil {
				tt.since(t, f, cpus, mems)
			}
			require.NoError(t, os.Mkdir(filepath.Join(f.root, "cgroup/mooring.keeper"), 0o755))
			require.NoError(t, os.MkdirAll(filepath.Join(f.root, "cgroup/mooring.other"), 0o755))
			require.NoError(t, os.MkdirAll(filepath.Join(f.root, "cgroup/db/mooring.keeper"), 0o755))
			out, err := f.uninstall(t, a.cfg)
			require.NoError(t, err)
			require.Contains(t, out, tt.says)
			holds(t, cpus, tt.cpus)
			holds(t, mems, tt.mems)
			require.NoDirExists(t, a.cfg.StateDir)
			require.NoDirExists(t, filepath.Join(f.root, "cgroup/mooring.keeper"))
			require.DirExists(t, filepath.Join(f.root, "cgroup/mooring.other"), "not a name of ours")
			require.DirExists(t, filepath.Join(f.root, "cgroup/db/mooring.keeper"), "not at the root")
		})
	}
}

func TestAPinWithNothingBeforeItGetsWhatTheCgroupAboveHas(t *testing.T) {
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	cpus := filepath.Join(f.root, "cgroup/db/orders/cpuset.cpus")
	write(t, cpus, "2-3\n")
	files, err := a.planBack(in, []pinFile{{Path: cpus, CgroupID: in.Cgroup.ID, New: "2-3"}})
	require.NoError(t, err)
	require.Equal(t, []change.FileChange{{Path: cpus, CgroupID: in.Cgroup.ID}}, files)
}

func TestAPinnedAgainCgroupKeepsWhatWasBeforeTheFirstPin(t *testing.T) {
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	cpus, _ := f.pinned(t, a, in)
	again := []change.FileChange{{Path: cpus, CgroupID: in.Cgroup.ID, New: "0-1"}}
	file := func() pinFile {
		pins, err := readPins(a.cfg.StateDir)
		require.NoError(t, err)
		require.Len(t, pins, 1)
		return pins[0].Files[0]
	}
	require.NoError(t, a.notePin(in, again))
	require.Equal(t, pinFile{Path: cpus, CgroupID: in.Cgroup.ID, Old: "0-3", New: "0-1", Prior: "2-3"}, file(), "the first pin may still be there")
	write(t, cpus, "1-3\n")
	require.NoError(t, a.notePin(in, again))
	require.Equal(t, pinFile{Path: cpus, CgroupID: in.Cgroup.ID, Old: "1-3", New: "0-1"}, file(), "somebody else's list is now what was before")
	require.NoError(t, a.forgetPin(in))
	pins, err := readPins(a.cfg.StateDir)
	require.NoError(t, err)
	require.Empty(t, pins)
}

func TestRecordsOfPinsThatAreGoneMakeRoomAndLiveOnesDoNot(t *testing.T) {
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	other := f.instance(t, "/db/ledger", "ledger")
	a := f.agent(t)
	path := filepath.Join(f.root, "cgroup/db/ledger/cpuset.cpus")
	fill := func(boot string, id uint64) {
		var pins []pin
		for i := range maxPins {
			pins = append(pins, pin{
				Instance: fmt.Sprint(i), BootID: boot, Cgroup: state.Cgroup{Path: fmt.Sprint(i), ID: id},
				Files: []pinFile{{Path: path, CgroupID: id, New: "0"}},
			})
		}
		b, err := json.Marshal(pins)
		require.NoError(t, err)
		write(t, filepath.Join(a.cfg.StateDir, pinsFile), string(b))
	}
	files := []change.FileChange{{Path: filepath.Join(f.root, "cgroup/db/orders/cpuset.cpus"), CgroupID: in.Cgroup.ID, New: "0-1"}}
	fill(a.bootID, other.Cgroup.ID)
	require.ErrorContains(t, a.notePin(in, files), filepath.Join(a.cfg.StateDir, pinsFile))
	for _, fillGone := range []func(){
		func() { fill(a.bootID, other.Cgroup.ID+1<<40) },
		func() { fill("another boot", other.Cgroup.ID) },
	} {
		fillGone()
		require.NoError(t, a.notePin(in, files))
		pins, err := readPins(a.cfg.StateDir)
		require.NoError(t, err)
		require.Len(t, pins, 1)
		require.Equal(t, in.ID, pins[0].Instance)
	}
}

func TestUninstallRefusesAfterADamagedJournalUntilItWasLookedAt(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	a.Close()
	write(t, filepath.Join(a.cfg.StateDir, "journal"), "no record at all\n")
	write(t, filepath.Join(a.cfg.StateDir, "epoch"), "damaged\n")
	var aside []string
	for range 2 {
		_, err := f.uninstall(t, a.cfg)
		var gerr error
		aside, gerr = filepath.Glob(filepath.Join(a.cfg.StateDir, "journal.damaged-*"))
		require.NoError(t, gerr)
		require.Len(t, aside, 1)
		require.ErrorContains(t, err, aside[0])
		require.ErrorContains(t, err, "remove it and run uninstall again")
		require.NotContains(t, err.Error(), "epoch")
		require.FileExists(t, filepath.Join(a.cfg.StateDir, "lock"))
	}
	require.NoError(t, os.Remove(aside[0]))
	_, err := f.uninstall(t, a.cfg)
	require.NoError(t, err)
	require.NoDirExists(t, a.cfg.StateDir)
}

func TestUninstallRefusesWhereRecoveryFailed(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	a.Close()
	history := filepath.Join(a.cfg.StateDir, "faults.json")
	write(t, history, "{")
	_, err := f.uninstall(t, a.cfg)
	require.ErrorContains(t, err, "remove "+history)
	require.FileExists(t, history)
}

func TestUninstallKeepsAndNamesWhatItDoesNotKnow(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	a.Close()
	foreign := filepath.Join(a.cfg.StateDir, "ledger.db")
	write(t, foreign, "money")
	write(t, filepath.Join(a.cfg.StateDir, "keepers/.gone"), "{}")
	write(t, filepath.Join(a.cfg.StateDir, refusedFile), "{}")
	_, err := f.uninstall(t, a.cfg)
	require.ErrorContains(t, err, foreign)
	entries, err := os.ReadDir(a.cfg.StateDir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "only the foreign file is kept")
	require.Equal(t, "ledger.db", entries[0].Name())
}

func TestUninstallRefusesWhileAnAgentAnswers(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	a.Close()
	// A path of a socket is short.
	dir, err := os.MkdirTemp("", "m")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	cfg := a.cfg
	cfg.Socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", cfg.Socket)
	require.NoError(t, err)
	defer l.Close()
	err = Uninstall(t.Context(), cfg, slog.New(slog.DiscardHandler), &bytes.Buffer{})
	require.ErrorContains(t, err, "stop it first")
	require.DirExists(t, cfg.StateDir)
}
