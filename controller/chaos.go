package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const (
	// faultFinalizer keeps an experiment while a fault of it may be in force.
	faultFinalizer = "mooring.dev/fault"
	// faultLease is how long a fault outlives its controller's last word, and
	// renewEvery how often that is given.
	faultLease = 15 * time.Second
	renewEvery = 5 * time.Second
	// startAllowance is added to the duration for the time that a start takes, so
	// that the last moment of all does not cut the fault short.
	startAllowance = 2 * time.Second
	// startWindow is how long after its admission an experiment may still be
	// begun, by a controller that finds it halfway.
	startWindow = 10 * time.Second
	// settle is how long an experiment that was just created waits for what is
	// likely to come in a moment.
	settle = 10 * time.Second
	// lateAfter is how long after the deadline an agent's silence is remarked on,
	// and after which a deleted experiment is let go.
	lateAfter = 5 * time.Second
	// resumeLeast is the least time left for which a fault is begun again.
	resumeLeast = 2 * time.Second
)

// Reasons of conditions that later turns, and people, go by.
const (
	reasonStartFailed = "StartFailed"
	reasonAborted     = "Aborted"
	reasonInForce     = "InForce"
	reasonOver        = "Over"
)

// finished says that nothing will be done to an experiment any more.
func finished(p v1alpha1.ExperimentPhase) bool {
	switch p {
	case v1alpha1.ExperimentRecovered, v1alpha1.ExperimentAborted, v1alpha1.ExperimentDryRun, v1alpha1.ExperimentRefused, v1alpha1.ExperimentFailed:
		return true
	}
	return false
}

// admitted says that the uids of an experiment's faults are on record, from when
// on they may be in force.
func admitted(e *v1alpha1.ChaosExperiment) bool {
	return slices.ContainsFunc(e.Status.Targets, func(t v1alpha1.ChaosTargetStatus) bool { return t.FaultUID != "" })
}

// chaos brings one experiment further.
func (r *reconciler) chaos(ctx context.Context, k key) (time.Duration, error) {
	var e v1alpha1.ChaosExperiment
	if ok, err := r.get(ctx, k, &e); !ok {
		return 0, err
	}
	switch {
	case finished(e.Status.Phase):
		r.forget(&e)
		return 0, r.release(ctx, &e)
	case admitted(&e):
		return r.follow(ctx, &e)
	}
	return r.begin(ctx, &e)
}

// begin checks an experiment as a whole, puts the faults on record and starts
// them. An experiment that is refused was not begun in any part.
func (r *reconciler) begin(ctx context.Context, e *v1alpha1.ChaosExperiment) (time.Duration, error) {
	if e.DeletionTimestamp != nil {
		return 0, r.release(ctx, e)
	}
	if e.Spec.Abort {
		return 0, r.close(ctx, e, v1alpha1.ExperimentAborted, refuse(reasonAborted, "aborted before it began"))
	}
	began := r.now()
	plan, no, err := r.resolve(ctx, e)
	if err != nil {
		return 0, err
	}
	if no == nil {
		no = r.rehearse(ctx, e, plan)
	}
	if no != nil {
		return r.refused(ctx, e, no)
	}
	if e.Spec.DryRun {
		return 0, r.dryRunDone(ctx, e, plan)
	}
	no, err = r.admit(ctx, e, plan)
	if err != nil {
		return 0, err
	}
	if no != nil {
		return r.refused(ctx, e, no)
	}
	after, err := r.follow(ctx, e)
	if e.Status.Phase == v1alpha1.ExperimentActive {
		r.metrics.started.Observe(r.now().Sub(began).Seconds())
	}
	return after, err
}

// refused ends an experiment that was not begun, or waits a little where that
// may help.
func (r *reconciler) refused(ctx context.Context, e *v1alpha1.ChaosExperiment, no *refusal) (time.Duration, error) {
	if !no.soon || r.waited(e.CreationTimestamp.Time) > settle {
		return 0, r.close(ctx, e, v1alpha1.ExperimentRefused, no)
	}
	after := e.DeepCopy()
	after.Status.ObservedGeneration, after.Status.Phase = e.Generation, v1alpha1.ExperimentPending
	meta.SetStatusCondition(&after.Status.Conditions, condition(v1alpha1.TargetsResolved, metav1.ConditionFalse, e.Generation, no.reason, no.message))
	return time.Second, r.update(ctx, e, after)
}

// close ends an experiment of which nothing was begun.
func (r *reconciler) close(ctx context.Context, e *v1alpha1.ChaosExperiment, phase v1alpha1.ExperimentPhase, why *refusal) error {
	after := e.DeepCopy()
	after.Status.ObservedGeneration, after.Status.Phase = e.Generation, phase
	meta.SetStatusCondition(&after.Status.Conditions, condition(v1alpha1.TargetsResolved, metav1.ConditionFalse, e.Generation, why.reason, why.message))
	if err := r.update(ctx, e, after); err != nil {
		return err
	}
	r.events.Eventf(e, nil, corev1.EventTypeWarning, why.reason, string(phase), "%s", short(why.message))
	r.log.Info("experiment not begun", "component", "chaos", "experiment", e.Namespace+"/"+e.Name, "phase", string(phase), "reason", why.reason, "message", why.message)
	return r.release(ctx, e)
}

// dryRunDone records what would have been done.
func (r *reconciler) dryRunDone(ctx context.Context, e *v1alpha1.ChaosExperiment, p *chaosPlan) error {
	after := e.DeepCopy()
	st := &after.Status
	st.ObservedGeneration, st.Phase, st.Fault, st.Targets = e.Generation, v1alpha1.ExperimentDryRun, p.fault, p.targets
	meta.SetStatusCondition(&st.Conditions, condition(v1alpha1.TargetsResolved, metav1.ConditionTrue, e.Generation, "DryRun",
		fmt.Sprintf("%d targets were checked and planned; nothing was changed", len(p.targets))))
	return r.update(ctx, e, after)
}

// admit resolves once more, since the rehearsal took its time and pods may have
// been lost meanwhile, counts the other experiments and writes this one's targets,
// with the uids of their faults, in one piece, so that two experiments cannot each
// be admitted without the other.
func (r *reconciler) admit(ctx context.Context, e *v1alpha1.ChaosExperiment, p *chaosPlan) (*refusal, error) {
	r.admission.Lock()
	defer r.admission.Unlock()
	now, no, err := r.resolve(ctx, e)
	if err != nil || no != nil {
		return no, err
	}
	if !slices.EqualFunc(p.targets, now.targets, sameTarget) {
		return refuseSoon("TargetsChanged", "other instances are meant now than those whose agents were asked: they changed role or were made again meanwhile"), nil
	}
	others, err := r.liveExperiments(ctx, r.live, e)
	if err != nil {
		return nil, err
	}
	if no := r.overruns(now, others); no != nil {
		return no, nil
	}
	if err := r.hold(ctx, e); err != nil {
		return nil, err
	}
	after := e.DeepCopy()
	st := &after.Status
	st.ObservedGeneration, st.Phase, st.Fault, st.Targets = e.Generation, v1alpha1.ExperimentPending, p.fault, p.targets
	for i := range st.Targets {
		st.Targets[i].FaultUID = faultUID(e.UID, st.Targets[i].UID)
	}
	st.Deadline = micro(r.now().Add(e.Spec.Duration.Duration + startAllowance))
	meta.SetStatusCondition(&st.Conditions, condition(v1alpha1.TargetsResolved, metav1.ConditionTrue, e.Generation, "Resolved",
		fmt.Sprintf("%d targets are known and checked", len(st.Targets))))
	return nil, r.update(ctx, e, after)
}

// sameTarget says that two looks at a target found the same instance in the same
// role.
func sameTarget(a, b v1alpha1.ChaosTargetStatus) bool {
	return a.UID == b.UID && a.Instance == b.Instance && a.Node == b.Node && a.Role == b.Role
}

func faultUID(experiment types.UID, pod string) string {
	return fmt.Sprintf("%s-%s", experiment, pod[:min(8, len(pod))])
}

// update writes a status where it changed and leaves the result in e.
func (r *reconciler) update(ctx context.Context, e, after *v1alpha1.ChaosExperiment) error {
	if sameStatus(e.Status, after.Status) {
		return nil
	}
	if err := r.writeStatus(ctx, e, after); err != nil {
		return err
	}
	if e.Status.Phase != after.Status.Phase {
		r.log.Info("experiment "+string(after.Status.Phase), "component", "chaos", "experiment", e.Namespace+"/"+e.Name, "fault", after.Status.Fault)
	}
	after.DeepCopyInto(e)
	return nil
}

// hold makes sure that e is not deleted behind our back.
func (r *reconciler) hold(ctx context.Context, e *v1alpha1.ChaosExperiment) error {
	return r.finalizer(ctx, e, controllerutil.AddFinalizer)
}

// release lets e go.
func (r *reconciler) release(ctx context.Context, e *v1alpha1.ChaosExperiment) error {
	return client.IgnoreNotFound(r.finalizer(ctx, e, controllerutil.RemoveFinalizer))
}

func (r *reconciler) finalizer(ctx context.Context, e *v1alpha1.ChaosExperiment, change func(client.Object, string) bool) error {
	after := e.DeepCopy()
	if !change(after, faultFinalizer) {
		return nil
	}
	patch := client.MergeFromWithOptions(e.DeepCopy(), client.MergeFromWithOptimisticLock{})
	if err := r.kube.Patch(ctx, after, patch); err != nil {
		return fmt.Errorf("write finalizer: %w", err)
	}
	after.DeepCopyInto(e)
	return nil
}

// forget drops what is kept in memory of an experiment.
func (r *reconciler) forget(e *v1alpha1.ChaosExperiment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range e.Status.Targets {
		delete(r.renewed, e.Status.Targets[i].FaultUID)
	}
}
