package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

type change = func(*v1alpha1.ChaosExperiment)

func count(n int32) change {
	return func(e *v1alpha1.ChaosExperiment) { c := intstr.FromInt32(n); e.Spec.Target.Count = &c }
}

func two(e *v1alpha1.ChaosExperiment)     { c := intstr.FromInt32(2); e.Spec.Target.Count = &c }
func resumes(e *v1alpha1.ChaosExperiment) { e.Spec.OnAgentRestart = v1alpha1.Resume }
func goesOn(e *v1alpha1.ChaosExperiment)  { e.Spec.OnControlLoss = v1alpha1.ContinueUntilDeadline }
func anyRole(e *v1alpha1.ChaosExperiment) { e.Spec.Target.Role = "" }
func named(pods ...string) change {
	return func(e *v1alpha1.ChaosExperiment) { e.Spec.Target.Pods = pods }
}
func lasts(d time.Duration) change {
	return func(e *v1alpha1.ChaosExperiment) { e.Spec.Duration.Duration = d }
}
func dryRun(e *v1alpha1.ChaosExperiment) { e.Spec.DryRun = true }
func mayHitTwo(w *world) {
	p := w.policyObject()
	m := intstr.FromInt32(2)
	p.Spec.Chaos.MaxAffected = &m
	w.update(p)
}

func (w *world) policyObject() *v1alpha1.DatabasePolicy {
	w.Helper()
	var p v1alpha1.DatabasePolicy
	require.NoError(w, w.kube.Get(w.Context(), types.NamespacedName{Namespace: "db", Name: "pg"}, &p))
	return &p
}

func TestAnExperimentRunsItsCourse(t *testing.T) {
	w := newWorld(t)
	w.experiment()
	w.chaos("lag")
	e := w.lag()
	require.Equal(t, v1alpha1.ExperimentActive, e.Status.Phase)
	require.Equal(t, "net-delay delay=300ms", e.Status.Fault)
	require.Contains(t, e.Finalizers, faultFinalizer)
	requireCondition(t, e.Status.Conditions, v1alpha1.TargetsResolved, metav1.ConditionTrue, "Resolved")
	requireCondition(t, e.Status.Conditions, v1alpha1.FaultActive, metav1.ConditionTrue, "InForce")
	requireCondition(t, e.Status.Conditions, v1alpha1.EffectObserved, metav1.ConditionFalse, "NoHits")
	x := e.Status.Targets[0]
	require.Equal(t, "replica", x.Role)
	require.Equal(t, "orders", x.Cluster)
	require.Equal(t, experimentUID+"-"+x.UID[:8], x.FaultUID)
	require.Equal(t, []string{"netem delay 300ms"}, x.Changes)
	f := w.agents.fault(x.Node)
	require.Equal(t, x.FaultUID, f.GetUid())

	f.Hits = 7
	w.after(10 * time.Second)
	w.chaos("lag")
	requireCondition(t, w.lag().Status.Conditions, v1alpha1.EffectObserved, metav1.ConditionTrue, "Hits")
	require.EqualValues(t, 7, w.lag().Status.Hits)

	w.after(51 * time.Second)
	w.agents.endFault(f, "deadline")
	require.Zero(t, w.chaos("lag"))
	e = w.lag()
	require.Equal(t, v1alpha1.ExperimentRecovered, e.Status.Phase)
	requireCondition(t, e.Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionTrue, "Verified")
	requireCondition(t, e.Status.Conditions, v1alpha1.FaultActive, metav1.ConditionFalse, "Over", "deadline")
	require.Equal(t, "deadline", e.Status.Targets[0].Reason)
	require.True(t, e.Status.Targets[0].Recovered)
	require.NotNil(t, e.Status.EndedAt)
	require.Empty(t, e.Finalizers)
	require.Zero(t, w.agents.called("withdraw"))
	w.chaos("lag")
	require.Equal(t, e, w.lag(), "an experiment that is over is left alone")
}

func TestTheStatusIsWrittenBeforeTheFaultBegins(t *testing.T) {
	w := newWorld(t)
	w.experiment()
	w.agents.hook = func(_ string, r *agentpb.ApplyRequest) error {
		if !r.GetDryRun() {
			e := w.lag()
			require.Equal(t, v1alpha1.ExperimentPending, e.Status.Phase)
			require.Equal(t, r.GetUid(), e.Status.Targets[0].FaultUID)
			require.Equal(t, e.Status.Deadline.UTC(), r.GetFault().GetNotAfter().AsTime())
			require.Equal(t, faultLease, r.GetFault().GetLease().AsDuration())
		}
		return nil
	}
	w.chaos("lag")
	require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
}

func TestADryRunBreaksNothing(t *testing.T) {
	w := newWorld(t)
	w.experiment(dryRun)
	w.chaos("lag")
	e := w.lag()
	require.Equal(t, v1alpha1.ExperimentDryRun, e.Status.Phase)
	require.Equal(t, []string{"netem delay 300ms"}, e.Status.Targets[0].Changes)
	require.Empty(t, e.Status.Targets[0].FaultUID)
	require.Empty(t, e.Finalizers)
	require.Empty(t, w.agents.inForce())
}

func TestLeasesAreRenewed(t *testing.T) {
	t.Run("every five seconds, in the session in which the fault was seen", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		require.LessOrEqual(t, w.chaos("lag"), renewEvery)
		require.Equal(t, 1, w.agents.called("fault"))
		w.after(time.Second)
		w.chaos("lag")
		require.Equal(t, 1, w.agents.called("fault"))
		w.after(4 * time.Second)
		w.chaos("lag")
		require.Equal(t, 2, w.agents.called("fault"))
		require.Len(t, w.agents.inForce(), 1)
	})
	t.Run("at once by a controller that took over, as soon as the agent is there", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		w.after(9 * time.Second)
		w.fresh()
		n := w.agents.nodes[w.target()]
		n.err = &fleet.Error{Node: w.target(), Reason: fleet.Connecting}
		require.Equal(t, time.Second, w.chaos("lag"))
		n.err = nil
		w.chaos("lag")
		require.Equal(t, 2, w.agents.called("fault"))
	})
	t.Run("not where the fault is to go on without a controller", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(goesOn)
		require.Greater(t, w.chaos("lag"), 30*time.Second)
		w.after(20 * time.Second)
		w.chaos("lag")
		require.Equal(t, 1, w.agents.called("fault"))
	})
	t.Run("a renewal does not begin a fault anew with an agent that was restarted", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		n := w.agents.nodes[w.target()]
		w.agents.race = func() {
			w.agents.race, n.reply.Faults = nil, nil
			n.session++
		}
		w.after(5 * time.Second)
		w.chaos("lag")
		require.Empty(t, w.agents.inForce())
		w.after(time.Second)
		w.chaos("lag")
		require.Empty(t, w.agents.inForce())
		require.Equal(t, v1alpha1.ExperimentRecovered, w.lag().Status.Phase)
	})
	t.Run("a lease that ran out ends the experiment as its spec says", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		w.agents.endFault(w.agents.fault(w.target()), "lease")
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentRecovered, w.lag().Status.Phase)
		requireCondition(t, w.lag().Status.Conditions, v1alpha1.FaultActive, metav1.ConditionFalse, "Over", "lease")
	})
}

func TestAStartThatFailsOnOneTargetEndsAll(t *testing.T) {
	for name, fail := range map[string]func(w *world, node string) error{
		"refused":                  func(*world, string) error { return status.Error(codes.FailedPrecondition, "the disk is on fire") },
		"not known if it happened": func(*world, string) error { return status.Error(codes.DeadlineExceeded, "too slow") },
		"agent gone":               func(_ *world, node string) error { return &fleet.Error{Node: node, Reason: fleet.Unreachable} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			mayHitTwo(w)
			w.experiment(two)
			w.agents.late = func(node string, r *agentpb.ApplyRequest) error {
				if node == "n2" && !r.GetDryRun() && !r.GetWithdraw() {
					if status.Code(fail(w, node)) != codes.DeadlineExceeded {
						w.agents.nodes[node].reply.Faults = nil
					}
					return fail(w, node)
				}
				return nil
			}
			w.chaos("lag")
			e := w.lag()
			require.Empty(t, w.agents.inForce())
			require.Equal(t, v1alpha1.ExperimentFailed, e.Status.Phase)
			requireCondition(t, e.Status.Conditions, v1alpha1.FaultActive, metav1.ConditionFalse, "StartFailed", "pg-2")
			requireCondition(t, e.Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionTrue, "Verified")
			require.Empty(t, e.Finalizers)
		})
	}
}

func TestAStartThatWasInterrupted(t *testing.T) {
	// admit leaves an experiment as a controller does that crashes before it asks
	// the first agent.
	admit := func(t *testing.T) *world {
		w := newWorld(t)
		w.experiment()
		e := w.lag()
		plan, no, err := w.r.resolve(t.Context(), e)
		require.NoError(t, err)
		require.Nil(t, no)
		no, err = w.r.admit(t.Context(), e, plan)
		require.NoError(t, err)
		require.Nil(t, no)
		w.fresh()
		return w
	}
	t.Run("is carried on by the next controller", func(t *testing.T) {
		w := admit(t)
		w.after(startWindow - time.Second)
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
	})
	t.Run("is given up when it is too old", func(t *testing.T) {
		w := admit(t)
		w.after(startWindow + time.Second)
		w.chaos("lag")
		require.Zero(t, w.agents.called("fault"))
		require.Equal(t, v1alpha1.ExperimentFailed, w.lag().Status.Phase)
		requireCondition(t, w.lag().Status.Conditions, v1alpha1.FaultActive, metav1.ConditionFalse, "StartFailed", "too late")
		require.Empty(t, w.lag().Finalizers)
	})
	t.Run("waits for an agent that is being connected to", func(t *testing.T) {
		w := admit(t)
		n := w.agents.nodes[w.target()]
		n.err = &fleet.Error{Node: w.target(), Reason: fleet.Connecting}
		require.Equal(t, time.Second, w.chaos("lag"))
		require.Equal(t, v1alpha1.ExperimentPending, w.lag().Status.Phase)
		n.err = nil
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
	})
}

func TestAbort(t *testing.T) {
	t.Run("ends the fault", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		e := w.lag()
		e.Spec.Abort = true
		w.update(e)
		w.chaos("lag")
		require.Empty(t, w.agents.inForce())
		require.Equal(t, v1alpha1.ExperimentAborted, w.lag().Status.Phase)
		requireCondition(t, w.lag().Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionTrue, "Verified")
	})
	t.Run("before the beginning keeps it from beginning", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(func(e *v1alpha1.ChaosExperiment) { e.Spec.Abort = true })
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentAborted, w.lag().Status.Phase)
		require.Empty(t, w.agents.calls)
	})
	t.Run("waits for an agent that cannot be asked, and says so", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		e := w.lag()
		e.Spec.Abort = true
		w.update(e)
		n := w.agents.nodes[w.target()]
		n.err = &fleet.Error{Node: w.target(), Reason: fleet.Unreachable}
		require.NotZero(t, w.chaos("lag"))
		require.Equal(t, v1alpha1.ExperimentRecovering, w.lag().Status.Phase)
		requireCondition(t, w.lag().Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionFalse, "Recovering", "cannot be reached")
		n.err = nil
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentAborted, w.lag().Status.Phase)
	})
}

func TestDeletion(t *testing.T) {
	gone := func(w *world) bool {
		var e v1alpha1.ChaosExperiment
		return apierrors.IsNotFound(w.kube.Get(w.Context(), types.NamespacedName{Namespace: "db", Name: "lag"}, &e))
	}
	t.Run("ends the fault and lets the object go", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		require.NoError(t, w.kube.Delete(t.Context(), w.lag()))
		require.False(t, gone(w), "while the fault is in force")
		w.chaos("lag")
		require.Empty(t, w.agents.inForce())
		require.True(t, gone(w))
	})
	t.Run("does not wait for a lost agent longer than for the deadline", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		require.NoError(t, w.kube.Delete(t.Context(), w.lag()))
		delete(w.agents.nodes, w.target())
		w.chaos("lag")
		require.False(t, gone(w))
		w.after(time.Minute + startAllowance + lateAfter + time.Second)
		w.chaos("lag")
		require.True(t, gone(w))
	})
}
