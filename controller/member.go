package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// member is a pod that a policy matches.
type member struct {
	pod *corev1.Pod
	// cluster is empty where the pod lacks the label that would name it.
	cluster string
	role    v1alpha1.Role
}

// over says that a pod has ended and will not run again.
func over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// ready says that a pod reports ready and is not on its way out.
func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil && !over(pod)
		}
	}
	return false
}

// selectorOf returns what a policy matches. An empty selector matches nothing,
// unlike elsewhere in Kubernetes: a policy must not take in a namespace by
// omission.
func selectorOf(p *v1alpha1.DatabasePolicy) (labels.Selector, error) {
	s := &p.Spec.Selector
	if len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 {
		return labels.Nothing(), nil
	}
	return metav1.LabelSelectorAsSelector(s)
}

// matches says whether a policy matches a pod.
func matches(p *v1alpha1.DatabasePolicy, pod *corev1.Pod) bool {
	s, err := selectorOf(p)
	return err == nil && p.Namespace == pod.Namespace && !over(pod) && s.Matches(labels.Set(pod.Labels))
}

// members lists the pods that a policy matches, by name.
func members(ctx context.Context, reader client.Reader, p *v1alpha1.DatabasePolicy) ([]member, error) {
	return listMembers(ctx, reader, p, func(pod *corev1.Pod) bool { return !over(pod) })
}

// withFailed adds to the members the pods that failed and were not made again:
// they are no instances any more, and their database cluster has lost them.
func (r *reconciler) withFailed(ctx context.Context, p *v1alpha1.DatabasePolicy, own []member) ([]member, error) {
	failed, err := listMembers(ctx, r.kube, p, func(pod *corev1.Pod) bool { return pod.Status.Phase == corev1.PodFailed })
	return append(slices.Clone(own), failed...), err
}

func listMembers(ctx context.Context, reader client.Reader, p *v1alpha1.DatabasePolicy, wanted func(*corev1.Pod) bool) ([]member, error) {
	s, err := selectorOf(p)
	if err != nil || s.Empty() {
		return nil, nil // what is wrong with the selector is in its Accepted
	}
	var pods corev1.PodList
	if err := reader.List(ctx, &pods, client.InNamespace(p.Namespace), client.MatchingLabelsSelector{Selector: s}); err != nil {
		return nil, fmt.Errorf("list pods of policy %q: %w", p.Namespace+"/"+p.Name, err)
	}
	var all []member
	for i := range pods.Items {
		if pod := &pods.Items[i]; wanted(pod) {
			all = append(all, newMember(p, pod))
		}
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.pod.Name, b.pod.Name) })
	return all, nil
}

func newMember(p *v1alpha1.DatabasePolicy, pod *corev1.Pod) member {
	m := member{pod: pod, cluster: p.Name}
	if p.Spec.ClusterLabel != "" {
		m.cluster = pod.Labels[p.Spec.ClusterLabel]
	}
	if s := p.Spec.Role; s != nil {
		switch value := pod.Labels[s.Label]; {
		case slices.Contains(s.PrimaryValues, value):
			m.role = v1alpha1.Primary
		case slices.Contains(s.ReplicaValues, value):
			m.role = v1alpha1.Replica
		}
	}
	return m
}

// policiesOf lists the policies of a namespace, by name.
func (r *reconciler) policiesOf(ctx context.Context, namespace string) ([]v1alpha1.DatabasePolicy, error) {
	var list v1alpha1.DatabasePolicyList
	if err := r.kube.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list policies of namespace %q: %w", namespace, err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.DatabasePolicy) int { return cmp.Compare(a.Name, b.Name) })
	return list.Items, nil
}

// unacceptable says why a policy cannot be followed, nil when it can.
func unacceptable(p *v1alpha1.DatabasePolicy, all []v1alpha1.DatabasePolicy, own []member) *refusal {
	if _, err := selectorOf(p); err != nil {
		return refuse("InvalidSelector", "the selector cannot be used: %s", err)
	}
	if s := p.Spec.Role; s != nil {
		for _, v := range s.PrimaryValues {
			if slices.Contains(s.ReplicaValues, v) {
				return refuse("InvalidRole", "the value %q of label %q means primary and replica at once", v, s.Label)
			}
		}
	}
	for _, m := range own {
		for i := range all {
			if other := &all[i]; other.Name != p.Name && matches(other, m.pod) {
				return refuse("Conflict", "pod %q is matched by policy %q as well, and is declared by neither: make their selectors differ", m.pod.Name, other.Name)
			}
		}
	}
	return nil
}

// declaredBy returns the one policy that declares a pod, nil where none or
// several do.
func declaredBy(all []v1alpha1.DatabasePolicy, pod *corev1.Pod) *v1alpha1.DatabasePolicy {
	var one *v1alpha1.DatabasePolicy
	for i := range all {
		if matches(&all[i], pod) {
			if one != nil {
				return nil
			}
			one = &all[i]
		}
	}
	if one == nil || unacceptable(one, nil, nil) != nil {
		return nil
	}
	return one
}

// instance is what an agent knows of a member.
type instance struct {
	*agentpb.Instance
	status fleet.Status
}

// instanceOf finds the one instance that a member of a policy is, by its agent's
// fresh word.
func (r *reconciler) instanceOf(p *v1alpha1.DatabasePolicy, m member) (instance, *refusal) {
	pod := m.pod
	if pod.Spec.NodeName == "" {
		return instance{}, refuse("PodNotRunning", "pod %q is not on a node yet", pod.Name)
	}
	if pod.Status.Phase != corev1.PodRunning {
		return instance{}, refuse("PodNotRunning", "pod %q is %s, not Running", pod.Name, pod.Status.Phase)
	}
	s, err := r.agents.Status(pod.Spec.NodeName)
	if err != nil {
		return instance{}, agentRefusal(pod.Name, err)
	}
	policy := p.Namespace + "/" + p.Name
	var found []*agentpb.Instance
	for _, in := range s.Reply.GetInstances() {
		if in.GetPodUid() == string(pod.UID) && in.GetPolicy() == policy {
			found = append(found, in)
		}
	}
	switch len(found) {
	case 1:
		return instance{found[0], s}, nil
	case 0:
		return instance{}, refuseSoon("Unresolved", "the agent on node %q knows no instance in pod %q%s", pod.Spec.NodeName, pod.Name, unresolved(s.Reply, pod))
	}
	return instance{}, refuse("Unresolved", "the agent on node %q found %d instances in pod %q: name the server's container in the policy", pod.Spec.NodeName, len(found), pod.Name)
}

// agentRefusal turns what the fleet says of an agent into a refusal.
func agentRefusal(pod string, err error) *refusal {
	f := refuse("AgentUnreachable", "pod %q: %s", pod, fleet.Text(err))
	if e, ok := err.(*fleet.Error); ok {
		f.reason = string(e.Reason)
		f.soon = e.Reason == fleet.Connecting || e.Reason == fleet.Replaced || e.Reason == fleet.NotLeading
	}
	return f
}

// unresolved is what an agent says of a pod that it could not resolve.
func unresolved(s *agentpb.StatusReply, pod *corev1.Pod) string {
	var says []string
	for _, u := range s.GetUnresolved() {
		if strings.Contains(u, pod.Name) || strings.Contains(u, string(pod.UID)) {
			says = append(says, u)
		}
	}
	if len(says) == 0 {
		return " yet"
	}
	return ": " + strings.Join(says, "; ")
}
