package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func TestATargetThatMayComeBackIsNotFree(t *testing.T) {
	now := time.Now()
	deadline := metav1.NewMicroTime(now.Add(time.Minute))
	base := func() (*v1alpha1.ChaosExperiment, *v1alpha1.ChaosTargetStatus) {
		return &v1alpha1.ChaosExperiment{
				Spec:   v1alpha1.ChaosExperimentSpec{OnAgentRestart: v1alpha1.Resume},
				Status: v1alpha1.ChaosExperimentStatus{Phase: v1alpha1.ExperimentActive, Deadline: &deadline},
			},
			&v1alpha1.ChaosTargetStatus{State: v1alpha1.ChaosEnded, Reason: reasonAgentStopped}
	}
	e, x := base()
	require.True(t, mayComeBack(e, x, now))
	for name, change := range map[string]func(*v1alpha1.ChaosExperiment, *v1alpha1.ChaosTargetStatus){
		"it is not to be resumed": func(e *v1alpha1.ChaosExperiment, _ *v1alpha1.ChaosTargetStatus) { e.Spec.OnAgentRestart = v1alpha1.End },
		"it is aborted":           func(e *v1alpha1.ChaosExperiment, _ *v1alpha1.ChaosTargetStatus) { e.Spec.Abort = true },
		"it is over": func(e *v1alpha1.ChaosExperiment, _ *v1alpha1.ChaosTargetStatus) {
			e.Status.Phase = v1alpha1.ExperimentRecovered
		},
		"its time is over": func(e *v1alpha1.ChaosExperiment, _ *v1alpha1.ChaosTargetStatus) {
			past := metav1.NewMicroTime(now.Add(-time.Second))
			e.Status.Deadline = &past
		},
		"it ended by itself": func(_ *v1alpha1.ChaosExperiment, x *v1alpha1.ChaosTargetStatus) { x.Reason = "deadline" },
	} {
		t.Run(name, func(t *testing.T) {
			e, x := base()
			change(e, x)
			require.False(t, mayComeBack(e, x, now))
		})
	}
}

func TestWhatWaitedForAControllerIsGivenTimeForItsAgents(t *testing.T) {
	now := time.Now()
	r := &reconciler{now: func() time.Time { return now }}
	require.Equal(t, time.Minute, r.waited(now.Add(-time.Minute)))
	r.termBegins()
	now = now.Add(time.Second)
	require.Equal(t, time.Second, r.waited(now.Add(-time.Minute)), "created before the term")
	require.Zero(t, r.waited(now))
}
