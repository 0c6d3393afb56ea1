package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// defaultTimeout is how long one instance may take where the resource does not
// say.
const defaultTimeout = 2 * time.Minute

// reasonRunning is that of Complete while targets are being resized.
const reasonRunning = "Running"

func resizeFinished(p v1alpha1.ResizePhase) bool {
	switch p {
	case v1alpha1.ResizeDone, v1alpha1.ResizeDryRun, v1alpha1.ResizeRolledBack, v1alpha1.ResizeFailed, v1alpha1.ResizeRefused:
		return true
	}
	return false
}

// resize brings one resize further.
func (r *reconciler) resize(ctx context.Context, k key) (time.Duration, error) {
	var z v1alpha1.InstanceResize
	if ok, err := r.get(ctx, k, &z); !ok {
		return 0, err
	}
	switch {
	case resizeFinished(z.Status.Phase) || z.DeletionTimestamp != nil:
		return 0, nil
	case z.Status.Phase == v1alpha1.ResizeRunning:
		return r.resizeStep(ctx, &z)
	}
	return r.resizeBegin(ctx, &z)
}

// resizeBegin checks a resize as a whole and puts its targets on record.
func (r *reconciler) resizeBegin(ctx context.Context, z *v1alpha1.InstanceResize) (time.Duration, error) {
	targets, no, err := r.resizeTargets(ctx, z)
	if err != nil {
		return 0, err
	}
	after := z.DeepCopy()
	st := &after.Status
	st.ObservedGeneration = z.Generation
	if no != nil {
		if no.soon && r.waited(z.CreationTimestamp.Time) <= settle {
			st.Phase = v1alpha1.ResizePending
			setResize(after, v1alpha1.ResizeAccepted, metav1.ConditionFalse, no.reason, no.message)
			return time.Second, r.updateResize(ctx, z, after)
		}
		st.Phase = v1alpha1.ResizeRefused
		setResize(after, v1alpha1.ResizeAccepted, metav1.ConditionFalse, no.reason, no.message)
		setResize(after, v1alpha1.ResizeComplete, metav1.ConditionFalse, no.reason, "nothing was changed")
		return 0, r.updateResize(ctx, z, after)
	}
	st.Targets = targets
	st.Phase, st.Progress = v1alpha1.ResizeRunning, progress(st.Targets)
	setResize(after, v1alpha1.ResizeAccepted, metav1.ConditionTrue, "Accepted", fmt.Sprintf("%d targets were checked by a dry run", len(targets)))
	if z.Spec.DryRun {
		st.Phase, st.Progress = v1alpha1.ResizeDryRun, ""
		setResize(after, v1alpha1.ResizeComplete, metav1.ConditionFalse, "DryRun", "nothing was changed, as asked")
		return 0, r.updateResize(ctx, z, after)
	}
	setResize(after, v1alpha1.ResizeComplete, metav1.ConditionFalse, reasonRunning, "the first instance is about to be resized")
	if err := r.updateResize(ctx, z, after); err != nil {
		return 0, err
	}
	return r.resizeStep(ctx, z)
}

// resizeTargets resolves who is meant and has each change checked without doing
// it.
func (r *reconciler) resizeTargets(ctx context.Context, z *v1alpha1.InstanceResize) ([]v1alpha1.ResizeTargetStatus, *refusal, error) {
	if d, err := z.Spec.Timeout.Parse(); err != nil || d < 0 {
		return nil, refuse("InvalidTimeout", "the timeout %q is to be from 1s to 24h", z.Spec.Timeout), nil
	}
	t := &z.Spec.Target
	p, own, no, err := r.acceptedPolicy(ctx, z.Namespace, t.Policy)
	if no != nil || err != nil {
		return nil, no, err
	}
	if t.Role != "" && p.Spec.Role == nil {
		return nil, refuse("RoleUnknown", "the target is to be a %s, and policy %q does not say how to tell roles: give it spec.role", t.Role, p.Name), nil
	}
	var fit []member
	for _, m := range own {
		if within(m, t.Cluster, t.Role, t.Pods) {
			fit = append(fit, m)
		}
	}
	if no := allNamed(t.Pods, fit, p); no != nil {
		return nil, no, nil
	}
	switch n := len(fit); {
	case n == 0:
		return nil, refuse("NoMatch", "no instance of policy %q matches the target; the policy has %d", p.Name, len(own)), nil
	case n > v1alpha1.MaxTargets:
		return nil, refuse("TooMany", "%d instances match, of which a resize can have %d", n, v1alpha1.MaxTargets), nil
	}
	slices.SortFunc(fit, func(a, b member) int {
		return cmp.Or(cmp.Compare(turn(a.role), turn(b.role)), cmp.Compare(a.pod.Name, b.pod.Name))
	})
	targets := make([]v1alpha1.ResizeTargetStatus, len(fit))
	refusals := make([]*refusal, len(fit))
	each(len(fit), func(i int) { targets[i], refusals[i] = r.resizeTarget(ctx, z, p, fit[i]) })
	for _, no := range refusals {
		if no != nil {
			return nil, no, nil
		}
	}
	return targets, nil, nil
}

// turn orders roles: replicas first, the primary last.
func turn(role v1alpha1.Role) int {
	switch role {
	case v1alpha1.Replica:
		return 0
	case v1alpha1.Primary:
		return 2
	}
	return 1
}

// resizeTarget checks one target and has the change rehearsed by whoever would
// make it.
func (r *reconciler) resizeTarget(ctx context.Context, z *v1alpha1.InstanceResize, p *v1alpha1.DatabasePolicy, m member) (v1alpha1.ResizeTargetStatus, *refusal) {
	none := v1alpha1.ResizeTargetStatus{}
	in, no := r.instanceOf(p, m)
	if no != nil {
		return none, no
	}
	if s := in.GetShared(); s != "" {
		return none, refuse("Shared", "the cgroup of pod %q is not its own: %s", m.pod.Name, s)
	}
	x := v1alpha1.ResizeTargetStatus{
		Pod: m.pod.Name, UID: string(m.pod.UID), Container: in.GetContainer(), Node: m.pod.Spec.NodeName,
		Role: string(m.role), State: v1alpha1.TargetPending, Method: methodKubelet,
	}
	from, no := sizeOf(m.pod, x.Container, &z.Spec.Resources)
	if no != nil {
		return none, no
	}
	x.From = from
	if no := resizable(m.pod, x.Container, from, &z.Spec.Resources); no != nil {
		return none, no
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := r.patchLimits(ctx, m.pod, x.Container, from, &z.Spec.Resources, true)
	if notServed(err) {
		x.Method = methodAgent
		_, err = r.applySize(ctx, z, &x, &z.Spec.Resources, true)
	}
	if err != nil {
		return none, rejected(m.pod.Name, err)
	}
	x.Message = "from " + sizeText(from) + " to " + sizeText(&z.Spec.Resources)
	return x, nil
}

// rejected tells a rehearsal that was refused from one that did not take place.
func rejected(pod string, err error) *refusal {
	var unsent *fleet.Error
	var answer apierrors.APIStatus
	switch {
	case errors.As(err, &unsent):
		return agentRefusal(pod, err)
	case errors.As(err, &answer) && answer.Status().Code < 500 && answer.Status().Code != 429, status.Code(err) != codes.Unknown && !fleet.Uncertain(err):
		return refuse("Rejected", "pod %q cannot be resized: %s", pod, fleet.Text(err))
	}
	return refuseSoon("NotChecked", "whether pod %q can be resized could not be found out: %s", pod, fleet.Text(err))
}

// updateResize writes a status where it changed and leaves the result in z.
func (r *reconciler) updateResize(ctx context.Context, z, after *v1alpha1.InstanceResize) error {
	if equality.Semantic.DeepEqual(z.Status, after.Status) {
		return nil
	}
	if err := r.writeStatus(ctx, z, after); err != nil {
		return err
	}
	if was, is := z.Status.Phase, after.Status.Phase; was != is && is != v1alpha1.ResizePending {
		c := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ResizeComplete)
		if is == v1alpha1.ResizeRefused {
			c = meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ResizeAccepted)
		}
		kind := corev1.EventTypeNormal
		if is == v1alpha1.ResizeFailed || is == v1alpha1.ResizeRolledBack || is == v1alpha1.ResizeRefused {
			kind = corev1.EventTypeWarning
		}
		r.events.Eventf(after, nil, kind, c.Reason, "Resize", "%s", short(c.Message))
		r.log.Info("resize "+string(is), "component", "resize", "resize", z.Namespace+"/"+z.Name, "reason", c.Reason, "message", c.Message)
	}
	after.DeepCopyInto(z)
	return nil
}

func setResize(z *v1alpha1.InstanceResize, kind string, s metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&z.Status.Conditions, condition(kind, s, z.Generation, reason, message))
}

// progress is how many targets are done, of how many.
func progress(targets []v1alpha1.ResizeTargetStatus) string {
	done := 0
	for _, t := range targets {
		if t.State == v1alpha1.TargetVerified {
			done++
		}
	}
	return fmt.Sprintf("%d/%d", done, len(targets))
}
