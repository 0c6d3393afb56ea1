package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const (
	// byNode is the index of pods by the node they run on.
	byNode = "spec.nodeName"
	// askTimeout bounds one request to one agent.
	askTimeout = 10 * time.Second
	// sendAgain is how long an agent that refused a policy is left alone.
	sendAgain = 30 * time.Second
)

// node tells one agent which of its pods are instances, when it does not know it
// already, and withdraws faults there that nobody stands for.
func (r *reconciler) node(ctx context.Context, name string) (time.Duration, error) {
	// Why an agent does not answer stands in the policies' status; its return
	// brings another turn.
	s, _ := r.agents.Status(name)
	if s.Reply == nil {
		r.forgetTold(name)
		return 0, nil
	}
	if err := r.withdrawOrphans(ctx, name, s); err != nil {
		return 0, err
	}
	want, err := r.declarations(ctx, name)
	if err != nil {
		return 0, err
	}
	o := outcome{has: s.Reply.GetPolicyDigest(), sent: want.GetDigest()}
	if o.has == o.sent {
		r.noteTold(name, want, o)
		return 0, nil
	}
	if o.has == "" && len(want.GetInstances()) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err = r.agents.Apply(ctx, name, s.Session, &agentpb.ApplyRequest{Uid: "policy", Desired: &agentpb.ApplyRequest_Policy{Policy: want}})
	if err != nil {
		var unsent *fleet.Error
		o.says, o.refused = fleet.Text(err), !errors.As(err, &unsent) && !fleet.Uncertain(err)
	}
	// It is sent again until it is in force as a whole, and told of once.
	if news := r.noteTold(name, want, o); news {
		r.tellOutcome(name, want, o)
	}
	// The digest in the agent's next status says that it is in force; where that
	// does not come, it is sent again. An agent that left out a part may be
	// replaced by one that knows more.
	return sendAgain, nil
}

// tellOutcome logs what came of telling an agent a policy.
func (r *reconciler) tellOutcome(node string, p *agentpb.Policy, o outcome) {
	log := r.log.With("component", "policy", "node", node, "instances", len(p.GetInstances()), "digest", o.sent)
	switch {
	case o.says != "":
		log.Warn("policy not taken", "err", o.says)
	case o.has == o.sent+agentpb.Partial:
		log.Warn("policy taken in part: the status of the policies, and of the agent, says what was left out and why")
	default:
		log.Info("policy sent")
	}
}

// declarations is the whole of what one node's instances are declared to be.
func (r *reconciler) declarations(ctx context.Context, node string) (*agentpb.Policy, error) {
	var pods corev1.PodList
	if err := r.kube.List(ctx, &pods, client.MatchingFields{byNode: node}); err != nil {
		return nil, fmt.Errorf("list pods of node %q: %w", node, err)
	}
	policies := map[string][]v1alpha1.DatabasePolicy{}
	out := &agentpb.Policy{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		all, known := policies[pod.Namespace]
		if !known {
			var err error
			if all, err = r.policiesOf(ctx, pod.Namespace); err != nil {
				return nil, err
			}
			policies[pod.Namespace] = all
		}
		if p := declaredBy(all, pod); p != nil {
			out.Instances = append(out.Instances, declared(p, pod))
		}
	}
	slices.SortFunc(out.Instances, func(a, b *agentpb.Declared) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetPod(), b.GetPod()))
	})
	out.Digest = digest(out.GetInstances())
	return out, nil
}

func declared(p *v1alpha1.DatabasePolicy, pod *corev1.Pod) *agentpb.Declared {
	m := newMember(p, pod)
	return &agentpb.Declared{
		Namespace: pod.Namespace, Pod: pod.Name, PodUid: string(pod.UID),
		Container: p.Spec.Container, Engine: string(p.Spec.Engine),
		Cluster: m.cluster, Role: string(m.role),
		Policy: p.Namespace + "/" + p.Name, Numa: numaOf(p),
		Probe: probeOf(p), Statements: statementsOf(p.Spec.Statements),
	}
}

// probeOf is a policy's active probe in the agents' words; nil without one.
func probeOf(p *v1alpha1.DatabasePolicy) *agentpb.ActiveProbeSpec {
	in := p.Spec.Probe
	if in == nil {
		return nil
	}
	out := &agentpb.ActiveProbeSpec{
		Secret: in.SecretRef.Name, Read: durationpb.New(in.Read.Period.Duration), Database: in.Database,
		Write: "off", Tls: "disable",
	}
	if in.Write.Mode == v1alpha1.ProbeWriteReplicated {
		out.Write, out.WritePeriod = "replicated", durationpb.New(in.Write.Period.Duration)
	}
	if in.TLS == v1alpha1.ProbeTLSVerifyCA {
		out.Tls = "verify-ca"
	}
	return out
}

// numaOf is a policy's placement in the agents' words.
func numaOf(p *v1alpha1.DatabasePolicy) string {
	if p.Spec.NUMA == v1alpha1.NUMASingleNode {
		return "single-node"
	}
	return "none"
}

// digest names the content of a policy. The list must be sorted.
func digest(all []*agentpb.Declared) string {
	h := sha256.New()
	e := json.NewEncoder(h)
	for _, d := range all {
		// Encoding strings to a hash cannot fail.
		content := []string{d.GetNamespace(), d.GetPod(), d.GetPodUid(), d.GetContainer(), d.GetEngine(), d.GetCluster(), d.GetRole(), d.GetPolicy(), d.GetNuma()}
		// Without statements the name is what it was before there were any.
		if s := d.GetStatements(); s != nil {
			content = append(content, fmt.Sprint(s.GetDigestsOff(), s.GetTop(), s.GetNoText(), s.GetSlow().AsDuration()), strings.Join(s.GetAudit(), ","))
		}
		if p := d.GetProbe(); p != nil {
			_ = e.Encode([]string{p.GetSecret(), p.GetRead().AsDuration().String(), p.GetWrite(), p.GetWritePeriod().AsDuration().String(), p.GetDatabase(), p.GetTls()})
		}
		_ = e.Encode(content)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ourFault is the form of the fault uids that this package gives: an experiment's
// uid, the beginning of a pod's, and which attempt it is.
func ourFault() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-[0-9a-f]{1,8}(-r[0-9]+)?$`)
}

// withdrawOrphans ends faults on a node that were begun by a controller and that
// no experiment stands for any more. That can be left behind by a request that
// was carried out after it had been given up. The API server is asked again
// before one is ended, but ending one is the safe side in any case.
func (r *reconciler) withdrawOrphans(ctx context.Context, node string, s fleet.Status) error {
	if len(s.Reply.GetFaults()) == 0 {
		return nil
	}
	var suspects []string
	form := ourFault()
	for _, f := range s.Reply.GetFaults() {
		if f.GetPhase() == "active" && form.MatchString(f.GetUid()) {
			suspects = append(suspects, f.GetUid())
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	for _, reader := range []client.Reader{r.kube, r.live} {
		var list v1alpha1.ChaosExperimentList
		if err := reader.List(ctx, &list); err != nil {
			return fmt.Errorf("list experiments: %w", err)
		}
		suspects = slices.DeleteFunc(suspects, func(uid string) bool { return stoodFor(list.Items, uid) })
		if len(suspects) == 0 {
			return nil
		}
	}
	for _, uid := range suspects {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := r.agents.Apply(ctx, node, s.Session, &agentpb.ApplyRequest{Uid: uid, Withdraw: true})
		cancel()
		if err != nil {
			return fmt.Errorf("withdraw fault %q on node %q, which no experiment stands for: %w", uid, node, err)
		}
		r.log.Warn("fault withdrawn that no experiment stands for", "component", "chaos", "node", node, "uid", uid)
	}
	return nil
}

// stoodFor says whether an experiment that is not over lists the fault.
func stoodFor(all []v1alpha1.ChaosExperiment, uid string) bool {
	for i := range all {
		if finished(all[i].Status.Phase) {
			continue
		}
		for _, t := range all[i].Status.Targets {
			if t.FaultUID == uid {
				return true
			}
		}
	}
	return false
}
