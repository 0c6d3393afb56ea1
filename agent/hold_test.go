package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// kernel stands for the cpuset of one instance of a fixture.
type kernel struct {
	t   *testing.T
	dir string
	// asked are the nodes that were asked for, -1 for any; err is the answer.
	asked []int
	err   error
}

// set makes the kernel report other CPUs and memory nodes.
func (k *kernel) set(cpus, mems string) {
	write(k.t, filepath.Join(k.dir, "cpuset.cpus.effective"), cpus+"\n")
	write(k.t, filepath.Join(k.dir, "cpuset.mems.effective"), mems+"\n")
}

func (k *kernel) place(_ context.Context, in *state.InstanceStatus, node *int) (*Outcome, error) {
	id := in.ID
	n := -1
	if node != nil {
		n = *node
	}
	k.asked = append(k.asked, n)
	if k.err != nil {
		return nil, k.err
	}
	n = max(n, 0)
	k.set([]string{"0-1", "2-3"}[n], strconv.Itoa(n))
	return &Outcome{Instance: id, Resources: state.Resources{CPUs: []string{"0-1", "2-3"}[n], MemoryNodes: strconv.Itoa(n)}}, nil
}

// heldInstance returns an agent with one declared instance, and its kernel.
func heldInstance(t *testing.T, wants string) (*fixture, *Agent, *kernel) {
	t.Helper()
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	in.Declared = &state.Declared{Namespace: "db", Pod: "orders", PodUID: "u1", Policy: "db/postgres", NUMA: wants}
	a := f.agent(t)
	k := &kernel{t: t, dir: filepath.Join(f.root, "cgroup/db/orders")}
	a.holder.place = k.place
	return f, a, k
}

// turn is one tick and what follows it.
func turn(t *testing.T, a *Agent) *state.InstanceStatus {
	t.Helper()
	a.tick(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := a.holder.place
	a.holder.place = func(c context.Context, in *state.InstanceStatus, node *int) (*Outcome, error) {

		defer cancel() // nobody serves Look here
		return cancelled(c, in, node)
	}
	a.hold(ctx, a.Snapshot())
	a.holder.place = cancelled
	a.tick(t.Context())
	in, err := a.Snapshot().Find("/db/orders")
	require.NoError(t, err)
	return in
}

func TestAnInstanceIsBroughtWhereItsPolicyWantsItAndStaysThere(t *testing.T) {
	_, a, k := heldInstance(t, state.NUMASingleNode)
	in, err := a.Snapshot().Find("/db/orders")
	require.NoError(t, err)
	require.Equal(t, "it is not placed yet", in.PlacementErr)
	in = turn(t, a)
	require.Equal(t, []int{-1}, k.asked)
	require.Empty(t, in.PlacementErr)
	require.Equal(t, 0, in.Placement.Node)
	turn(t, a)
	require.Len(t, k.asked, 1)
}

func TestWhatNoPolicyWantsIsLeftAlone(t *testing.T) {
	t.Run("numa none", func(t *testing.T) {
		_, a, k := heldInstance(t, state.NUMANone)
		require.Empty(t, turn(t, a).PlacementErr)
		k.set("0-1", "0")
		require.Empty(t, turn(t, a).PlacementErr)
		require.Empty(t, k.asked)
	})
	t.Run("not declared", func(t *testing.T) {
		f, a, k := heldInstance(t, state.NUMASingleNode)
		f.result.Instances[0].Declared = nil
		a.collector.discovered = time.Time{}
		require.Empty(t, turn(t, a).PlacementErr)
		require.Empty(t, k.asked)
	})
	t.Run("a machine of one node", func(t *testing.T) {
		f, a, k := heldInstance(t, state.NUMASingleNode)
		require.NoError(t, os.RemoveAll(filepath.Join(f.root, "sys/devices/system/node/node1")))
		write(t, filepath.Join(f.root, "sys/devices/system/node/node0/cpulist"), "0-3\n")
		write(t, filepath.Join(f.root, "sys/devices/system/node/node0/distance"), "10\n")
		a.collector.mapped = time.Time{}
		require.Empty(t, turn(t, a).PlacementErr)
		require.Len(t, a.Snapshot().Nodes, 1, a.Snapshot().Collectors)
		require.Empty(t, k.asked)
	})
}

func TestAnInstanceThatIsConfinedAlreadyIsNotMoved(t *testing.T) {
	_, a, k := heldInstance(t, state.NUMASingleNode)
	k.set("3", "1")
	require.Empty(t, turn(t, a).PlacementErr)
	require.Empty(t, k.asked)
	k.set("0-3", "0-1")
	turn(t, a)
	require.Equal(t, []int{1}, k.asked, "back to where it was")
}

func TestCPUsOfAnotherNodeAreNotItsPlace(t *testing.T) {
	_, a, k := heldInstance(t, state.NUMASingleNode)
	k.set("0-3", "1")
	turn(t, a)
	require.Len(t, k.asked, 1)
}

func TestARefusedPlacementIsTriedAgainLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, k := heldInstance(t, state.NUMASingleNode)
		k.err = refused(errors.New("no NUMA node fits"))
		var waits []time.Duration
		last := time.Now()
		for len(k.asked) < 9 {
			before := len(k.asked)
			require.Equal(t, "no NUMA node fits", turn(t, a).PlacementErr)
			if len(k.asked) > before {
				waits = append(waits, time.Since(last).Round(time.Second))
				last = time.Now()
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, []time.Duration{0, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 300 * time.Second, 300 * time.Second, 300 * time.Second}, waits)

		a.holder.held["/db/orders"].policy = "db/before"
		turn(t, a)
		require.Len(t, k.asked, 10, "another policy is tried at once")
		k.err = nil
		time.Sleep(time.Minute)
		require.Empty(t, turn(t, a).PlacementErr)
	})
}

func TestAContainerMadeAgainIsPlacedAnew(t *testing.T) {
	_, a, k := heldInstance(t, state.NUMASingleNode)
	turn(t, a)
	a.holder.held["/db/orders"].cgroupID++
	k.set("0-3", "0-1")
	turn(t, a)
	require.Equal(t, []int{-1, -1}, k.asked, "where its former container was does not bind it")
}

func TestAFightIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, k := heldInstance(t, state.NUMASingleNode)
		require.Empty(t, turn(t, a).PlacementErr)
		for range maxRewrites {
			time.Sleep(10 * time.Second)
			k.set("0-3", "0-1")
			require.Empty(t, turn(t, a).PlacementErr)
		}
		require.Equal(t, []int{-1, 0, 0, 0}, k.asked)
		k.set("0-3", "0-1")
		require.Contains(t, turn(t, a).PlacementErr, "something else writes its cpuset (4 times in 10m0s")
		time.Sleep(time.Hour)
		require.Contains(t, turn(t, a).PlacementErr, "something else writes its cpuset")
		require.Len(t, k.asked, 4)
		k.set("0-1", "0")
		require.Empty(t, turn(t, a).PlacementErr, "it is where it is to be, whoever did it")
		k.set("0-3", "0-1")
		require.Contains(t, turn(t, a).PlacementErr, "something else writes its cpuset")
		require.Len(t, k.asked, 4)
	})
}

func TestRewritesNowAndThenAreNoFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, k := heldInstance(t, state.NUMASingleNode)
		turn(t, a)
		for range 20 {
			time.Sleep(4 * time.Minute)
			k.set("0-3", "0-1")
			require.Empty(t, turn(t, a).PlacementErr)
		}
		require.Len(t, k.asked, 21)
	})
}

func TestAnInstanceIsNotMovedUnderAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, k := heldInstance(t, state.NUMASingleNode)
		for _, phase := range []state.Phase{state.FaultActive, state.FaultStuck} {
			a.faults["f1"] = &fault{Fault: state.Fault{UID: "f1", Kind: "freeze", Instance: "/db/orders", Phase: phase}}
			require.Equal(t, `it waits for the end of fault "f1"`, turn(t, a).PlacementErr)
		}
		require.Empty(t, k.asked)
		a.faults["f1"].Phase = state.FaultEnded
		time.Sleep(time.Second)
		require.Empty(t, turn(t, a).PlacementErr)
	})
}

func TestWhatCannotBePlacedSaysWhy(t *testing.T) {
	f, a, k := heldInstance(t, state.NUMASingleNode)
	f.result.Instances[0].Cgroup.Shared = "its cgroup also holds process 77"
	a.collector.discovered = time.Time{}
	a.holder.place = func(ctx context.Context, in *state.InstanceStatus, node *int) (*Outcome, error) {

		return a.Place(ctx, in.ID, "single-node", node, PlaceOptions{})
	}
	require.Contains(t, turn(t, a).PlacementErr, "its cgroup also holds process 77")
	require.Empty(t, k.asked)
}

func TestTheLoopPlacesWithoutHoldingUpTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, k := heldInstance(t, state.NUMASingleNode)
		begun, goOn := make(chan struct{}), make(chan struct{})
		a.holder.place = func(ctx context.Context, in *state.InstanceStatus, node *int) (*Outcome, error) {

			close(begun)
			<-goOn
			return k.place(ctx, in, node)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go a.followDesired(ctx)
		go a.loop(ctx)
		<-begun
		at := a.Snapshot().Time
		time.Sleep(3 * a.cfg.Tick)
		ticked := a.Snapshot().Time.Sub(at)
		close(goOn)
		require.GreaterOrEqual(t, ticked, 2*a.cfg.Tick)
		time.Sleep(2 * a.cfg.Tick)
		in, err := a.Snapshot().Find("/db/orders")
		require.NoError(t, err)
		require.Empty(t, in.PlacementErr)
		cancel()
		synctest.Wait()
	})
}
