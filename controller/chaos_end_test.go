package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func TestWhatAFaultLeftBehindFailsTheExperiment(t *testing.T) {
	for name, leave := range map[string]func(f *agentpb.Fault){
		"residue":      func(f *agentpb.Fault) { f.Residue = []string{"cgroup.freeze: was 0, is 1"} },
		"not verified": func(f *agentpb.Fault) { f.Verified = false },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.experiment()
			w.chaos("lag")
			f := w.agents.fault(w.target())
			w.agents.endFault(f, "deadline")
			leave(f)
			w.chaos("lag")
			e := w.lag()
			require.Equal(t, v1alpha1.ExperimentFailed, e.Status.Phase)
			requireCondition(t, e.Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionFalse, "Residue")
			require.False(t, e.Status.Targets[0].Recovered)
		})
	}
	t.Run("a stuck undo is waited for", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		f := w.agents.fault(w.target())
		f.Phase, f.Error = "stuck", "qdisc busy"
		w.after(2 * time.Minute)
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentRecovering, w.lag().Status.Phase)
		require.Equal(t, v1alpha1.ChaosStuck, w.lag().Status.Targets[0].State)
		requireCondition(t, w.lag().Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionFalse, "Recovering", "qdisc busy")
	})
	t.Run("a fault that somebody stopped on the node was not carried out as asked", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		w.agents.endFault(w.agents.fault(w.target()), "stopped")
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentFailed, w.lag().Status.Phase)
		requireCondition(t, w.lag().Status.Conditions, v1alpha1.FaultActive, metav1.ConditionFalse, "StoppedOnNode")
	})
}

func TestASilentAgentIsWaitedForPastTheDeadline(t *testing.T) {
	w := newWorld(t)
	w.experiment()
	w.chaos("lag")
	node := w.target()
	n := w.agents.nodes[node]
	n.err = &fleet.Error{Node: node, Reason: fleet.Unreachable}
	w.after(2 * time.Minute)
	require.NotZero(t, w.chaos("lag"))
	require.Equal(t, v1alpha1.ExperimentRecovering, w.lag().Status.Phase)
	require.Contains(t, w.lag().Status.Targets[0].Message, "has not said how it ended")
	n.err = nil
	w.agents.endFault(w.agents.fault(node), "deadline")
	w.chaos("lag")
	require.Equal(t, v1alpha1.ExperimentRecovered, w.lag().Status.Phase)
}
