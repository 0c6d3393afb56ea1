package controller

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// overruns refuses a plan that, with what is broken already, would take more of a
// database cluster than it may lose. A member counts once as lost when it is not
// ready, which one that failed is not until it is made again, when a fault is on it, by the record of another experiment or by the
// word of its agent, or when it is a target. By default fewer than half may be
// lost, so that a majority of all members, ready or not, goes on.
func (r *reconciler) overruns(p *chaosPlan, others []v1alpha1.ChaosExperiment) *refusal {
	faulted := r.faulted(p, others)
	clusters := map[string]bool{}
	for _, m := range p.chosen {
		clusters[m.cluster] = true
	}
	for _, m := range p.members {
		if !clusters[m.cluster] {
			continue
		}
		delete(clusters, m.cluster)
		if no := p.clusterOverruns(m.cluster, faulted); no != nil {
			return no
		}
	}
	return nil
}

func (p *chaosPlan) clusterOverruns(cluster string, faulted map[types.UID]bool) *refusal {
	lost := map[types.UID]bool{}
	var targets, notReady, broken []string
	for _, m := range p.chosen {
		if m.cluster == cluster {
			lost[m.pod.UID] = true
			targets = append(targets, m.pod.Name)
		}
	}
	n := 0
	for _, m := range p.members {
		if m.cluster != cluster {
			continue
		}
		n++
		switch {
		case lost[m.pod.UID]:
		case faulted[m.pod.UID]:
			broken = append(broken, m.pod.Name)
		case !ready(m.pod):
			notReady = append(notReady, m.pod.Name)
		}
	}
	limit, rule := (n-1)/2, "less than half"
	if most := p.policy.Spec.Chaos.MaxAffected; most != nil {
		var err error
		if limit, err = share(most, n, 0); err != nil {
			return refuse("InvalidPolicy", "spec.chaos.maxAffected of policy %q cannot be used: %s", p.policy.Name, err)
		}
		rule = fmt.Sprintf("maxAffected %s", most.String())
	}
	if sum := len(targets) + len(notReady) + len(broken); sum > limit {
		return refuse("TooManyAffected", "cluster %q has %d instances, of which %d may be lost at a time (%s), and it would be %d: %s",
			cluster, n, limit, rule, sum, loss(targets, broken, notReady))
	}
	return nil
}

// loss adds up who is lost.
func loss(targets, broken, notReady []string) string {
	var parts []string
	for _, p := range []struct {
		what string
		pods []string
	}{{"targets", targets}, {"under another fault", broken}, {"not ready", notReady}} {
		if len(p.pods) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(p.pods), p.what, strings.Join(lines(p.pods, 8), ", ")))
		}
	}
	return strings.Join(parts, ", ")
}

// mayComeBack says that a fault that ended with its agent is going to be started
// again for the time that is left, so that its target is not free.
func mayComeBack(e *v1alpha1.ChaosExperiment, t *v1alpha1.ChaosTargetStatus, now time.Time) bool {
	withAgent := t.Reason == reasonAgentStopped || t.Reason == reasonRecovered || t.Reason == reasonUnknown
	return e.Spec.OnAgentRestart == v1alpha1.Resume && !e.Spec.Abort && e.DeletionTimestamp == nil && !finished(e.Status.Phase) &&
		t.State == v1alpha1.ChaosEnded && withAgent && e.Status.Deadline != nil && now.Before(e.Status.Deadline.Time)
}

// faulted are the members that a fault is on: those that other experiments list
// as not over, and those whose agent says so, which includes faults that were
// begun on the node itself.
func (r *reconciler) faulted(p *chaosPlan, others []v1alpha1.ChaosExperiment) map[types.UID]bool {
	hit := map[types.UID]bool{}
	for i := range others {
		for _, t := range others[i].Status.Targets {
			if t.FaultUID != "" && (!overOn(&t) || mayComeBack(&others[i], &t, r.now())) {
				hit[types.UID(t.UID)] = true
			}
		}
	}
	asked := map[string]bool{}
	for _, m := range p.members {
		node := m.pod.Spec.NodeName
		if node == "" || asked[node] {
			continue
		}
		asked[node] = true
		s, _ := r.agents.Status(node) // without an answer the records must do
		pods := map[string]string{}
		for _, in := range s.Reply.GetInstances() {
			pods[in.GetId()] = in.GetPodUid()
		}
		for _, f := range s.Reply.GetFaults() {
			if f.GetPhase() != "ended" && pods[f.GetInstance()] != "" {
				hit[types.UID(pods[f.GetInstance()])] = true
			}
		}
	}
	return hit
}

// overOn says that nothing of a target's fault is in force any more.
func overOn(t *v1alpha1.ChaosTargetStatus) bool {
	return t.State == v1alpha1.ChaosEnded || t.State == v1alpha1.ChaosFailed
}
