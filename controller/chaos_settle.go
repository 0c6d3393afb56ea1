package controller

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func sameStatus(a, b v1alpha1.ChaosExperimentStatus) bool {
	return equality.Semantic.DeepEqual(a, b)
}

func (t *run) set(kind string, s metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&t.e.Status.Conditions, condition(kind, s, t.e.Generation, reason, message))
}

func (t *run) setActive(s metav1.ConditionStatus, reason, message string) {
	t.set(v1alpha1.FaultActive, s, reason, message)
}

// settle derives the experiment's own state from its targets'.
func (t *run) settle() {
	st := &t.e.Status
	st.ObservedGeneration, st.Hits, st.StartedAt = t.e.Generation, 0, nil
	active, ended := 0, 0
	for i := range st.Targets {
		x := &st.Targets[i]
		st.Hits += x.Hits
		if x.StartedAt != nil && (st.StartedAt == nil || x.StartedAt.Before(st.StartedAt)) {
			st.StartedAt = x.StartedAt
		}
		switch {
		case overOn(x):
			ended++
		case x.State == v1alpha1.ChaosActive:
			active++
		}
	}
	if t.before.Status.StartedAt != nil {
		st.StartedAt = t.before.Status.StartedAt // not moved by a fault begun again
	}
	t.settleEffect()
	switch n := len(st.Targets); {
	case ended == n && t.awaited == 0:
		t.finish()
	case t.ending():
		st.Phase = v1alpha1.ExperimentRecovering
		t.recovering()
	case active == n:
		st.Phase = v1alpha1.ExperimentActive
		t.setActive(metav1.ConditionTrue, reasonInForce, fmt.Sprintf("the fault is in force on all %d targets", n))
	case t.starting():
		st.Phase = v1alpha1.ExperimentPending
		t.setActive(metav1.ConditionFalse, "Starting", "the fault is being started")
	default:
		st.Phase = v1alpha1.ExperimentActive
		t.setActive(metav1.ConditionFalse, "Partial", fmt.Sprintf("the fault is in force on %d of %d targets: %s", active, n, t.others()))
	}
}

// others says what became of the targets that the fault is not in force on.
func (t *run) others() string {
	var parts []string
	for i := range t.targets() {
		if x := &t.targets()[i]; x.State != v1alpha1.ChaosActive {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%q %s %s", x.Pod, x.State, x.Reason)))
		}
	}
	return strings.Join(lines(parts, 8), ", ")
}

func (t *run) settleEffect() {
	c := meta.FindStatusCondition(t.e.Status.Conditions, v1alpha1.EffectObserved)
	if c != nil && c.Status == metav1.ConditionTrue {
		return
	}
	var none []string
	for i := range t.targets() {
		if x := &t.targets()[i]; x.Hits == 0 {
			none = append(none, x.Pod)
		}
	}
	if len(none) == 0 {
		t.set(v1alpha1.EffectObserved, metav1.ConditionTrue, "Hits", "the kernel applied the fault on every target")
		return
	}
	t.set(v1alpha1.EffectObserved, metav1.ConditionFalse, "NoHits", "the kernel has not applied the fault on "+strings.Join(lines(none, 8), ", "))
}

// recovering says what is waited for.
func (t *run) recovering() {
	var waits []string
	for i := range t.targets() {
		x := &t.targets()[i]
		switch {
		case overOn(x):
		case t.silent[i] != nil:
			x.Message = short(fleet.Text(t.silent[i]))
			if t.past(0) {
				x.Message = short("its deadline has passed, and its agent has not said how it ended: " + fleet.Text(t.silent[i]))
			}
			waits = append(waits, fmt.Sprintf("%q: %s", x.Pod, x.Message))
		default:
			waits = append(waits, strings.TrimSuffix(fmt.Sprintf("%q: %s", x.Pod, x.Message), ": "))
		}
	}
	t.set(v1alpha1.RecoveryVerified, metav1.ConditionFalse, "Recovering", "waiting for "+strings.Join(lines(waits, 8), "; "))
	if !t.startFailed() {
		t.setActive(metav1.ConditionFalse, "Recovering", "the fault is being ended")
	}
}

// finish gives the experiment its last phase.
func (t *run) finish() {
	st := &t.e.Status
	var dirty, unknown, stopped, reasons []string
	for i := range st.Targets {
		x := &st.Targets[i]
		if x.EndedAt != nil && (st.EndedAt == nil || st.EndedAt.Before(x.EndedAt)) {
			st.EndedAt = x.EndedAt
		}
		switch {
		case x.State == v1alpha1.ChaosFailed: // never begun, nothing to recover
		case x.Recovered:
		case x.Reason == reasonUnknown:
			unknown = append(unknown, x.Pod)
		default:
			dirty = append(dirty, strings.TrimSuffix(fmt.Sprintf("%q: %s", x.Pod, strings.Join(append(x.Residue, x.Message), "; ")), "; "))
		}
		if x.Reason == reasonStopped {
			stopped = append(stopped, x.Pod)
		}
		if x.Reason != "" {
			reasons = append(reasons, fmt.Sprintf("%q (%s)", x.Pod, x.Reason))
		}
	}
	if st.EndedAt == nil {
		st.EndedAt = micro(t.now)
	}
	switch {
	case len(dirty) > 0:
		t.set(v1alpha1.RecoveryVerified, metav1.ConditionFalse, "Residue", "not everything reads as before the fault: "+strings.Join(lines(dirty, 8), "; "))
	case len(unknown) > 0:
		t.set(v1alpha1.RecoveryVerified, metav1.ConditionUnknown, "AgentRestarted",
			"ended; the agents of "+strings.Join(lines(unknown, 8), ", ")+" were restarted and keep no record of when")
	default:
		t.set(v1alpha1.RecoveryVerified, metav1.ConditionTrue, "Verified", "everything reads as it did before the fault on every target")
	}
	failed := t.startFailed()
	aborted := t.e.Spec.Abort || t.e.DeletionTimestamp != nil
	switch {
	case failed || len(dirty) > 0:
		st.Phase = v1alpha1.ExperimentFailed
	case aborted:
		st.Phase = v1alpha1.ExperimentAborted
		t.setActive(metav1.ConditionFalse, reasonAborted, "ended by request")
		return
	case len(stopped) > 0:
		st.Phase = v1alpha1.ExperimentFailed
		t.setActive(metav1.ConditionFalse, "StoppedOnNode", "the fault was stopped on the node of "+strings.Join(lines(stopped, 8), ", "))
		return
	default:
		st.Phase = v1alpha1.ExperimentRecovered
	}
	if !failed {
		t.setActive(metav1.ConditionFalse, reasonOver, "the fault is over on "+strings.Join(lines(reasons, 8), ", "))
	}
}

// resumeAll gives every target whose fault ended with its agent a new fault for
// the time that is left, where the experiment wants that, and says whether there
// is one.
func (t *run) resumeAll(ctx context.Context) bool {
	if t.e.Spec.OnAgentRestart != v1alpha1.Resume || t.starting() || t.deadline().Sub(t.now) <= startAllowance+resumeLeast {
		return false
	}
	again := false
	var mayNot *refusal
	looked := false
	for i := range t.targets() {
		x := &t.targets()[i]
		withAgent := x.Reason == reasonAgentStopped || x.Reason == reasonRecovered || x.Reason == reasonUnknown
		// What was left behind must be looked at, not covered by another fault.
		if x.State != v1alpha1.ChaosEnded || !withAgent || len(x.Residue) > 0 || !t.samePod(ctx, x) {
			continue
		}
		if s, err := t.agents.Status(x.Node); err != nil || !knows(s, x.Instance) {
			t.awaited++ // its agent, or its agent's view of it, is not there yet
			continue
		}
		if !looked {
			looked, mayNot = true, t.mayGoOn(ctx)
		}
		if mayNot != nil {
			t.awaited++
			x.Message = short("not started again yet: " + mayNot.message)
			continue
		}
		t.mu.Lock()
		delete(t.renewed, x.FaultUID)
		t.mu.Unlock()
		x.FaultUID = nextAttempt(x.FaultUID)
		x.State, x.Reason, x.EndedAt, x.Recovered = v1alpha1.ChaosPending, "", nil, false
		x.Message = "being started again, its agent was restarted"
		again = true
	}
	return again
}

// mayGoOn counts once more what the database clusters have lost before a fault is
// begun again: another member may have failed while the agent was away. Other
// experiments count this one all along, see mayComeBack.
func (t *run) mayGoOn(ctx context.Context) *refusal {
	unread := func(err error) *refusal { return refuse("NotChecked", "%s", err) }
	p, own, no, err := t.acceptedPolicy(ctx, t.e.Namespace, t.e.Spec.Target.Policy)
	if err != nil {
		return unread(err)
	}
	if no == nil {
		no = allowed(t.e, p)
	}
	if no != nil {
		return no
	}
	plan := &chaosPlan{policy: p}
	if plan.members, err = t.withFailed(ctx, p, own); err != nil {
		return unread(err)
	}
	for _, m := range own {
		if slices.ContainsFunc(t.targets(), func(x v1alpha1.ChaosTargetStatus) bool { return x.UID == string(m.pod.UID) }) {
			plan.chosen = append(plan.chosen, m)
		}
	}
	others, err := t.liveExperiments(ctx, t.kube, t.e)
	if err != nil {
		return unread(err)
	}
	return t.overruns(plan, others)
}

func knows(s fleet.Status, id string) bool {
	for _, in := range s.Reply.GetInstances() {
		if in.GetId() == id {
			return true
		}
	}
	return false
}

// samePod says that a target's pod is still the one that was chosen.
func (t *run) samePod(ctx context.Context, x *v1alpha1.ChaosTargetStatus) bool {
	var pod corev1.Pod
	err := t.kube.Get(ctx, types.NamespacedName{Namespace: t.e.Namespace, Name: x.Pod}, &pod)
	return err == nil && string(pod.UID) == x.UID && pod.Spec.NodeName == x.Node && pod.DeletionTimestamp == nil
}

// nextAttempt names the next fault on a target: "…-r1" and so on.
func nextAttempt(uid string) string {
	n := 0
	// An experiment's uid and a pod's are hexadecimal, so the r is ours.
	base, attempt, again := strings.Cut(uid, "-r")
	if again {
		n, _ = strconv.Atoi(attempt)
	}
	return fmt.Sprintf("%s-r%d", base, n+1)
}
