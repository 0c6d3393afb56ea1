package controller

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestEpochsGrow(t *testing.T) {
	made := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ earlier, later uint64 }{
		"with each takeover":                 {epochOf(made, 1), epochOf(made, 2)},
		"when the Lease was made again":      {epochOf(made, 1<<20-1), epochOf(made.Add(time.Second), 0)},
		"from a controller that leads alone": {epochOf(made, 0), epochOf(made.Add(time.Minute), 0)},
	} {
		t.Run(name, func(t *testing.T) { require.Less(t, c.earlier, c.later) })
	}
	require.Equal(t, uint64(made.Unix())<<20|5, epochOf(made, 5))
}

// candidate is a controller that runs for leader with leases kept in memory.
type candidate struct {
	*Controller
	stop func()
}

func newCandidate(t *testing.T, name string, leases *fake.Clientset) *candidate {
	t.Helper()
	o := testOptions("http://127.0.0.1:1")
	o.Identity = name
	c, err := New(o)
	require.NoError(t, err)
	c.r.kube = crfake.NewClientBuilder().WithScheme(newScheme()).Build()
	c.r.live = client.Reader(c.r.kube)
	out := &candidate{Controller: c}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: "mooring-system", Name: leaseName},
		Client:    leases.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: name},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = c.term(ctx, lock, leases.CoordinationV1())
		}
	}()
	out.stop = func() { cancel(); <-done; c.queue.ShutDown() }
	return out
}

// leadsUnder is the epoch that the fleet was given, 0 when not leading.
func (c *candidate) leadsUnder() uint64 {
	if !c.source.leading.Load() {
		return 0
	}
	return c.fleet.Epoch()
}

func TestOneControllerLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := fake.NewClientset()
		a := newCandidate(t, "a", leases)
		time.Sleep(2 * time.Second)
		first := a.leadsUnder()
		require.NotZero(t, first)

		b := newCandidate(t, "b", leases)
		time.Sleep(30 * time.Second)
		require.Zero(t, b.leadsUnder())
		require.Equal(t, first, a.leadsUnder())

		a.stop()
		require.Zero(t, a.leadsUnder())
		time.Sleep(3 * time.Second)
		require.Greater(t, b.leadsUnder(), first, "handed over at once, under a later epoch")
		b.stop()
	})
}

func TestALostLeaseStopsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leases := fake.NewClientset()
		a := newCandidate(t, "a", leases)
		time.Sleep(2 * time.Second)
		first := a.leadsUnder()
		require.NotZero(t, first)
		// The API server goes away.
		var away atomic.Bool
		away.Store(true)
		leases.PrependReactor("*", "leases", func(ktesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, errors.New("connection refused")
		})
		time.Sleep(renewDeadline + 2*time.Second)
		require.Zero(t, a.leadsUnder(), "before the lease could be taken by another")
		time.Sleep(time.Hour)
		require.Zero(t, a.leadsUnder())
		away.Store(false)
		time.Sleep(10 * time.Second)
		require.GreaterOrEqual(t, a.leadsUnder(), first, "it leads again, without a restart of the process")
		a.stop()
	})
}
