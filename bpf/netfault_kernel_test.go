//go:build kernel

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/change"
)

const (
	// netRoleEnv makes the test binary, started again by
	// TestNetFaultsOutlivedByTheirGate, play the agent that dies.
	netRoleEnv = "MOORING_TEST_NET_RULE"

	netDelay = 60 * time.Millisecond
	// netPrompt tells a round trip without the delay from one with it.
	netPrompt = netDelay / 2
)

func TestNetFaults(t *testing.T) {
	target, neighbour := startInstance(t, 1), startInstance(t, 2)
	pristine, neighbours := target.qdiscs(t), neighbour.qdiscs(t)
	require.Contains(t, pristine, "noqueue")
	n := openNet(t)
	testNetEffect(t, n, target, neighbour)
	testNetLoss(t, n, target)
	testNetEnd(t, n, target)
	testNetClear(t, n, target)
	require.Equal(t, pristine, target.qdiscs(t))
	require.Equal(t, neighbours, neighbour.qdiscs(t))
}

// testNetEffect looks at what a delay does, and to whom.
func testNetEffect(t *testing.T, n *NetFaults, target, neighbour *instance) {
	pristine, neighbours := target.qdiscs(t), neighbour.qdiscs(t)
	t.Run("a delay delays the target and nobody else", func(t *testing.T) {
		require.NoError(t, n.Check(target.link, target.name))
		rule := target.rule(netDelay, time.Minute)
		setNet(t, n, rule)
		shortest, median := target.pings(t, 15)
		t.Logf("asked %v, shortest round trip %v, median %v", netDelay, shortest, median)
		require.GreaterOrEqual(t, shortest, netDelay)
		require.Less(t, shortest, netDelay+netPrompt)
		shortest, _ = neighbour.pings(t, 15)
		require.Less(t, shortest, netPrompt)
		require.Equal(t, neighbours, neighbour.qdiscs(t))
		require.Contains(t, target.qdiscs(t), "delay 60ms")
		require.Contains(t, target.qdiscs(t), "limit 10000p")

		hits, drops, armed, err := n.Get(target.link)
		require.NoError(t, err)
		require.GreaterOrEqual(t, hits, uint64(15))
		require.Zero(t, drops)
		require.True(t, armed)
		require.NoError(t, n.Check(target.link, target.name), "our own tree is no obstacle")
		require.NoError(t, n.Set(rule), "the same rule again is fine")
		rule.Delay++
		require.ErrorIs(t, n.Set(rule), ErrBusy)
	})

	t.Run("clear restores the interface and can be repeated", func(t *testing.T) {
		require.Equal(t, pristine, target.qdiscs(t))
		require.NoError(t, n.Clear(target.link, target.name))
		shortest, _ := target.pings(t, 5)
		require.Less(t, shortest, netPrompt)
		_, _, _, err := n.Get(target.link)
		require.Error(t, err)
	})

	t.Run("jitter spreads the delay to both sides", func(t *testing.T) {
		rule := target.rule(netDelay, time.Minute)
		rule.Jitter = netDelay / 2
		setNet(t, n, rule)
		shortest, _ := target.pings(t, 25)
		require.GreaterOrEqual(t, shortest, netDelay/2)
		require.Less(t, shortest, netDelay)
	})
}

func testNetLoss(t *testing.T, n *NetFaults, target *instance) {
	t.Run("whole loss loses every packet", func(t *testing.T) {
		rule := target.rule(0, time.Minute)
		rule.LossPPM = 1_000_000
		setNet(t, n, rule)
		before := target.echoed.Load()
		target.flood(t, 50)
		_, ok := target.ping(t)
		require.False(t, ok)
		require.Equal(t, before, target.echoed.Load())
		hits, drops, _, err := n.Get(target.link)
		require.NoError(t, err)
		require.GreaterOrEqual(t, drops, uint64(51))
		require.Equal(t, hits, drops)
	})

	t.Run("half loss loses half", func(t *testing.T) {
		rule := target.rule(0, time.Minute)
		rule.LossPPM = 500_000
		setNet(t, n, rule)
		target.flood(t, 2000)
		target.drain(t)
		hits, drops, _, err := n.Get(target.link)
		require.NoError(t, err)
		require.GreaterOrEqual(t, hits, uint64(2000))
		// Six standard deviations of a fair coin.
		require.InDelta(t, hits/2, drops, 135)
	})
}

// testNetEnd looks at every way in which a fault ends by itself.
func testNetEnd(t *testing.T, n *NetFaults, target *instance) {
	t.Run("the gate is shut from the deadline on", func(t *testing.T) {
		rule := target.rule(netDelay, 3*time.Second)
		setNet(t, n, rule)
		require.Positive(t, delayedBefore(t, target, rule.Deadline))
		requireInert(t, n, target)
		require.NoError(t, n.Renew(time.Minute))
		requireInert(t, n, target)
	})

	t.Run("the gate is shut when the lease has run out and opens with the next", func(t *testing.T) {
		require.NoError(t, n.Set(target.rule(netDelay, time.Minute)))
		t.Cleanup(func() { require.NoError(t, n.Clear(target.link, target.name)) })
		set := BootTime()
		sleepUntil(t, set+Lease)
		requireInert(t, n, target)
		require.NoError(t, n.Renew(time.Minute))
		shortest, _ := target.pings(t, 5)
		require.GreaterOrEqual(t, shortest, netDelay)
	})
}

// testNetClear looks at what is taken away and what that costs.
func testNetClear(t *testing.T, n *NetFaults, target *instance) {
	pristine := target.qdiscs(t)
	t.Run("close ends the fault and a later one takes its tree away", func(t *testing.T) {
		first := openNet(t)
		require.NoError(t, first.Set(target.rule(netDelay, time.Minute)))
		require.NoError(t, first.Close())
		require.Contains(t, target.qdiscs(t), "netem")
		shortest, _ := target.pings(t, 5)
		require.Less(t, shortest, netPrompt)
		require.NoError(t, n.Set(target.rule(netDelay, time.Minute)), "a leftover tree is replaced")
		require.NoError(t, openNet(t).Clear(target.link, target.name))
		require.Equal(t, pristine, target.qdiscs(t))
	})

	t.Run("packets under delay are not lost when the fault is cleared", func(t *testing.T) {
		for who, clearer := range map[string]*NetFaults{"its own": n, "another": openNet(t)} {
			before := target.echoed.Load()
			require.NoError(t, n.Set(target.rule(500*time.Millisecond, time.Minute)))
			target.flood(t, 20)
			require.NoError(t, clearer.Clear(target.link, target.name))
			require.Eventually(t, func() bool { return target.echoed.Load() == before+20 },
				5*time.Second, 10*time.Millisecond, "cleared by %s process", who)
			require.NoError(t, n.Clear(target.link, target.name))
		}
	})

	t.Run("setting and clearing cost a moment of packets at most", func(t *testing.T) {
		const cycles = 10
		const gap = 200 * time.Microsecond
		stop, sent := make(chan struct{}), make(chan int64)
		before := target.echoed.Load()
		go func() {
			for i := int64(0); ; i++ {
				select {
				case <-stop:
					sent <- i
					return
				default:
				}
				_, _ = target.conn.Write([]byte("x"))
				for begun := time.Now(); time.Since(begun) < gap; {
				}
			}
		}()
		for range cycles {
			require.NoError(t, n.Set(target.rule(time.Millisecond, time.Minute)))
			sleepUntil(t, BootTime()+50*time.Millisecond)
			require.NoError(t, n.Clear(target.link, target.name))
			sleepUntil(t, BootTime()+50*time.Millisecond)
		}
		close(stop)
		total := <-sent
		target.drain(t)
		lost := total - (target.echoed.Load() - before)
		t.Logf("lost %d of %d datagrams sent %v apart during %d times set and clear", lost, total, gap, cycles)
		require.Less(t, lost, total/4)
	})
}

func TestNetFaultsOutlivedByTheirGate(t *testing.T) {
	if os.Getenv(netRoleEnv) != "" {
		netAgent()
	}
	target := startInstance(t, 3)
	pristine := target.qdiscs(t)

	t.Run("a fault whose process was killed ends at its deadline", func(t *testing.T) {
		deadline := BootTime() + 8*time.Second
		agent := exec.Command("/proc/self/exe", "-test.run=^TestNetFaultsOutlivedByTheirGate$")
		agent.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %d", netRoleEnv, target.link, target.name, deadline))
		agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := agent.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, agent.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "armed\n", line)
		require.NoError(t, agent.Process.Kill())
		require.Error(t, agent.Wait(), "killed")

		require.Positive(t, delayedBefore(t, target, deadline))
		shortest, _ := target.pings(t, 10)
		require.Less(t, shortest, netPrompt)
		require.Contains(t, target.qdiscs(t), "netem", "the tree is still there, and inert")
		require.NoError(t, openNet(t).Clear(target.link, target.name))
		require.Equal(t, pristine, target.qdiscs(t))
	})
}

func TestNetFaultsRefused(t *testing.T) {
	target := startInstance(t, 4)
	pristine := target.qdiscs(t)
	n := openNet(t)

	for name, foreign := range map[string]string{
		"a foreign root":               "handle 1: pfifo limit 500",
		"a foreign prio":               "handle 1: prio",
		"a prio of another shape":      "handle 6d6f: prio bands 3",
		"netem that somebody else set": "netem delay 1ms",
	} {
		t.Run(name+" is refused and left alone", func(t *testing.T) {
			iproute(t, "tc qdisc add dev %s root %s", target.name, foreign)
			was := target.qdiscs(t)
			require.ErrorContains(t, n.Check(target.link, target.name), "not ours")
			require.ErrorContains(t, n.Set(target.rule(netDelay, time.Minute)), "not ours")
			require.ErrorContains(t, n.Clear(target.link, target.name), "not ours")
			require.Equal(t, was, target.qdiscs(t))
			iproute(t, "tc qdisc del dev %s root", target.name)
			require.NoError(t, n.Check(target.link, target.name))
		})
	}

	t.Run("filters of others on clsact stay", func(t *testing.T) {
		iproute(t, "tc qdisc add dev %s clsact", target.name)
		was := target.qdiscs(t)
		require.NoError(t, n.Set(target.rule(netDelay, time.Minute)))
		require.NoError(t, n.Clear(target.link, target.name))
		require.Equal(t, was, target.qdiscs(t))
		iproute(t, "tc qdisc del dev %s clsact", target.name)
	})

	t.Run("a tree half built is removed", func(t *testing.T) {
		iproute(t, "tc qdisc add dev %s root handle 6d6f: prio bands 2 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", target.name)
		require.NoError(t, n.Clear(target.link, target.name))
		require.Equal(t, pristine, target.qdiscs(t))
	})

	t.Run("a transmit queue of length zero does not swallow the plain band", func(t *testing.T) {
		iproute(t, "ip link set %s txqueuelen 0", target.name)
		require.NoError(t, n.Set(target.rule(netDelay, 2*time.Second)))
		sleepUntil(t, BootTime()+2*time.Second)
		requireInert(t, n, target)
		require.NoError(t, n.Clear(target.link, target.name))
		require.Contains(t, target.qdiscs(t), "noqueue")
	})
}

func TestNetFaultsCheck(t *testing.T) {
	target := startInstance(t, 5)
	pristine := target.qdiscs(t)
	n := openNet(t)

	t.Run("interfaces that are not one instance's are refused", func(t *testing.T) {
		iproute(t, "ip link add bridge9 type bridge")
		iproute(t, "ip link set bridge9 up")
		var index int
		_, err := fmt.Sscan(iproute(t, "cat /sys/class/net/bridge9/ifindex"), &index)
		require.NoError(t, err)
		require.ErrorContains(t, n.Check(index, "bridge9"), `of type "bridge"`)
		iproute(t, "ip link del bridge9")
		require.ErrorContains(t, n.Check(index, "bridge9"), "find interface")
		require.NoError(t, n.Clear(index, "bridge9"), "an interface that is gone is cleared")
	})

	t.Run("an interface of another name is refused", func(t *testing.T) {
		require.ErrorContains(t, n.Check(target.link, "other"), `is "host5", not "other"`)
		require.NoError(t, n.Clear(target.link, "other"), "without a tree of ours the old interface is gone")
		require.NoError(t, n.Set(target.rule(netDelay, time.Minute)))
		require.ErrorContains(t, n.Clear(target.link, "other"), "tc qdisc del dev host5 root")
		require.NoError(t, n.Clear(target.link, target.name))
	})

	t.Run("an interface that is down is refused", func(t *testing.T) {
		iproute(t, "ip link set %s down", target.name)
		require.ErrorContains(t, n.Check(target.link, target.name), "is down")
		require.NoError(t, n.Clear(target.link, target.name))
		iproute(t, "ip link set %s up", target.name)
	})

	t.Run("a deadline that has passed leaves nothing behind", func(t *testing.T) {
		require.ErrorContains(t, n.Set(target.rule(netDelay, -time.Second)), "has passed")
		require.Equal(t, pristine, target.qdiscs(t))
	})
}

func TestProbeNetFaults(t *testing.T) {
	t.Run("a datagram is seen late and then in time", func(t *testing.T) {
		links := iproute(t, "ip -o link show")
		feature := ProbeNetFaults(t.Context())
		t.Log(feature.Detail)
		require.Equal(t, "net-delay", feature.Name)
		require.True(t, feature.OK, feature.Detail)
		require.Equal(t, links, iproute(t, "ip -o link show"))
	})
}

// delayedBefore pings until the deadline and returns how many round trips were
// over before it. Each of them must have been delayed.
func delayedBefore(t *testing.T, in *instance, deadline time.Duration) (delayed int) {
	t.Helper()
	for {
		rtt, ok := in.ping(t)
		require.True(t, ok)
		if BootTime() >= deadline {
			return delayed
		}
		require.GreaterOrEqual(t, rtt, netDelay)
		delayed++
	}
}

// requireInert shows that the tree stands and no packet passes netem.
func requireInert(t *testing.T, n *NetFaults, in *instance) {
	t.Helper()
	before, _, armed, err := n.Get(in.link)
	require.NoError(t, err)
	require.False(t, armed)
	shortest, _ := in.pings(t, 10)
	require.Less(t, shortest, netPrompt)
	after, _, _, err := n.Get(in.link)
	require.NoError(t, err)
	require.Equal(t, before, after, "no packet has passed the gate")
	require.Contains(t, in.qdiscs(t), "netem")
}

// netAgent arms a rule with a lease beyond its deadline, says so and waits to
// be killed.
func netAgent() {
	r := change.NetRule{Delay: netDelay}
	_, err := fmt.Sscan(os.Getenv(netRoleEnv), &r.Link, &r.Name, (*int64)(&r.Deadline))
	if err == nil {
		var n *NetFaults
		if n, err = OpenNetFaults(); err == nil {
			err = errors.Join(n.Set(r), n.Renew(time.Minute))
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("armed")
	select {}
}
