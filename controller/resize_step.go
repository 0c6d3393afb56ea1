package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// lookAgainSoon is the pace at which a resize under way is looked at without news.
const lookAgainSoon = time.Second

// takingBack ends the message of Complete while a resize is being taken back.
const takingBack = "; what was done is being taken back"

// resizeStep brings the one target further whose turn it is.
func (r *reconciler) resizeStep(ctx context.Context, z *v1alpha1.InstanceResize) (time.Duration, error) {
	for i := range z.Status.Targets {
		switch z.Status.Targets[i].State {
		case v1alpha1.TargetResizing:
			return r.carryOn(ctx, z, i)
		case v1alpha1.TargetRollingBack:
			return r.carryBack(ctx, z, i)
		}
	}
	after := z.DeepCopy()
	i, to := r.nextTarget(ctx, after)
	if i < 0 {
		r.resizeOver(after)
		return 0, r.updateResize(ctx, z, after)
	}
	x := &after.Status.Targets[i]
	pod, no := r.targetPod(ctx, z, x)
	if no != nil {
		return r.resizeFailed(ctx, z, i, no)
	}
	x.State, x.StartedAt, x.FinishedAt = to, micro(r.now()), nil
	if s := statusOf(pod, x.Container); s != nil && to == v1alpha1.TargetResizing {
		x.Restarts = s.RestartCount
	}
	if to == v1alpha1.TargetResizing {
		from, no := sizeOf(pod, x.Container, &z.Spec.Resources)
		if no != nil {
			return r.resizeFailed(ctx, z, i, no)
		}
		x.From, x.Message = from, "from "+sizeText(from)+" to "+sizeText(&z.Spec.Resources)
		setResize(after, v1alpha1.ResizeComplete, metav1.ConditionFalse, reasonRunning, fmt.Sprintf("%q is being resized", x.Pod))
	}
	taken, err := r.takeTurn(ctx, z, after, i)
	if err != nil || !taken {
		return 2 * time.Second, err
	}
	return r.resizeStep(ctx, z)
}

// nextTarget chooses whose turn it is, -1 for nobody's. Roles are looked up
// again: a replica may have become the primary meanwhile.
func (r *reconciler) nextTarget(ctx context.Context, z *v1alpha1.InstanceResize) (int, v1alpha1.ResizeState) {
	if rollingBack(z) {
		for i := len(z.Status.Targets) - 1; i >= 0; i-- {
			if z.Status.Targets[i].State == v1alpha1.TargetVerified {
				return i, v1alpha1.TargetRollingBack
			}
		}
		return -1, ""
	}
	roles := map[string]v1alpha1.Role{}
	if _, own, no, err := r.acceptedPolicy(ctx, z.Namespace, z.Spec.Target.Policy); err == nil && no == nil {
		for _, m := range own {
			roles[string(m.pod.UID)] = m.role
		}
	}
	best := -1
	for i := range z.Status.Targets {
		x := &z.Status.Targets[i]
		if x.State != v1alpha1.TargetPending {
			continue
		}
		if role, ok := roles[x.UID]; ok {
			x.Role = string(role)
		}
		if best < 0 || cmp.Or(cmp.Compare(turn(v1alpha1.Role(x.Role)), turn(v1alpha1.Role(z.Status.Targets[best].Role))), cmp.Compare(x.Pod, z.Status.Targets[best].Pod)) < 0 {
			best = i
		}
	}
	return best, v1alpha1.TargetResizing
}

// rollingBack says that the resize as a whole is being taken back.
func rollingBack(z *v1alpha1.InstanceResize) bool {
	return slices.ContainsFunc(z.Status.Targets, func(x v1alpha1.ResizeTargetStatus) bool {
		return x.State == v1alpha1.TargetRollingBack || x.State == v1alpha1.TargetRolledBack || x.State == v1alpha1.TargetFailed
	})
}

// takeTurn puts a target's turn on record, unless another resize has one of the
// same database cluster under way.
func (r *reconciler) takeTurn(ctx context.Context, z, after *v1alpha1.InstanceResize, i int) (bool, error) {
	r.admission.Lock()
	defer r.admission.Unlock()
	var list v1alpha1.InstanceResizeList
	if err := r.live.List(ctx, &list, client.InNamespace(z.Namespace)); err != nil {
		return false, fmt.Errorf("list resizes: %w", err)
	}
	cluster := r.clusterOf(ctx, z, after.Status.Targets[i].Pod)
	for o := range list.Items {
		other := &list.Items[o]
		if other.UID == z.UID || resizeFinished(other.Status.Phase) || other.Spec.Target.Policy != z.Spec.Target.Policy {
			continue
		}
		for _, x := range other.Status.Targets {
			busy := x.State == v1alpha1.TargetResizing || x.State == v1alpha1.TargetRollingBack
			if busy && r.clusterOf(ctx, other, x.Pod) == cluster {
				waiting := z.DeepCopy()
				setResize(waiting, v1alpha1.ResizeComplete, metav1.ConditionFalse, "Waiting", fmt.Sprintf("resize %q is changing %q of the same cluster", other.Name, x.Pod))
				return false, r.updateResize(ctx, z, waiting)
			}
		}
	}
	return true, r.updateResize(ctx, z, after)
}

// clusterOf is the database cluster of a target; "" for one that cannot be told.
func (r *reconciler) clusterOf(ctx context.Context, z *v1alpha1.InstanceResize, name string) string {
	var p v1alpha1.DatabasePolicy
	var pod corev1.Pod
	if r.kube.Get(ctx, types.NamespacedName{Namespace: z.Namespace, Name: z.Spec.Target.Policy}, &p) != nil ||
		r.kube.Get(ctx, types.NamespacedName{Namespace: z.Namespace, Name: name}, &pod) != nil {
		return ""
	}
	return newMember(&p, &pod).cluster
}

// targetPod reads the pod of a target and makes sure that it is still the one.
func (r *reconciler) targetPod(ctx context.Context, z *v1alpha1.InstanceResize, x *v1alpha1.ResizeTargetStatus) (*corev1.Pod, *refusal) {
	var pod corev1.Pod
	err := r.kube.Get(ctx, types.NamespacedName{Namespace: z.Namespace, Name: x.Pod}, &pod)
	if err != nil {
		return nil, refuse("PodReplaced", "pod %q cannot be read: %s", x.Pod, err)
	}
	if string(pod.UID) != x.UID {
		return nil, refuse("PodReplaced", "pod %q was made again since the resize began", x.Pod)
	}
	s := statusOf(&pod, x.Container)
	if s != nil && x.State != v1alpha1.TargetPending && s.RestartCount > x.Restarts {
		return nil, refuse("Restarted", "container %q of pod %q was restarted while it was being resized", x.Container, x.Pod)
	}
	return &pod, nil
}

// carryOn brings a target to the new size and waits until kubelet and kernel say
// so.
func (r *reconciler) carryOn(ctx context.Context, z *v1alpha1.InstanceResize, i int) (time.Duration, error) {
	after := z.DeepCopy()
	x := &after.Status.Targets[i]
	pod, no := r.targetPod(ctx, z, x)
	if no != nil {
		return r.resizeFailed(ctx, z, i, no)
	}
	done, says, final, err := r.bring(ctx, z, x, pod, x.From, &z.Spec.Resources)
	if err != nil {
		return 0, err
	}
	late := r.now().Sub(x.StartedAt.Time) > timeout(z)
	switch {
	case done:
		x.State, x.FinishedAt, x.Message = v1alpha1.TargetVerified, micro(r.now()), says
		after.Status.Progress = progress(after.Status.Targets)
	case final != "" || late:
		reason := cmp.Or(final, "Timeout")
		x.State, x.StartedAt, x.Message = v1alpha1.TargetRollingBack, micro(r.now()), short(says)
		message := fmt.Sprintf("%q was not resized: %s", x.Pod, says)
		if final == "" {
			message = fmt.Sprintf("%q was not resized within %v: %s", x.Pod, timeout(z), says)
		}
		setResize(after, v1alpha1.ResizeComplete, metav1.ConditionFalse, reason, message+takingBack)
	default:
		x.Message = short(says)
		return lookAgainSoon, r.updateResize(ctx, z, after)
	}
	if err := r.updateResize(ctx, z, after); err != nil {
		return 0, err
	}
	return r.resizeStep(ctx, z)
}

// carryBack brings a target back to the size it had.
func (r *reconciler) carryBack(ctx context.Context, z *v1alpha1.InstanceResize, i int) (time.Duration, error) {
	after := z.DeepCopy()
	x := &after.Status.Targets[i]
	pod, no := r.targetPod(ctx, z, x)
	if no != nil {
		return r.resizeFailed(ctx, z, i, no)
	}
	done, says, final, err := r.bring(ctx, z, x, pod, &z.Spec.Resources, x.From)
	if err != nil {
		return 0, err
	}
	if datesFromBefore(pod) {
		final = "" // it may be the condition for which this is taken back
	}
	late := r.now().Sub(x.StartedAt.Time) > timeout(z)
	switch {
	case done:
		x.State, x.FinishedAt, x.Message = v1alpha1.TargetRolledBack, micro(r.now()), short("taken back: "+says)
	case final != "" || late:
		x.State, x.FinishedAt, x.Message = v1alpha1.TargetFailed, micro(r.now()), short("not taken back to "+sizeText(x.From)+": "+says)
	default:
		x.Message = short("being taken back: " + says)
		return lookAgainSoon, r.updateResize(ctx, z, after)
	}
	after.Status.Progress = progress(after.Status.Targets)
	if err := r.updateResize(ctx, z, after); err != nil {
		return 0, err
	}
	return r.resizeStep(ctx, z)
}

// bring asks for a size where it was not asked for yet and says how far it is.
// final is the reason for which it will not come about.
func (r *reconciler) bring(ctx context.Context, z *v1alpha1.InstanceResize, x *v1alpha1.ResizeTargetStatus, pod *corev1.Pod, old, want *v1alpha1.ResizeResources) (done bool, says, final string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	inKernel, kernel := r.readBack(x, want)
	if x.Method == methodAgent {
		if inKernel {
			return true, kernel, "", nil
		}
		if _, err := r.applySize(ctx, z, x, want, false); err != nil {
			var unsent *fleet.Error
			if errors.As(err, &unsent) || fleet.Uncertain(err) {
				return false, fleet.Text(err), "", nil
			}
			return false, fleet.Text(err), "Rejected", nil
		}
		return false, kernel, "", nil
	}
	if !hasLimits(pod, x.Container, want) {
		err := r.patchLimits(ctx, pod, x.Container, old, want, false)
		switch {
		case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
			return false, err.Error(), "Rejected", nil
		case err != nil:
			return false, "", "", fmt.Errorf("resize pod %q: %w", x.Pod, err)
		}
		return false, "asked the kubelet", "", nil
	}
	ok, kubelet, infeasible := actuated(pod, x.Container, want, x.StartedAt.Time)
	switch {
	case infeasible:
		return false, kubelet, corev1.PodReasonInfeasible, nil
	case !ok:
		return false, kubelet, "", nil
	}
	return inKernel, kernel, "", nil
}

func timeout(z *v1alpha1.InstanceResize) time.Duration {
	t, _ := z.Spec.Timeout.Parse() // what is none was refused before it began
	return cmp.Or(t, defaultTimeout)
}

// resizeFailed stops a resize where it is.
func (r *reconciler) resizeFailed(ctx context.Context, z *v1alpha1.InstanceResize, i int, why *refusal) (time.Duration, error) {
	after := z.DeepCopy()
	x := &after.Status.Targets[i]
	x.State, x.FinishedAt, x.Message = v1alpha1.TargetFailed, micro(r.now()), short(why.message)
	after.Status.Phase, after.Status.Progress = v1alpha1.ResizeFailed, progress(after.Status.Targets)
	setResize(after, v1alpha1.ResizeComplete, metav1.ConditionFalse, why.reason, why.message+"; stopped there, the other instances are as listed")
	return 0, r.updateResize(ctx, z, after)
}

// resizeOver gives a resize its last phase.
func (r *reconciler) resizeOver(z *v1alpha1.InstanceResize) {
	st := &z.Status
	st.Progress = progress(st.Targets)
	if !rollingBack(z) {
		st.Phase = v1alpha1.ResizeDone
		setResize(z, v1alpha1.ResizeComplete, metav1.ConditionTrue, "Verified", fmt.Sprintf("all %d instances have the new size, read back from the kernel", len(st.Targets)))
		return
	}
	st.Phase = v1alpha1.ResizeRolledBack
	for i := range st.Targets {
		if st.Targets[i].State == v1alpha1.TargetFailed {
			st.Phase = v1alpha1.ResizeFailed
		}
	}
	for i := range st.Conditions {
		if c := &st.Conditions[i]; c.Type == v1alpha1.ResizeComplete {
			what := "everything was taken back"
			if st.Phase == v1alpha1.ResizeFailed {
				what = "not everything could be taken back, see the targets"
			}
			setResize(z, c.Type, metav1.ConditionFalse, c.Reason, strings.TrimSuffix(c.Message, takingBack)+"; "+what)
		}
	}
}
