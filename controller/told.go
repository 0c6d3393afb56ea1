package controller

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// Reasons of Applied for an instance whose agent goes by something else than its
// policy.
const (
	// reasonNotInForce: the agent refused it.
	reasonNotInForce = "NotInForce"
	// reasonNotToldYet: it is on its way, which takes a moment after each change.
	reasonNotToldYet = "NotToldYet"
)

// told is what this controller has told one agent. It is kept to compare with: a
// controller that does not know it computes it, or tells the agent again.
type told struct {
	// contents are policies by their digest: the two sent last, and the one that
	// the agent has in force.
	contents map[string]*agentpb.Policy
	// outcome is what came of it.
	outcome outcome
}

// outcome is what came of telling an agent a policy. It can be compared with ==.
type outcome struct {
	// has is the digest that the agent had, sent the one it was sent.
	has, sent string
	// says is the error, empty for none; refused says that it is the agent's own.
	says    string
	refused bool
}

// noteTold notes what came of telling an agent a policy, and says whether that is
// another outcome than the one before.
func (r *reconciler) noteTold(node string, p *agentpb.Policy, o outcome) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.told[node]
	is := told{contents: map[string]*agentpb.Policy{p.GetDigest(): p}, outcome: o}
	for _, digest := range []string{strings.TrimSuffix(o.has, agentpb.Partial), was.outcome.sent} {
		if old, ok := was.contents[digest]; ok {
			is.contents[digest] = old
		}
	}
	if r.told == nil {
		r.told = map[string]told{}
	}
	r.told[node] = is
	return was.outcome != o
}

// forgetTold drops what is kept of an agent that is not connected.
func (r *reconciler) forgetTold(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, node)
}

// inForce returns the policy that an agent with that digest has in force, of
// which it may have left out declarations, nil where this controller does not
// know it; and why the agent refused what it was sent last.
func (r *reconciler) inForce(node, digest string) (p *agentpb.Policy, refusal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told[node]
	if t.outcome.refused {
		refusal = t.outcome.says
	}
	return t.contents[strings.TrimSuffix(digest, agentpb.Partial)], refusal
}

// notInForce says why a member's agent goes by something else than its policy, nil
// when it does not. s is what the agent says.
func (r *reconciler) notInForce(ctx context.Context, p *v1alpha1.DatabasePolicy, m member, s *agentpb.StatusReply) (*refusal, error) {
	node, has := m.pod.Spec.NodeName, s.GetPolicyDigest()
	follows, refused := r.inForce(node, has)
	if follows == nil {
		// A controller before this one may have told it.
		all, err := r.declarations(ctx, node)
		if err != nil {
			return nil, err
		}
		if all.GetDigest() == strings.TrimSuffix(has, agentpb.Partial) {
			r.noteTold(node, all, outcome{has: has, sent: all.GetDigest()})
			follows = all
		}
	}
	want := declared(p, m.pod)
	for _, d := range follows.GetInstances() {
		if sameTreatment(d, want) {
			return nil, nil
		}
	}
	if refused != "" {
		return refuse(reasonNotInForce, "the agent on node %q does not go by what the policy says of pod %q: %s", node, m.pod.Name, refused), nil
	}
	return refuse(reasonNotToldYet, "the agent on node %q does not go by what the policy says of pod %q yet", node, m.pod.Name), nil
}

// sameTreatment says whether two declarations are of the same pod and have it
// treated alike. The role is left out: it is the pod's own, changes with every
// failover, and nothing on the node depends on it.
func sameTreatment(a, b *agentpb.Declared) bool {
	if a.GetPodUid() != b.GetPodUid() {
		return false
	}
	a, b = proto.Clone(a).(*agentpb.Declared), proto.Clone(b).(*agentpb.Declared)
	a.Role, b.Role = "", ""
	return proto.Equal(a, b)
}
