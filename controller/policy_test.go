package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func (w *world) policyTurn(name string) {
	w.Helper()
	_, err := w.r.reconcile(w.Context(), key{kindPolicy, "db", name})
	require.NoError(w, err)
}

func (w *world) nodeTurn(node string) {
	w.Helper()
	_, err := w.r.reconcile(w.Context(), key{kind: kindNode, name: node})
	require.NoError(w, err)
}

// tell gives every node a turn, so that its agent is told what is declared.
func (w *world) tell() {
	w.Helper()
	for i := range 3 {
		w.nodeTurn(fmt.Sprintf("n%d", i))
	}
}

func TestAPolicyTellsWhatItsPodsAre(t *testing.T) {
	w := newWorld(t)
	w.tell()
	one := int32(1)
	w.agents.nodes["n1"].reply.Instances[0].NumaNode = &one
	w.policyTurn("pg")
	st := w.policyObject().Status
	require.EqualValues(t, 3, st.Matched)
	require.EqualValues(t, 3, st.Ready)
	require.Equal(t, v1alpha1.InstanceStatus{Pod: "pg-0", Node: "n0", Container: "server", Cluster: "orders", Role: "primary", Ready: true}, st.Instances[0])
	require.Equal(t, &one, st.Instances[1].NUMANode)
	requireCondition(t, st.Conditions, v1alpha1.PolicyAccepted, metav1.ConditionTrue, "Accepted")
	requireCondition(t, st.Conditions, v1alpha1.PolicyApplied, metav1.ConditionTrue, "Applied")
	before := w.policyObject()
	w.policyTurn("pg")
	require.Equal(t, before, w.policyObject(), "nothing new, nothing written")
}

func TestAPolicySaysWhatIsMissing(t *testing.T) {
	numa := func(p *v1alpha1.DatabasePolicy) { p.Spec.NUMA = v1alpha1.NUMASingleNode }
	for name, c := range map[string]struct {
		world  func(w *world)
		reason string
		says   string
		ready  int32
	}{
		"no pods": {func(w *world) {
			for i := range 3 {
				require.NoError(w, w.kube.Delete(w.Context(), w.pod(i)))
			}
		}, "NoPods", "no pod of namespace", 0},
		"empty selector":    {policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Selector = metav1.LabelSelector{} }), "NoPods", "no pod", 0},
		"agent missing":     {func(w *world) { delete(w.agents.nodes, "n1") }, "AgentMissing", `2 of 3`, 2},
		"agent not ready":   {func(w *world) { w.agents.nodes["n1"].err = &fleet.Error{Node: "n1", Reason: fleet.NotReady} }, "AgentNotReady", "n1", 2},
		"agent too old":     {func(w *world) { w.agents.nodes["n1"].err = &fleet.Error{Node: "n1", Reason: fleet.TooOld} }, "AgentTooOld", "n1", 2},
		"agent certificate": {func(w *world) { w.agents.nodes["n1"].err = &fleet.Error{Node: "n1", Reason: fleet.Certificate} }, "AgentCertificate", "n1", 2},
		"not found by its agent": {func(w *world) {
			w.agents.nodes["n1"].reply.Instances = nil
			w.agents.nodes["n1"].reply.Unresolved = []string{`pod "db/pg-1": two containers listen`, `pod "db/other": nothing listens`}
		}, "Unresolved", "two containers listen", 2},
		"not placed": {func(w *world) {
			policyWith(numa)(w)
			for _, n := range w.agents.nodes {
				n.reply.Instances[0].Numa = "single-node"
			}
			w.agents.nodes["n1"].reply.Instances[0].PlacementError = "node 1 is full"
		}, "NotPlaced", "node 1 is full", 2},
		"placement not heard of yet": {policyWith(numa), "NotPlaced", "does not know yet", 0},
		"pod without a node": {func(w *world) {
			p := testPod(3)
			p.Spec.NodeName = ""
			require.NoError(w, w.kube.Create(w.Context(), p))
		}, "PodNotRunning", "not on a node", 3},
		"pod without a cluster": {func(w *world) { p := w.pod(1); delete(p.Labels, "cluster"); w.update(p) }, "NoCluster", `"cluster"`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.world(w)
			w.tell()
			w.policyTurn("pg")
			st := w.policyObject().Status
			requireCondition(t, st.Conditions, v1alpha1.PolicyAccepted, metav1.ConditionTrue, "Accepted")
			requireCondition(t, st.Conditions, v1alpha1.PolicyApplied, metav1.ConditionFalse, c.reason, c.says)
			require.Equal(t, c.ready, st.Ready)
		})
	}
}

func TestAPolicysEventIsToldOnceItsStatusIsWritten(t *testing.T) {
	w := newWorld(t)
	w.tell()
	w.hooks.SubResourcePatch = func(context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
		return errors.New("the API server is away")
	}
	for range 2 {
		_, err := w.r.reconcile(t.Context(), key{kindPolicy, "db", "pg"})
		require.ErrorContains(t, err, "is away")
	}
	require.Empty(t, w.events.Events)
	w.hooks.SubResourcePatch = nil
	w.policyTurn("pg")
	w.policyTurn("pg")
	require.Len(t, w.events.Events, 1, "one event, once")
	require.Contains(t, <-w.events.Events, "Applied")
}

func TestAPolicyIsAppliedOnceItsAgentsGoByIt(t *testing.T) {
	applied := func(w *world, s metav1.ConditionStatus, reason string, says ...string) {
		w.Helper()
		w.policyTurn("pg")
		requireCondition(w.T, w.policyObject().Status.Conditions, v1alpha1.PolicyApplied, s, reason, says...)
	}
	textOff := policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Statements = &v1alpha1.StatementsSpec{Text: v1alpha1.TextOff} })
	refusing := func(w *world, code codes.Code) {
		w.agents.hook = func(node string, _ *agentpb.ApplyRequest) error {
			if node == "n1" {
				return status.Error(code, "no space left")
			}
			return nil
		}
	}
	t.Run("all of them", func(t *testing.T) {
		w := newWorld(t)
		applied(w, metav1.ConditionFalse, reasonNotToldYet, "0 of 3")
		w.tell()
		applied(w, metav1.ConditionTrue, "Applied")
		textOff(w)
		w.nodeTurn("n0")
		applied(w, metav1.ConditionFalse, reasonNotToldYet, "1 of 3", `"n1"`)
		require.Equal(t, []bool{true, false}, []bool{w.policyObject().Status.Instances[0].Ready, w.policyObject().Status.Instances[1].Ready})
		w.tell()
		applied(w, metav1.ConditionTrue, "Applied")
		close(w.events.Events)
		for e := range w.events.Events {
			require.NotContains(t, e, reasonNotToldYet, "that is the ordinary course")
		}
	})
	t.Run("whoever told them", func(t *testing.T) {
		w := newWorld(t)
		w.tell()
		w.fresh()
		applied(w, metav1.ConditionTrue, "Applied")
		textOff(w)
		w.fresh()
		applied(w, metav1.ConditionFalse, reasonNotToldYet, "0 of 3")
	})
	t.Run("with the word of the one that refuses", func(t *testing.T) {
		w := newWorld(t)
		w.tell()
		refusing(w, codes.FailedPrecondition)
		textOff(w)
		w.tell()
		applied(w, metav1.ConditionFalse, reasonNotInForce, "2 of 3", `"n1"`, "no space left")
		require.Contains(t, w.policyObject().Status.Instances[1].Message, "no space left")
		after, err := w.r.reconcile(t.Context(), key{kindPolicy, "db", "pg"})
		require.NoError(t, err)
		require.Equal(t, lookAgainAtPolicy, after, "the reason may be another one by then")
		w.agents.hook = nil
		w.tell()
		applied(w, metav1.ConditionTrue, "Applied")
	})
	t.Run("an answer that did not come refuses nothing", func(t *testing.T) {
		w := newWorld(t)
		w.tell()
		refusing(w, codes.Unavailable)
		textOff(w)
		w.tell()
		applied(w, metav1.ConditionFalse, reasonNotToldYet, "2 of 3")
	})
	t.Run("whatever becomes of its neighbours", func(t *testing.T) {
		w := newWorld(t)
		pod := testPod(1)
		pod.Name, pod.UID, pod.Labels = "my-0", "another", map[string]string{"app": "my"}
		require.NoError(t, w.kube.Create(t.Context(), pod))
		other := testPolicy()
		other.Name, other.UID, other.Spec.ClusterLabel = "my", "mmmmmmmm", ""
		other.Spec.Selector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "my"}}
		require.NoError(t, w.kube.Create(t.Context(), other))
		w.tell()
		applied(w, metav1.ConditionTrue, "Applied")

		refusing(w, codes.InvalidArgument)
		other.Spec.NUMA = v1alpha1.NUMASingleNode
		require.NoError(t, w.kube.Update(t.Context(), other))
		w.tell()
		applied(w, metav1.ConditionTrue, "Applied")

		w.agents.hook = nil
		w.tell()
		w.agents.nodes["n1"].reply.PolicyDigest += agentpb.Partial
		applied(w, metav1.ConditionTrue, "Applied")
		told := w.agents.called("policy")
		after, err := w.r.reconcile(t.Context(), key{kind: kindNode, name: "n1"})
		require.NoError(t, err)
		require.Equal(t, sendAgain, after)
		require.Equal(t, told+1, w.agents.called("policy"), "the agent may know more by then")
	})
	t.Run("also through a failover", func(t *testing.T) {
		w := newWorld(t)
		w.tell()
		p := w.pod(0)
		p.Labels["role"] = "replica"
		w.update(p)
		applied(w, metav1.ConditionTrue, "Applied")
		require.Equal(t, "replica", w.policyObject().Status.Instances[0].Role)
	})
}

func TestWhatCameOfTellingAnAgentIsLoggedOnce(t *testing.T) {
	w := newWorld(t)
	var out strings.Builder
	w.r.log = slog.New(slog.NewTextHandler(&out, nil))
	lines := func(text string) int { return strings.Count(out.String(), text) }
	w.agents.hook = func(string, *agentpb.ApplyRequest) error {
		return status.Error(codes.FailedPrecondition, "no space left")
	}
	w.nodeTurn("n0")
	w.nodeTurn("n0")
	require.Equal(t, 1, lines("no space left"))
	w.agents.hook = nil
	w.agents.late = func(string, *agentpb.ApplyRequest) error {
		w.agents.nodes["n0"].reply.PolicyDigest += agentpb.Partial
		return nil
	}
	for range 4 {
		w.nodeTurn("n0")
	}
	require.Equal(t, 1, lines("policy sent"))
	require.Equal(t, 1, lines("taken in part"))
}

func TestAPolicyThatCannotBeFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *v1alpha1.DatabasePolicy)
		reason string
	}{
		"selector": {func(p *v1alpha1.DatabasePolicy) {
			p.Spec.Selector = metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
		}, "InvalidSelector"},
		"roles": {func(p *v1alpha1.DatabasePolicy) { p.Spec.Role.ReplicaValues = []string{"primary"} }, "InvalidRole"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			policyWith(c.change)(w)
			w.policyTurn("pg")
			requireCondition(t, w.policyObject().Status.Conditions, v1alpha1.PolicyAccepted, metav1.ConditionFalse, c.reason)
			requireCondition(t, w.policyObject().Status.Conditions, v1alpha1.PolicyApplied, metav1.ConditionFalse, c.reason)
			want, err := w.r.declarations(t.Context(), "n1")
			require.NoError(t, err)
			require.Empty(t, want.GetInstances())
		})
	}
}

func TestAPodMatchedTwiceIsDeclaredByNobody(t *testing.T) {
	w := newWorld(t)
	other := testPolicy()
	other.Name, other.UID = "replicas", "qqqqqqqq"
	other.Spec.Selector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "pg", "role": "replica"}}
	require.NoError(t, w.kube.Create(t.Context(), other))
	for _, name := range []string{"pg", "replicas"} {
		w.policyTurn(name)
		var p v1alpha1.DatabasePolicy
		ok, err := w.r.get(t.Context(), key{kindPolicy, "db", name}, &p)
		require.NoError(t, err)
		require.True(t, ok)
		requireCondition(t, p.Status.Conditions, v1alpha1.PolicyAccepted, metav1.ConditionFalse, "Conflict", `pod "pg-1"`)
	}
	for node, n := range map[string]int{"n0": 1, "n1": 0, "n2": 0} {
		d, err := w.r.declarations(t.Context(), node)
		require.NoError(t, err)
		require.Len(t, d.GetInstances(), n, node)
	}
}

func TestAgentsAreToldTheWholePolicy(t *testing.T) {
	var sent []*agentpb.Policy
	build := func(t *testing.T) *world {
		w := newWorld(t)
		sent = nil
		w.agents.hook = func(_ string, r *agentpb.ApplyRequest) error {
			if p := r.GetPolicy(); p != nil {
				sent = append(sent, p)
			}
			return nil
		}
		return w
	}
	t.Run("once, and again when its content changes", func(t *testing.T) {
		w := build(t)
		w.nodeTurn("n0")
		w.nodeTurn("n0")
		require.Len(t, sent, 1)
		d := sent[0].GetInstances()[0]
		require.Equal(t, "db/pg", d.GetPolicy())
		require.Equal(t, fmt.Sprintf(podUID, 0), d.GetPodUid())
		require.Equal(t, []string{"primary", "orders", "none", "postgresql"}, []string{d.GetRole(), d.GetCluster(), d.GetNuma(), d.GetEngine()})
		p := w.pod(0)
		p.Labels["role"] = "replica"
		w.update(p)
		w.nodeTurn("n0")
		require.Len(t, sent, 2)
		require.Equal(t, "replica", sent[1].GetInstances()[0].GetRole())
		require.NotEqual(t, sent[0].GetDigest(), sent[1].GetDigest())
	})
	t.Run("and how its instances may be asked", func(t *testing.T) {
		w := build(t)
		w.nodeTurn("n0")
		require.Nil(t, sent[0].GetInstances()[0].GetProbe(), "nobody is asked unless the policy says so")
		p := w.policyObject()
		p.Spec.Probe = &v1alpha1.ActiveProbe{
			SecretRef: v1alpha1.SecretReference{Name: "login"}, Database: "app", TLS: v1alpha1.ProbeTLSVerifyCA,
			Read:  v1alpha1.ProbeRead{Period: metav1.Duration{Duration: 5 * time.Second}},
			Write: v1alpha1.ProbeWrite{Mode: v1alpha1.ProbeWriteReplicated, Period: metav1.Duration{Duration: 20 * time.Second}},
		}
		require.NoError(t, w.kube.Update(t.Context(), p))
		w.nodeTurn("n0")
		require.Len(t, sent, 2)
		got := sent[1].GetInstances()[0].GetProbe()
		require.Equal(t, []string{"login", "app", "verify-ca", "replicated"}, []string{got.GetSecret(), got.GetDatabase(), got.GetTls(), got.GetWrite()})
		require.Equal(t, 25*time.Second, got.GetRead().AsDuration()+got.GetWritePeriod().AsDuration())
		p.Spec.Probe.Write, p.Spec.Probe.TLS = v1alpha1.ProbeWrite{}, ""
		require.NoError(t, w.kube.Update(t.Context(), p))
		w.nodeTurn("n0")
		require.Len(t, sent, 3, "its digest is another one")
		got = sent[2].GetInstances()[0].GetProbe()
		require.Equal(t, []string{"disable", "off"}, []string{got.GetTls(), got.GetWrite()})
		require.Nil(t, got.GetWritePeriod())
	})
	t.Run("again when it was replaced by one without a memory", func(t *testing.T) {
		w := build(t)
		w.nodeTurn("n0")
		w.agents.nodes["n0"].reply.PolicyDigest = ""
		w.nodeTurn("n0")
		require.Len(t, sent, 2)
	})
	t.Run("nothing where there is nothing to tell", func(t *testing.T) {
		w := build(t)
		require.NoError(t, w.kube.Delete(t.Context(), w.policyObject()))
		w.nodeTurn("n0")
		require.Empty(t, sent)
	})
	t.Run("that a policy was deleted", func(t *testing.T) {
		w := build(t)
		w.nodeTurn("n0")
		require.NoError(t, w.kube.Delete(t.Context(), w.policyObject()))
		w.nodeTurn("n0")
		require.Len(t, sent, 2)
		require.Empty(t, sent[1].GetInstances())
	})
	t.Run("not of pods that have ended", func(t *testing.T) {
		w := build(t)
		p := w.pod(0)
		p.Status.Phase = corev1.PodFailed
		w.update(p)
		w.nodeTurn("n0")
		require.Empty(t, sent)
	})
	t.Run("later, when it refuses", func(t *testing.T) {
		w := build(t)
		w.agents.hook = func(string, *agentpb.ApplyRequest) error {
			return status.Error(codes.InvalidArgument, "unknown engine")
		}
		after, err := w.r.reconcile(t.Context(), key{kind: kindNode, name: "n0"})
		require.NoError(t, err)
		require.Equal(t, sendAgain, after)
	})
}

func TestAFaultThatNoExperimentStandsForIsWithdrawn(t *testing.T) {
	fault := func(w *world, uid string) *agentpb.Fault {
		f := &agentpb.Fault{Uid: uid, Phase: "active", Instance: "db/pg-1/server", Started: timestamppb.New(w.clock)}
		w.agents.nodes["n1"].reply.Faults = append(w.agents.nodes["n1"].reply.Faults, f)
		return f
	}
	t.Run("when it bears the name of one", func(t *testing.T) {
		w := newWorld(t)
		f := fault(w, experimentUID+"-aaaaaaa1-r2")
		w.nodeTurn("n1")
		require.Equal(t, "ended", f.GetPhase())
	})
	t.Run("not when it was begun on the node", func(t *testing.T) {
		w := newWorld(t)
		f := fault(w, "by-hand")
		w.nodeTurn("n1")
		require.Equal(t, "active", f.GetPhase())
	})
	t.Run("not when an experiment lists it", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(named("pg-1"))
		w.chaos("lag")
		w.nodeTurn("n1")
		require.Len(t, w.agents.inForce(), 1)
	})
	t.Run("not when only the cache does not know the experiment yet", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(named("pg-1"))
		w.chaos("lag")
		w.r.kube = blind{w.kube}
		w.nodeTurn("n1")
		require.Len(t, w.agents.inForce(), 1)
	})
}

func TestTheAgentsAreFound(t *testing.T) {
	w := newWorld(t)
	pod := func(name, node, ip string, change func(*corev1.Pod)) {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "mooring-system", Name: name, UID: "u-" + "x", Labels: map[string]string{"app.kubernetes.io/name": "mooring-agent"}, CreationTimestamp: metav1.NewTime(w.clock)},
			Spec:       corev1.PodSpec{NodeName: node},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		}
		if change != nil {
			change(p)
		}
		require.NoError(t, w.kube.Create(t.Context(), p))
	}
	pod("a0", "n0", "10.0.0.1", nil)
	pod("a1", "n1", "fd00::1", func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse })
	pod("a2", "n2", "", nil)
	pod("a3", "n3", "10.0.0.3", func(p *corev1.Pod) { p.Namespace = "db" })
	pod("a4", "n4", "10.0.0.4", func(p *corev1.Pod) { p.Labels = nil })
	_, err := w.r.reconcile(t.Context(), key{kind: kindAgents})
	require.NoError(t, err)
	require.ElementsMatch(t, []fleet.Endpoint{
		{Node: "n0", Address: "10.0.0.1:9751", PodUID: "u-x", Ready: true},
		{Node: "n1", Address: "[fd00::1]:9751", PodUID: "u-x"},
	}, w.ends)
}
