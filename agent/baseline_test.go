package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
)

// thawed is a freeze of orders that was undone.
func thawed(t *testing.T, f *fixture, in *state.Instance) (*fault, string) {
	t.Helper()
	path := filepath.Join(f.root, "cgroup", in.Cgroup.Path, "cgroup.freeze")
	return &fault{
		Fault: state.Fault{UID: "f1", Kind: "freeze", Instance: in.ID, Phase: state.FaultActive},
		op: &change.Operation{ID: "f1", Kind: "fault/freeze", Instance: in.ID, BootID: "boot-1", Deadline: time.Hour, Changes: []change.Change{
			{Class: change.Freeze, File: &change.FileChange{Path: path, CgroupID: in.Cgroup.ID, New: "1", Old: "0"}},
		}},
	}, path
}

func TestWhatAFaultLeftBehindIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		after    func(t *testing.T, a *Agent, f *fault, path string)
		verified bool
		residue  []string
		says     string
	}{
		"nothing": {func(*testing.T, *Agent, *fault, string) {}, true, nil, ""},
		"still frozen": {func(t *testing.T, _ *Agent, _ *fault, path string) {
			write(t, path, "1\n")
		}, true, []string{"cgroup.freeze: was 0, is 1"}, ""},
		"another's file is none of it": {func(t *testing.T, _ *Agent, _ *fault, path string) {
			write(t, filepath.Join(filepath.Dir(path), "cpu.max"), "100000 100000\n")
		}, true, nil, ""},
		"the container was restarted": {func(t *testing.T, _ *Agent, _ *fault, path string) {
			require.NoError(t, os.RemoveAll(filepath.Dir(path)))
		}, true, nil, "cgroup.freeze went away before the fault ended"},
		"another cgroup has the name": {func(t *testing.T, _ *Agent, f *fault, path string) {
			f.op.Changes[0].File.CgroupID++
			write(t, path, "1\n")
		}, true, nil, "went away"},
		"it cannot be read": {func(t *testing.T, _ *Agent, _ *fault, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o755))
		}, false, nil, "read cgroup.freeze after the undo"},
		"the node was rebooted": {func(t *testing.T, _ *Agent, f *fault, path string) {
			f.op.BootID = "boot-0"
			write(t, path, "1\n")
		}, true, nil, "rebooted"},
		"an older agent noted nothing": {func(_ *testing.T, _ *Agent, f *fault, _ string) {
			f.before = nil
		}, false, nil, "not on record"},
	} {
		t.Run(name, func(t *testing.T) {
			fx := newFixture(t)
			in := fx.instance(t, "/db/orders", "orders")
			a := fx.agent(t)
			f, path := thawed(t, fx, in)
			require.NoError(t, a.note(f))
			c.after(t, a, f, path)
			a.verify(f)
			require.Equal(t, c.verified, f.Verified)
			require.Equal(t, c.residue, f.Residue)
			require.Contains(t, f.Err, c.says)
			require.Equal(t, c.says == "", f.Err == "")
		})
	}
}

func TestAFaultWhoseTargetCannotBeReadIsNotBegun(t *testing.T) {
	fx := newFixture(t)
	in := fx.instance(t, "/db/orders", "orders")
	a := fx.agent(t)
	f, path := thawed(t, fx, in)
	require.NoError(t, os.RemoveAll(filepath.Dir(path)))
	err := a.begin(t.Context(), f)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "read cgroup.freeze before freeze")
	require.Empty(t, a.faults)
}

func TestTheNextAgentVerifiesWhatItUndid(t *testing.T) {
	fx := newFixture(t)
	in := fx.instance(t, "/db/orders", "orders")
	a := fx.agent(t)
	f, _ := thawed(t, fx, in)
	require.NoError(t, a.note(f))
	var err error
	f.op.Meta, err = f.meta()
	require.NoError(t, err)
	record, err := f.op.Encode()
	require.NoError(t, err)
	require.NoError(t, a.journal.Append("f1", record))
	a.Close()

	// Nothing is written: the fixture's file says thawed already.
	b := fx.agent(t)
	got := b.faultNamed(t, "f1")
	require.Equal(t, "recovered", got.Reason)
	require.True(t, got.Verified)
	require.Empty(t, got.Residue)
	require.Empty(t, got.Err)
	b.Close()
	require.Equal(t, "recovered", fx.agent(t).faultNamed(t, "f1").Reason, "and the one after still knows")
}

func TestDifferencesAreSaidInOneLine(t *testing.T) {
	require.Empty(t, difference("x", nil, []string{}))
	require.Equal(t, []string{"interface veth1: was qdisc noqueue 0:0 parent root, is qdisc a; qdisc b"},
		difference("interface veth1", []string{"qdisc noqueue 0:0 parent root"}, []string{"qdisc a", "qdisc b"}))
	require.Equal(t, []string{"file faults of cgroup 4: was nothing, is rule"}, difference("file faults of cgroup 4", nil, []string{"rule"}))
}
