package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// blind is a cache that has not seen any experiment's status yet.
type blind struct{ client.Client }

func (b blind) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	if _, ok := list.(*v1alpha1.ChaosExperimentList); ok {
		return nil
	}
	return b.Client.List(ctx, list, opts...)
}

var errCrash = errors.New("the controller crashed")

// crashAt makes the nth thing that changes anything outside fail: before it takes
// effect, or after it did, so that only its outcome is lost.
type crashAt struct {
	n, step int
	after   bool
	crashed bool
}

// hit counts a step and says whether it is the one.
func (c *crashAt) hit() bool {
	c.step++
	if c.step == c.n {
		c.crashed = true
		return true
	}
	return false
}

func (w *world) arm(c *crashAt) {
	write := func(do func() error) error {
		hit := c.hit()
		if hit && !c.after {
			return errCrash
		}
		if err := do(); err != nil {
			return err
		}
		if hit {
			return errCrash
		}
		return nil
	}
	w.hooks.SubResourcePatch = func(ctx context.Context, k client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
		return write(func() error { return k.SubResource(sub).Patch(ctx, o, p, opts...) })
	}
	w.hooks.Patch = func(ctx context.Context, k client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
		return write(func() error { return k.Patch(ctx, o, p, opts...) })
	}
	hit := false
	w.agents.hook = func(string, *agentpb.ApplyRequest) error {
		if hit = c.hit(); hit && !c.after {
			return status.Error(codes.Unavailable, "connection broke")
		}
		return nil
	}
	w.agents.late = func(string, *agentpb.ApplyRequest) error {
		if hit {
			return status.Error(codes.Unavailable, "connection broke")
		}
		return nil
	}
}

// recorded checks that every fault in force stands in the status of an experiment
// that is not over.
func (w *world) recorded() {
	w.Helper()
	var list v1alpha1.ChaosExperimentList
	require.NoError(w, w.kube.List(w.Context(), &list))
	for _, uid := range w.agents.inForce() {
		require.True(w, stoodFor(list.Items, uid), "fault %s is in force without a record", uid)
	}
}

// live goes through a whole experiment, with a new controller after each crash.
// meanwhile happens 20 s in. What it returns is how many steps there were.
func (w *world) live(c *crashAt, pause time.Duration, meanwhile func(w *world)) int {
	w.Helper()
	w.arm(c)
	begin := w.clock
	for i := 0; ; i++ {
		require.Less(w, i, 200, "the experiment does not come to an end")
		was := c.crashed
		_, err := w.r.reconcile(w.Context(), key{kindChaos, "db", "lag"})
		if err != nil || c.crashed && !was {
			require.ErrorIs(w, errors.Join(err, errCrash), errCrash)
			w.fresh()
			w.after(pause)
		}
		w.recorded()
		if meanwhile != nil && w.clock.Sub(begin) >= 20*time.Second {
			meanwhile(w)
			meanwhile = nil
			continue
		}
		for _, n := range w.agents.nodes {
			for _, f := range n.reply.Faults {
				if f.Phase == "active" && !w.clock.Before(f.Deadline.AsTime()) {
					w.agents.endFault(f, "deadline")
				}
			}
		}
		var e v1alpha1.ChaosExperiment
		if client.IgnoreNotFound(w.kube.Get(w.Context(), client.ObjectKey{Namespace: "db", Name: "lag"}, &e)) == nil && (e.Name == "" || finished(e.Status.Phase) && len(e.Finalizers) == 0) {
			return c.step
		}
		w.after(3 * time.Second)
	}
}

func TestACrashBetweenAnyTwoStepsLeavesNothingBehind(t *testing.T) {
	for name, c := range map[string]struct {
		change    change
		pause     time.Duration
		meanwhile func(w *world)
	}{
		"to the deadline":         {two, time.Second, nil},
		"to the deadline, slowly": {two, startWindow + time.Second, nil},
		"taken over too late":     {two, 2 * time.Minute, nil},
		"aborted":                 {two, time.Second, func(w *world) { e := w.lag(); e.Spec.Abort = true; w.update(e) }},
		"deleted":                 {two, time.Second, func(w *world) { require.NoError(w, w.kube.Delete(w.Context(), w.lag())) }},
		"resumed": {func(e *v1alpha1.ChaosExperiment) { two(e); resumes(e) }, time.Second, func(w *world) {
			for _, n := range w.agents.nodes {
				for _, f := range n.reply.Faults {
					w.agents.endFault(f, "agent stopped")
				}
			}
		}},
	} {
		for _, after := range []bool{false, true} {
			w := newWorld(t)
			mayHitTwo(w)
			w.experiment(c.change)
			steps := w.live(&crashAt{}, c.pause, c.meanwhile)
			require.Greater(t, steps, 6)
			for n := 1; n <= steps; n++ {
				t.Run(fmt.Sprintf("%s, step %d, after it took effect: %t", name, n, after), func(t *testing.T) {
					w := newWorld(t)
					mayHitTwo(w)
					w.experiment(c.change)
					w.live(&crashAt{n: n, after: after}, c.pause, c.meanwhile)
					require.Empty(t, w.agents.inForce())
				})
			}
		}
	}
}

// stale is a cache that still has an experiment as it was created.
type stale struct {
	client.Client
	old *v1alpha1.ChaosExperiment
}

func (s stale) Get(ctx context.Context, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if e, ok := o.(*v1alpha1.ChaosExperiment); ok {
		s.old.DeepCopyInto(e)
		return nil
	}
	return s.Client.Get(ctx, k, o, opts...)
}

func TestACacheThatLagsBehindBeginsNothingTwice(t *testing.T) {
	w := newWorld(t)
	mayHitTwo(w)
	w.experiment()
	old := w.lag()
	w.chaos("lag")
	require.Equal(t, 1, w.agents.called("fault"))
	// By now another pod would be chosen.
	w.r.kube = stale{w.kube, old}
	p := w.pod(int(w.target()[1] - '0'))
	p.Labels["role"] = "primary"
	w.update(p)
	_, err := w.r.reconcile(t.Context(), key{kindChaos, "db", "lag"})
	require.True(t, apierrors.IsConflict(err), "%v", err)
	require.Equal(t, 1, w.agents.called("fault"))
	require.Len(t, w.agents.inForce(), 1)
}
