package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/chaos"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// chaosPlan is an experiment resolved to its targets.
type chaosPlan struct {
	policy  *v1alpha1.DatabasePolicy
	members []member
	chosen  []member
	targets []v1alpha1.ChaosTargetStatus
	fault   string
}

// resolve finds out who is meant and whether that is allowed. It changes nothing
// and asks no agent; what it goes by is the state of this moment.
func (r *reconciler) resolve(ctx context.Context, e *v1alpha1.ChaosExperiment) (*chaosPlan, *refusal, error) {
	p, own, no, err := r.acceptedPolicy(ctx, e.Namespace, e.Spec.Target.Policy)
	if no != nil || err != nil {
		return nil, no, err
	}
	if no := allowed(e, p); no != nil {
		return nil, no, nil
	}
	chosen, no := narrow(e, p, own)
	if no != nil {
		return nil, no, nil
	}
	kind, params := faultOf(&e.Spec.Fault)
	plan := &chaosPlan{policy: p, chosen: chosen, fault: faultLine(kind, params)}
	if plan.members, err = r.withFailed(ctx, p, own); err != nil {
		return nil, nil, err
	}
	others, err := r.liveExperiments(ctx, r.kube, e)
	if err != nil {
		return nil, nil, err
	}
	if no := r.overruns(plan, others); no != nil {
		return nil, no, nil
	}
	for _, m := range chosen {
		t, no := r.target(e, p, m, kind)
		if no != nil {
			return nil, no, nil
		}
		plan.targets = append(plan.targets, *t)
	}
	return plan, nil, nil
}

// acceptedPolicy returns a policy that can be followed, with its members.
func (r *reconciler) acceptedPolicy(ctx context.Context, namespace, name string) (*v1alpha1.DatabasePolicy, []member, *refusal, error) {
	var p v1alpha1.DatabasePolicy
	err := r.kube.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &p)
	if apierrors.IsNotFound(err) {
		return nil, nil, refuseSoon("PolicyMissing", "there is no DatabasePolicy %q in namespace %q", name, namespace), nil
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read policy %q: %w", namespace+"/"+name, err)
	}
	own, err := members(ctx, r.kube, &p)
	if err != nil {
		return nil, nil, nil, err
	}
	all, err := r.policiesOf(ctx, namespace)
	if err != nil {
		return nil, nil, nil, err
	}
	if bad := unacceptable(&p, all, own); bad != nil {
		return nil, nil, refuse("PolicyNotAccepted", "policy %q cannot be followed: %s", name, bad.message), nil
	}
	return &p, own, nil, nil
}

// allowed checks an experiment against its policy and against what the fault
// itself takes.
func allowed(e *v1alpha1.ChaosExperiment, p *v1alpha1.DatabasePolicy) *refusal {
	if !p.Spec.Chaos.Allow {
		return refuse("NotAllowed", "policy %q does not allow experiments: set spec.chaos.allow there", p.Name)
	}
	most, err := p.Spec.Chaos.MaxDuration.Parse()
	if err != nil || most < 0 {
		return refuse("NotAllowed", "policy %q does not say for how long experiments may last: its spec.chaos.maxDuration %q is to be from 1s to 24h", p.Name, p.Spec.Chaos.MaxDuration)
	}
	if most > 0 && e.Spec.Duration.Duration > most {
		return refuse("TooLong", "the duration %v is longer than policy %q allows, which is %v", e.Spec.Duration.Duration, p.Name, most)
	}
	kind, params := faultOf(&e.Spec.Fault)
	spec := chaos.Spec{UID: string(e.UID), Kind: kind, Instance: "any", Params: params, Duration: e.Spec.Duration.Duration}
	if err := chaos.Validate(spec); err != nil {
		return refuse("InvalidFault", "the fault cannot be: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if t := e.Spec.Target; t.Role != "" && p.Spec.Role == nil {
		return refuse("RoleUnknown", "the target is to be a %s, and policy %q does not say how to tell roles: give it spec.role", t.Role, p.Name)
	}
	return nil
}

// narrow chooses the targets among the members of the policy.
func narrow(e *v1alpha1.ChaosExperiment, p *v1alpha1.DatabasePolicy, own []member) ([]member, *refusal) {
	t := &e.Spec.Target
	selector := labels.Everything()
	if t.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(t.Selector); err != nil {
			return nil, refuse("InvalidSelector", "the target's selector cannot be used: %s", err)
		}
	}
	var fit []member
	for _, m := range own {
		if selector.Matches(labels.Set(m.pod.Labels)) && within(m, t.Cluster, t.Role, t.Pods) {
			fit = append(fit, m)
		}
	}
	if no := allNamed(t.Pods, fit, p); no != nil {
		return nil, no
	}
	if len(fit) == 0 {
		return nil, refuse("NoMatch", "no instance of policy %q matches the target; the policy has %d", p.Name, len(own))
	}
	n, err := share(t.Count, len(fit), 1)
	if err != nil {
		return nil, refuse("InvalidCount", "the target's count cannot be used: %s", err)
	}
	if n > len(fit) {
		return nil, refuse("NoMatch", "%d instances are to be hit and %d match", n, len(fit))
	}
	if n > v1alpha1.MaxTargets {
		return nil, refuse("InvalidCount", "%d instances are to be hit, of which an experiment can have %d", n, v1alpha1.MaxTargets)
	}
	slices.SortFunc(fit, func(a, b member) int {
		return cmp.Or(cmp.Compare(lot(e.UID, a.pod.UID), lot(e.UID, b.pod.UID)), cmp.Compare(a.pod.Name, b.pod.Name))
	})
	fit = fit[:n]
	slices.SortFunc(fit, func(a, b member) int { return cmp.Compare(a.pod.Name, b.pod.Name) })
	return fit, nil
}

// within says whether a member is among those meant; an empty wish takes all.
func within(m member, cluster string, role v1alpha1.Role, pods []string) bool {
	return (cluster == "" || m.cluster == cluster) && (role == "" || m.role == role) && (len(pods) == 0 || slices.Contains(pods, m.pod.Name))
}

// allNamed refuses a target that names a pod which is not meant by the rest of
// it, or is not there.
func allNamed(names []string, fit []member, p *v1alpha1.DatabasePolicy) *refusal {
	var missing []string
	for _, name := range names {
		if !slices.ContainsFunc(fit, func(m member) bool { return m.pod.Name == name }) {
			missing = append(missing, strconv.Quote(name))
		}
	}
	if len(missing) > 0 {
		return refuse("PodMissing", "pods %s are named and are no instances of policy %q that the target matches", strings.Join(missing, ", "), p.Name)
	}
	return nil
}

// share is a number or a percentage of n, rounded down, and at least least; the
// number 1 where it is not given.
func share(v *intstr.IntOrString, n, least int) (int, error) {
	if v == nil {
		return 1, nil
	}
	k := v.IntValue()
	if v.Type == intstr.String {
		var err error
		if k, err = intstr.GetScaledValueFromIntOrPercent(v, n, false); err != nil {
			return 0, err
		}
		k = max(k, least)
	}
	if k < least {
		return 0, errors.New("it must be a number from 1 or a percentage such as 50%")
	}
	return k, nil
}

// lot decides which of several are hit: the same for the same experiment, and
// spread over the pods for different ones.
func lot(experiment, pod types.UID) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s", experiment, pod)
	return h.Sum64()
}

// target makes sure that one chosen member is one instance that its node can
// break.
func (r *reconciler) target(e *v1alpha1.ChaosExperiment, p *v1alpha1.DatabasePolicy, m member, kind string) (*v1alpha1.ChaosTargetStatus, *refusal) {
	if m.cluster == "" {
		return nil, refuse("NoCluster", "pod %q has no label %q, so nobody can tell what its database cluster would lose", m.pod.Name, p.Spec.ClusterLabel)
	}
	if !ready(m.pod) {
		return nil, refuse("PodNotReady", "pod %q is not ready: what an experiment would show there says nothing", m.pod.Name)
	}
	in, no := r.instanceOf(p, m)
	if no != nil {
		return nil, no
	}
	if s := in.GetShared(); s != "" {
		return nil, refuse("Shared", "the cgroup of pod %q is not its own: %s", m.pod.Name, s)
	}
	if k, known := kindOf(kind); known {
		for _, c := range in.status.Reply.GetCapabilities() {
			if c.GetName() == k.Needs && c.GetOk() {
				return &v1alpha1.ChaosTargetStatus{
					Pod: m.pod.Name, UID: string(m.pod.UID), Node: m.pod.Spec.NodeName, Instance: in.GetId(),
					Cluster: m.cluster, Role: string(m.role), State: v1alpha1.ChaosPending,
				}, nil
			}
		}
		return nil, refuse("NotCapable", "node %q of pod %q cannot do %s (capability %s)%s", m.pod.Spec.NodeName, m.pod.Name, kind, k.Needs, lack(in, k.Needs))
	}
	return nil, refuse("InvalidFault", "unknown fault %q", kind)
}

// lack is why a node does not have a capability.
func lack(in instance, name string) string {
	for _, c := range in.status.Reply.GetCapabilities() {
		if c.GetName() == name {
			return ": " + c.GetDetail()
		}
	}
	return ": its agent never probed it"
}

// rehearse has every agent plan the fault without doing it and notes the changes
// it would make.
func (r *reconciler) rehearse(ctx context.Context, e *v1alpha1.ChaosExperiment, p *chaosPlan) *refusal {
	refusals := make([]*refusal, len(p.targets))
	each(len(p.targets), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		t := p.targets[i]
		t.FaultUID = faultUID(e.UID, t.UID)
		ask := request(e, &t, r.now().Add(e.Spec.Duration.Duration+startAllowance))
		ask.DryRun = true
		reply, err := r.agents.Apply(ctx, t.Node, 0, ask)
		if err != nil {
			refusals[i] = refuse("AgentRefused", "the agent on node %q does not do it to pod %q: %s", t.Node, t.Pod, fleet.Text(err))
			var unsent *fleet.Error
			if errors.As(err, &unsent) || fleet.Uncertain(err) {
				refusals[i] = agentRefusal(t.Pod, err)
			}
			return
		}
		p.targets[i].Changes = lines(reply.GetChanges(), 16)
	})
	for _, no := range refusals {
		if no != nil {
			return no
		}
	}
	return nil
}

// lines is at most n of them.
func lines(all []string, n int) []string {
	if len(all) > n {
		all = append(slices.Clone(all[:n-1]), fmt.Sprintf("and %d more", len(all)-n+1))
	}
	return all
}

// each calls do for 0 to n-1 at once and waits for all.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { do(i) })
	}
	wg.Wait()
}

// liveExperiments lists the other experiments of the namespace that may have
// faults in force.
func (r *reconciler) liveExperiments(ctx context.Context, reader client.Reader, e *v1alpha1.ChaosExperiment) ([]v1alpha1.ChaosExperiment, error) {
	var list v1alpha1.ChaosExperimentList
	if err := reader.List(ctx, &list, client.InNamespace(e.Namespace)); err != nil {
		return nil, fmt.Errorf("list experiments: %w", err)
	}
	return slices.DeleteFunc(list.Items, func(o v1alpha1.ChaosExperiment) bool {
		return o.UID == e.UID || finished(o.Status.Phase) || !admitted(&o)
	}), nil
}
