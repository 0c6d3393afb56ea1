package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// lookAgainAtPolicy is when a policy that an agent does not go by yet has its next
// turn: why the agent refuses it becomes known after the policy's own turn.
const lookAgainAtPolicy = 10 * time.Second

// policy writes what a policy matches and what the agents found there. What the
// agents are told is decided for a node at a time, see node.go.
func (r *reconciler) policy(ctx context.Context, k key) (time.Duration, error) {
	var p v1alpha1.DatabasePolicy
	if ok, err := r.get(ctx, k, &p); !ok {
		return 0, err
	}
	own, err := members(ctx, r.kube, &p)
	if err != nil {
		return 0, err
	}
	all, err := r.policiesOf(ctx, p.Namespace)
	if err != nil {
		return 0, err
	}
	after := p.DeepCopy()
	again, err := r.describe(ctx, after, all, own)
	if err != nil {
		return 0, err
	}
	if equality.Semantic.DeepEqual(p.Status, after.Status) {
		return again, nil
	}
	before := p.DeepCopy()
	if err := r.writeStatus(ctx, &p, after); err != nil {
		return 0, err
	}
	r.policyEvents(before, after) // once it is written, or a write that is repeated would repeat them
	return again, nil
}

// describe fills the status of p and says after how long to look again, 0 for not
// before something happens.
func (r *reconciler) describe(ctx context.Context, p *v1alpha1.DatabasePolicy, all []v1alpha1.DatabasePolicy, own []member) (time.Duration, error) {
	st := &p.Status
	st.ObservedGeneration = p.Generation
	st.Matched, st.Ready, st.Instances = int32(len(own)), 0, nil
	bad := unacceptable(p, all, own)
	var first *refusal
	var again time.Duration
	for _, m := range own {
		row, lacks, err := r.describeMember(ctx, p, all, m)
		if err != nil {
			return 0, err
		}
		if lacks == nil {
			st.Ready++
		} else if first == nil {
			first = lacks
		}
		if lacks != nil && (lacks.reason == reasonNotInForce || lacks.reason == reasonNotToldYet) {
			again = lookAgainAtPolicy
		}
		if len(st.Instances) < v1alpha1.MaxTargets {
			st.Instances = append(st.Instances, row)
		}
	}
	accepted := condition(v1alpha1.PolicyAccepted, metav1.ConditionTrue, p.Generation, "Accepted", "the policy can be followed")
	applied := condition(v1alpha1.PolicyApplied, metav1.ConditionTrue, p.Generation, "Applied",
		fmt.Sprintf("all %d instances are known to their agents, which go by this policy, and are where it wants them", st.Ready))
	switch {
	case bad != nil:
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, bad.reason, bad.message
		applied.Status, applied.Reason, applied.Message = metav1.ConditionFalse, bad.reason, bad.message
	case len(own) == 0:
		applied.Status, applied.Reason, applied.Message = metav1.ConditionFalse, "NoPods", fmt.Sprintf("no pod of namespace %q matches the selector", p.Namespace)
	case first != nil:
		applied.Status, applied.Reason = metav1.ConditionFalse, first.reason
		applied.Message = fmt.Sprintf("%d of %d instances are ready; %s", st.Ready, st.Matched, first.message)
	}
	meta.SetStatusCondition(&st.Conditions, accepted)
	meta.SetStatusCondition(&st.Conditions, applied)
	return again, nil
}

// describeMember says of one pod what is known of it and what it lacks.
func (r *reconciler) describeMember(ctx context.Context, p *v1alpha1.DatabasePolicy, all []v1alpha1.DatabasePolicy, m member) (v1alpha1.InstanceStatus, *refusal, error) {
	row := v1alpha1.InstanceStatus{
		Pod: m.pod.Name, Node: m.pod.Spec.NodeName, Container: p.Spec.Container, Cluster: m.cluster, Role: string(m.role),
	}
	in, lacks := r.instanceOf(p, m)
	if lacks == nil {
		row.Container = in.GetContainer()
		if in.NumaNode != nil {
			n := in.GetNumaNode()
			row.NUMANode = &n
		}
		lacks = notPlaced(p, in.Instance, m.pod)
	}
	if one := declaredBy(all, m.pod); one == nil || one.Name != p.Name {
		lacks = refuse("Conflict", "pod %q is declared by no policy, because it is matched by several or its policy cannot be followed", m.pod.Name)
	}
	if lacks == nil && p.Spec.ClusterLabel != "" && m.cluster == "" {
		lacks = refuse("NoCluster", "pod %q has no label %q, which would name its database cluster", m.pod.Name, p.Spec.ClusterLabel)
	}
	if lacks == nil {
		var err error
		if lacks, err = r.notInForce(ctx, p, m, in.status.Reply); err != nil {
			return row, nil, err
		}
	}
	if lacks != nil {
		row.Message = short(lacks.message)
	}
	row.Ready = lacks == nil
	return row, lacks, nil
}

// notPlaced says why an instance is not where its policy wants it.
func notPlaced(p *v1alpha1.DatabasePolicy, in *agentpb.Instance, pod *corev1.Pod) *refusal {
	switch {
	case in.GetShared() != "":
		return refuse("Unresolved", "the cgroup of pod %q is not its own: %s", pod.Name, in.GetShared())
	case p.Spec.NUMA != v1alpha1.NUMASingleNode:
		return nil
	case in.GetPlacementError() != "":
		return refuse("NotPlaced", "pod %q is not on one NUMA node: %s", pod.Name, in.GetPlacementError())
	case in.GetNuma() != numaOf(p):
		return refuse("NotPlaced", "the agent on node %q does not know yet that pod %q is to be on one NUMA node", pod.Spec.NodeName, pod.Name)
	}
	// Without an error and without a node the machine has only one, or the agent
	// is about to place it; it says which at its next turn.
	return nil
}

// policyEvents tells people of a policy whose conditions turned.
func (r *reconciler) policyEvents(before, after *v1alpha1.DatabasePolicy) {
	for _, c := range after.Status.Conditions {
		was := meta.FindStatusCondition(before.Status.Conditions, c.Type)
		if was != nil && was.Status == c.Status && was.Reason == c.Reason {
			continue
		}
		kind := corev1.EventTypeNormal
		switch {
		case c.Status == metav1.ConditionTrue:
			if c.Type == v1alpha1.PolicyAccepted {
				continue // nobody waits for that
			}
		case c.Reason == "NoPods", c.Reason == "PodNotRunning", c.Reason == reasonNotToldYet, c.Reason == "Unresolved" && was == nil:
			continue // the ordinary course of a new policy, or of a changed one
		default:
			kind = corev1.EventTypeWarning
		}
		r.events.Eventf(after, nil, kind, c.Reason, c.Type, "%s", short(c.Message))
	}
}
