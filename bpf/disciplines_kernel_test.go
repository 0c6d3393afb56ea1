//go:build kernel

package bpf

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/change"
)

func TestLinkDisciplines(t *testing.T) {
	target := startInstance(t, 9)
	list := func() []string {
		t.Helper()
		lines, err := LinkDisciplines(target.link, target.name)
		require.NoError(t, err)
		return lines
	}
	pristine := list()
	require.Equal(t, []string{"qdisc noqueue none parent root"}, pristine)

	t.Run("a fault shows while it lasts and not afterwards", func(t *testing.T) {
		n := openNet(t)
		setNet(t, n, target.rule(10*time.Millisecond, time.Minute))
		during := list()
		require.Equal(t, during, list(), "it is the same twice")
		require.Contains(t, during, "qdisc prio 6d6f:0 parent root")
		require.Contains(t, during, "qdisc netem 6d71:0 parent 6d6f:2")
		require.Len(t, during, 4, "%q", during)
		for range 3 {
			target.ping(t)
		}
		require.Equal(t, during, list(), "traffic does not show")
		require.NoError(t, n.Clear(target.link, target.name))
		require.Equal(t, pristine, list())
	})
	t.Run("what somebody else leaves shows", func(t *testing.T) {
		iproute(t, "tc qdisc add dev %s clsact", target.name)
		iproute(t, "tc filter add dev %s egress prio 7 protocol ip matchall action ok", target.name)
		iproute(t, "tc filter add dev %s ingress prio 8 protocol ip matchall action ok", target.name)
		require.Len(t, list(), 4, "%q", list())
		require.Contains(t, list(), "qdisc clsact ffff:0 parent ingress")
		iproute(t, "tc qdisc del dev %s clsact", target.name)
		iproute(t, "tc qdisc add dev %s root pfifo", target.name)
		require.NotEqual(t, pristine, list())
		iproute(t, "tc qdisc del dev %s root", target.name)
		require.Equal(t, pristine, list())
	})
	t.Run("an interface that is gone or another one by now is said so", func(t *testing.T) {
		_, err := LinkDisciplines(target.link, "other")
		require.ErrorIs(t, err, ErrNoLink)
		_, err = LinkDisciplines(1<<20, target.name)
		require.ErrorIs(t, err, ErrNoLink)
	})
}

func TestRulesOfACgroup(t *testing.T) {
	f, err := OpenIOFaults()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	r := change.IORule{CgroupID: 42, Major: 253, Minor: 1, Write: true, Errno: 5, PPM: 1000, Deadline: BootTime() + time.Minute}
	rules := func(cgroup uint64) []change.IORule {
		t.Helper()
		all, err := f.Rules(cgroup)
		require.NoError(t, err)
		return all
	}
	require.Empty(t, rules(42))
	require.NoError(t, f.Set("a", r))
	require.Equal(t, []change.IORule{r}, rules(42))
	require.Empty(t, rules(43))
	require.NoError(t, f.Clear("a"))
	require.Empty(t, rules(42))
}
