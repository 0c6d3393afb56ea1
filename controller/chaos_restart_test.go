package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func TestAnAgentThatIsRestarted(t *testing.T) {
	t.Run("End: its record of the end is taken over", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		w.agents.endFault(w.agents.fault(w.target()), "recovered")
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentRecovered, w.lag().Status.Phase)
		require.Equal(t, "recovered", w.lag().Status.Targets[0].Reason)
	})
	t.Run("End: without a record it is over, and nobody knows when", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		w.agents.nodes[w.target()].reply.Faults = nil
		w.after(10 * time.Second)
		w.chaos("lag")
		e := w.lag()
		require.Equal(t, v1alpha1.ExperimentRecovered, e.Status.Phase)
		requireCondition(t, e.Status.Conditions, v1alpha1.RecoveryVerified, metav1.ConditionUnknown, "AgentRestarted")
		require.Nil(t, e.Status.Targets[0].EndedAt)
		require.Contains(t, e.Status.Targets[0].Message, "does not know the fault")
	})
	t.Run("a status from before the start says nothing", func(t *testing.T) {
		w := newWorld(t)
		w.experiment()
		w.chaos("lag")
		w.agents.nodes[w.target()].reply.Faults = nil
		w.after(time.Second)
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
	})
	t.Run("Resume: the fault begins again for the time that is left", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(resumes)
		w.chaos("lag")
		node := w.target()
		first := *w.lag().Status.Deadline
		w.agents.endFault(w.agents.fault(node), "agent stopped")
		w.after(20 * time.Second)
		w.agents.hook = func(_ string, r *agentpb.ApplyRequest) error {
			require.Equal(t, r.GetUid(), w.lag().Status.Targets[0].FaultUID, "on record before it begins")
			require.Equal(t, first.UTC(), r.GetFault().GetNotAfter().AsTime())
			return nil
		}
		w.chaos("lag")
		x := w.lag().Status.Targets[0]
		require.Equal(t, experimentUID+"-"+x.UID[:8]+"-r1", x.FaultUID)
		require.Equal(t, []string{x.FaultUID}, w.agents.inForce())
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
		w.agents.endFault(w.agents.fault(node), "recovered")
		w.chaos("lag")
		require.Equal(t, experimentUID+"-"+x.UID[:8]+"-r2", w.lag().Status.Targets[0].FaultUID)
		w.after(42 * time.Second)
		w.agents.endFault(w.agents.fault(node), "deadline")
		w.agents.hook = nil
		w.chaos("lag")
		require.Equal(t, v1alpha1.ExperimentRecovered, w.lag().Status.Phase)
		require.Empty(t, w.agents.inForce())
	})
	t.Run("Resume: waits for the agent to find the instance again", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(resumes)
		w.chaos("lag")
		n := w.agents.nodes[w.target()]
		n.reply.Faults = nil
		known := n.reply.Instances
		n.reply.Instances = nil
		w.after(5 * time.Second)
		require.Equal(t, time.Second, w.chaos("lag"))
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
		n.reply.Instances = known
		w.chaos("lag")
		require.Len(t, w.agents.inForce(), 1)
	})
	t.Run("Resume: not while another member is lost", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(resumes, named("pg-1"))
		w.chaos("lag")
		w.agents.endFault(w.agents.fault("n1"), "agent stopped")
		notReady(2)(w)
		w.after(5 * time.Second)
		require.Equal(t, time.Second, w.chaos("lag"))
		require.Empty(t, w.agents.inForce())
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
		require.Contains(t, w.lag().Status.Targets[0].Message, "1 not ready (pg-2)")
		p := w.pod(2)
		p.Status.Conditions[0].Status = corev1.ConditionTrue
		w.update(p)
		w.chaos("lag")
		require.Len(t, w.agents.inForce(), 1)
	})
	t.Run("Resume: a start of which nobody knows whether it happened is asked about in the end", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(resumes)
		w.chaos("lag")
		w.agents.endFault(w.agents.fault(w.target()), "agent stopped")
		w.after(20 * time.Second)
		w.agents.hook = func(string, *agentpb.ApplyRequest) error { return status.Error(codes.Unavailable, "broke") }
		require.Equal(t, time.Second, w.chaos("lag"))
		require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
		w.after(time.Minute)
		w.agents.hook = nil
		w.chaos("lag")
		require.Equal(t, 1, w.agents.called("withdraw"))
		require.Equal(t, v1alpha1.ExperimentRecovered, w.lag().Status.Phase)
	})
	t.Run("Resume: not when hardly any time is left, nor after an abort", func(t *testing.T) {
		for name, meanwhile := range map[string]func(w *world){
			"late":    func(w *world) { w.after(59 * time.Second) },
			"aborted": func(w *world) { e := w.lag(); e.Spec.Abort = true; w.update(e) },
			"pod gone": func(w *world) {
				for i := range 3 {
					require.NoError(w, w.kube.Delete(w.Context(), w.pod(i)))
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				w.experiment(resumes)
				w.chaos("lag")
				w.agents.endFault(w.agents.fault(w.target()), "agent stopped")
				meanwhile(w)
				w.chaos("lag")
				require.Empty(t, w.agents.inForce())
				require.True(t, finished(w.lag().Status.Phase), w.lag().Status.Phase)
			})
		}
	})
}
