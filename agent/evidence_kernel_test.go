//go:build kernel

package agent

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
	"github.com/mooring-dev/mooring/chaos"
)

// command runs one of iproute2.
func command(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	require.NoError(t, err, "%s: %s", line, out)
	return string(out)
}

// wired is an agent with an instance behind a real pair of interfaces; its
// cgroup is made of plain files.
func wired(t *testing.T) *Agent {
	t.Helper()
	command(t, "ip link add evid0 type veth peer name evid1")
	t.Cleanup(func() {
		if _, err := net.InterfaceByName("evid0"); err == nil {
			command(t, "ip link del evid0")
		}
	})
	command(t, "ip link set evid0 up")
	command(t, "ip link set evid1 up")
	link, err := net.InterfaceByName("evid0")
	require.NoError(t, err)
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	in.HostNetwork, in.NetNS, in.HostLink = false, 77, link.Index
	return f.agent(t)
}

func delay(t *testing.T, a *Agent, uid string, o FaultOptions) {
	t.Helper()
	_, _, err := a.StartFault(t.Context(), chaos.Spec{UID: uid, Kind: "net-delay", Instance: "orders", Duration: time.Minute, Params: map[string]string{"delay": "10ms"}}, o)
	require.NoError(t, err)
	require.Contains(t, command(t, "tc qdisc show dev evid0"), "netem")
}

func TestEvidenceOfANetworkFaultsEnd(t *testing.T) {
	t.Run("a fault whose lease ran out leaves nothing", func(t *testing.T) {
		a := wired(t)
		before := command(t, "tc qdisc show dev evid0")
		delay(t, a, "f1", FaultOptions{Lease: minLease})
		require.Eventually(t, func() bool { return a.faultNamed(t, "f1").Phase == state.FaultEnded }, time.Minute, 10*time.Millisecond)
		f := a.faultNamed(t, "f1")
		require.Equal(t, "lease", f.Reason)
		require.True(t, f.Verified)
		require.Empty(t, f.Residue)
		require.Empty(t, f.Err)
		require.Equal(t, before, command(t, "tc qdisc show dev evid0"))
	})
	t.Run("what is there afterwards and was not before is shown", func(t *testing.T) {
		a := wired(t)
		delay(t, a, "f1", FaultOptions{})
		command(t, "tc qdisc add dev evid0 clsact")
		f, err := a.StopFault("f1")
		require.NoError(t, err)
		require.True(t, f.Verified)
		require.Equal(t, []string{"interface evid0: was qdisc noqueue none parent root, is qdisc clsact ffff:0 parent ingress; qdisc noqueue none parent root"}, f.Residue)
	})
	t.Run("an interface that went away took everything with it", func(t *testing.T) {
		a := wired(t)
		delay(t, a, "f1", FaultOptions{})
		command(t, "ip link del evid0")
		f, err := a.StopFault("f1")
		require.NoError(t, err)
		require.True(t, f.Verified)
		require.Empty(t, f.Residue)
		require.Contains(t, f.Err, "interface evid0 went away")
	})
	t.Run("a tree that no journal knows is not taken for how it was", func(t *testing.T) {
		a := wired(t)
		delay(t, a, "f1", FaultOptions{})
		// As after a crash that took the journal too: the descriptors are
		// closed and the tree stays.
		require.NoError(t, a.net.Close())
		a.net.f, a.faults = nil, map[string]*fault{}
		fx := newFixture(t)
		in := fx.instance(t, "/db/orders", "orders")
		link, err := net.InterfaceByName("evid0")
		require.NoError(t, err)
		in.HostNetwork, in.NetNS, in.HostLink = false, 77, link.Index
		b := fx.agent(t)
		delay(t, b, "f2", FaultOptions{})
		f, err := b.StopFault("f2")
		require.NoError(t, err)
		require.True(t, f.Verified)
		require.Empty(t, f.Residue)
		lines, err := bpf.LinkDisciplines(link.Index, "evid0")
		require.NoError(t, err)
		require.Equal(t, []string{"qdisc noqueue none parent root"}, lines)
	})
}
