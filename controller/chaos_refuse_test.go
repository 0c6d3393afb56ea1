package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func notReady(i int) func(w *world) {
	return func(w *world) {
		p := w.pod(i)
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		w.update(p)
	}
}

func agentErr(r fleet.Reason) func(w *world) {
	return func(w *world) {
		for name, n := range w.agents.nodes {
			n.err = &fleet.Error{Node: name, Reason: r}
		}
	}
}

func policyWith(f func(p *v1alpha1.DatabasePolicy)) func(w *world) {
	return func(w *world) { p := w.policyObject(); f(p); w.update(p) }
}

func TestExperimentsAreRefusedAsAWhole(t *testing.T) {
	all := []change{}
	for name, c := range map[string]struct {
		change []change
		world  func(w *world)
		reason string
		says   string
	}{
		"no such policy": {[]change{func(e *v1alpha1.ChaosExperiment) { e.Spec.Target.Policy = "my" }}, nil, "PolicyMissing", `no DatabasePolicy "my"`},
		"of another namespace": {nil, func(w *world) {
			require.NoError(w, w.kube.Delete(w.Context(), w.policyObject()))
			p := testPolicy()
			p.Namespace = "elsewhere"
			require.NoError(w, w.kube.Create(w.Context(), p))
		}, "PolicyMissing", `namespace "db"`},
		"not allowed": {nil, policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Chaos.Allow = false }), "NotAllowed", "spec.chaos.allow"},
		"too long":    {[]change{lasts(11 * time.Minute)}, nil, "TooLong", "10m0s"},
		"bad parameters": {[]change{func(e *v1alpha1.ChaosExperiment) {
			e.Spec.Fault.NetworkDelay.Jitter = jitter("1s")
		}}, nil, "InvalidFault", "jitter"},
		"a jitter in words": {[]change{func(e *v1alpha1.ChaosExperiment) {
			e.Spec.Fault.NetworkDelay.Jitter = jitter("10 milliseconds")
		}}, nil, "InvalidFault", "jitter"},
		"a limit in words":   {nil, policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Chaos.MaxDuration = "10 minutes" }), "NotAllowed", `"10 minutes" is to be from 1s to 24h`},
		"a limit below zero": {nil, policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Chaos.MaxDuration = "-1m" }), "NotAllowed", `"-1m"`},
		"bad percentage": {[]change{func(e *v1alpha1.ChaosExperiment) {
			e.Spec.Fault = v1alpha1.Fault{NetworkLoss: &v1alpha1.NetworkLoss{Percent: resource.MustParse("120")}}
		}}, nil, "InvalidFault", "percent"},
		"role unknown": {nil, policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Role = nil }), "RoleUnknown", "spec.role"},
		"no match by label": {[]change{func(e *v1alpha1.ChaosExperiment) {
			e.Spec.Target.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "b"}}
		}}, nil, "NoMatch", "the policy has 3"},
		"no match by cluster":     {[]change{func(e *v1alpha1.ChaosExperiment) { e.Spec.Target.Cluster = "ledger" }}, nil, "NoMatch", "the policy has 3"},
		"too few":                 {[]change{count(3)}, nil, "NoMatch", "2 match"},
		"a pod that is not there": {[]change{anyRole, named("pg-1", "pg-9")}, nil, "PodMissing", `"pg-9"`},
		"a pod in another role":   {[]change{named("pg-0")}, nil, "PodMissing", `"pg-0"`},
		"two of three":            {[]change{two}, nil, "TooManyAffected", "3 instances, of which 1 may be lost"},
		"one failed":              {[]change{named("pg-1")}, func(w *world) { p := w.pod(2); p.Status.Phase = corev1.PodFailed; w.update(p) }, "TooManyAffected", "1 not ready (pg-2)"},
		"one not ready":           {[]change{named("pg-1")}, notReady(2), "TooManyAffected", "1 not ready (pg-2)"},
		"the primary when a replica is not ready": {[]change{anyRole, named("pg-0")}, notReady(1), "TooManyAffected", "1 not ready (pg-1)"},
		"half by percentage":                      {[]change{two}, policyWith(func(p *v1alpha1.DatabasePolicy) { m := intstr.FromString("50%"); p.Spec.Chaos.MaxAffected = &m }), "TooManyAffected", "maxAffected 50%"},
		"a single instance": {[]change{anyRole, named("pg-0")}, func(w *world) {
			require.NoError(w, w.kube.Delete(w.Context(), w.pod(1)))
			require.NoError(w, w.kube.Delete(w.Context(), w.pod(2)))
		}, "TooManyAffected", "1 instances, of which 0 may be lost"},
		"a fault begun on the node": {[]change{named("pg-1")}, func(w *world) {
			w.agents.nodes["n2"].reply.Faults = []*agentpb.Fault{{Uid: "by-hand", Phase: "active", Instance: "db/pg-2/server"}}
		}, "TooManyAffected", "1 under another fault (pg-2)"},
		"target not ready":          {[]change{named("pg-1")}, notReady(1), "PodNotReady", `"pg-1"`},
		"target not running":        {[]change{named("pg-1")}, func(w *world) { p := w.pod(1); p.Status.Phase = corev1.PodPending; w.update(p) }, "PodNotRunning", "Pending"},
		"no cluster label":          {[]change{named("pg-1")}, func(w *world) { p := w.pod(1); delete(p.Labels, "cluster"); w.update(p) }, "TooManyAffected", "0 may be lost"},
		"no cluster label, allowed": {[]change{named("pg-1")}, func(w *world) { mayHitTwo(w); p := w.pod(1); delete(p.Labels, "cluster"); w.update(p) }, "NoCluster", `"cluster"`},
		"agent missing":             {nil, agentErr(fleet.Missing), "AgentMissing", "no agent runs on node"},
		"agent not ready":           {nil, agentErr(fleet.NotReady), "AgentNotReady", "is not ready"},
		"agent unreachable":         {nil, agentErr(fleet.Unreachable), "AgentUnreachable", "cannot be reached"},
		"agent too old":             {nil, agentErr(fleet.TooOld), "AgentTooOld", "too old"},
		"agent certificate":         {nil, agentErr(fleet.Certificate), "AgentCertificate", "certificates"},
		"agent stale":               {nil, agentErr(fleet.Stale), "AgentStale", "silent"},
		"instance unknown": {nil, func(w *world) {
			for _, n := range w.agents.nodes {
				n.reply.Instances = nil
				n.reply.Unresolved = []string{"pod db/pg-1: no server listens", "pod db/pg-2: no server listens"}
			}
		}, "Unresolved", "no server listens"},
		"two instances in a pod": {[]change{named("pg-1")}, func(w *world) {
			n := w.agents.nodes["n1"].reply
			n.Instances = append(n.Instances, &agentpb.Instance{Id: "db/pg-1/other", PodUid: n.Instances[0].PodUid, Policy: "db/pg"})
		}, "Unresolved", "2 instances"},
		"a pod made again": {[]change{named("pg-1")}, func(w *world) { w.agents.nodes["n1"].reply.Instances[0].PodUid = "another" }, "Unresolved", "knows no instance"},
		"shared":           {[]change{named("pg-1")}, func(w *world) { w.agents.nodes["n1"].reply.Instances[0].Shared = "sshd lives there" }, "Shared", "sshd"},
		"not capable": {[]change{named("pg-1")}, func(w *world) {
			w.agents.nodes["n1"].reply.Capabilities[0] = &agentpb.Capability{Name: "net-delay", Detail: "no sch_netem"}
		}, "NotCapable", "no sch_netem"},
		"a policy in conflict": {nil, func(w *world) {
			p := testPolicy()
			p.Name, p.UID = "pg2", "qqqqqqqq"
			require.NoError(w, w.kube.Create(w.Context(), p))
		}, "PolicyNotAccepted", "pg2"},
		"refused by one agent": {[]change{two}, func(w *world) {
			mayHitTwo(w)
			w.agents.hook = func(node string, _ *agentpb.ApplyRequest) error {
				if node == "n2" {
					return status.Error(codes.FailedPrecondition, "instance has fault already")
				}
				return nil
			}
		}, "AgentRefused", "has fault already"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.world != nil {
				c.world(w)
			}
			w.experiment(append(all, c.change...)...)
			w.after(settle + time.Second)
			require.Zero(t, w.chaos("lag"))
			e := w.lag()
			require.Equal(t, v1alpha1.ExperimentRefused, e.Status.Phase)
			requireCondition(t, e.Status.Conditions, v1alpha1.TargetsResolved, metav1.ConditionFalse, c.reason, c.says)
			require.Empty(t, e.Status.Targets)
			require.Empty(t, e.Finalizers)
			require.Zero(t, w.agents.called("fault"), "nothing was begun")
			require.Zero(t, w.agents.called("withdraw"))
			w.chaos("lag")
			require.Len(t, w.events.Events, 1, "one event, once")
		})
	}
}

func TestWhatIsLikelyToComeIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	p := w.policyObject()
	require.NoError(t, w.kube.Delete(t.Context(), p))
	w.experiment()
	require.NotZero(t, w.chaos("lag"))
	require.Equal(t, v1alpha1.ExperimentPending, w.lag().Status.Phase)
	requireCondition(t, w.lag().Status.Conditions, v1alpha1.TargetsResolved, metav1.ConditionFalse, "PolicyMissing")
	require.NoError(t, w.kube.Create(t.Context(), testPolicy()))
	w.after(time.Second)
	w.chaos("lag")
	require.Equal(t, v1alpha1.ExperimentActive, w.lag().Status.Phase)
}

func TestASecondExperimentCountsTheFirst(t *testing.T) {
	second := func(e *v1alpha1.ChaosExperiment) {
		e.Name, e.UID = "second", "eeeeeeee-0000-4000-8000-000000000002"
		e.Spec.Target.Pods = []string{"pg-2"}
	}
	refused := func(t *testing.T, w *world) {
		var e v1alpha1.ChaosExperiment
		require.NoError(t, w.kube.Get(t.Context(), client.ObjectKey{Namespace: "db", Name: "second"}, &e))
		require.Equal(t, v1alpha1.ExperimentRefused, e.Status.Phase)
		requireCondition(t, e.Status.Conditions, v1alpha1.TargetsResolved, metav1.ConditionFalse, "TooManyAffected", "1 under another fault (pg-1)")
	}
	t.Run("by its record, also when no agent says so", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(named("pg-1"))
		w.chaos("lag")
		w.agents.nodes["n1"].reply.Faults = nil
		w.experiment(second)
		w.chaos("second")
		refused(t, w)
	})
	t.Run("by the API server's word where the cache lags behind", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(named("pg-1"))
		w.chaos("lag")
		w.agents.nodes["n1"].reply.Faults = nil
		w.experiment(second)
		w.r.kube = blind{w.kube}
		w.chaos("second")
		refused(t, w)
	})
	t.Run("not when it is over", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(named("pg-1"))
		w.chaos("lag")
		w.agents.endFault(w.agents.fault("n1"), "deadline")
		w.chaos("lag")
		w.experiment(second)
		w.chaos("second")
		require.Len(t, w.agents.inForce(), 1)
	})
}

func TestWhatIsLostDuringTheRehearsalCounts(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(w *world)
		reason    string
	}{
		"a member is not ready any more": {notReady(2), "TooManyAffected"},
		"a member fails":                 {func(w *world) { p := w.pod(2); p.Status.Phase = corev1.PodFailed; w.update(p) }, "TooManyAffected"},
		"the target becomes the primary": {func(w *world) { p := w.pod(1); p.Labels["role"] = "primary"; w.update(p) }, "PodMissing"},
		"the target changes its role":    {func(w *world) { p := w.pod(1); delete(p.Labels, "role"); w.update(p) }, "TargetsChanged"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.experiment(named("pg-1"), func(e *v1alpha1.ChaosExperiment) {
				if c.reason == "TargetsChanged" {
					e.Spec.Target.Role = ""
				}
			})
			w.agents.hook = func(_ string, r *agentpb.ApplyRequest) error {
				if r.GetDryRun() {
					c.meanwhile(w)
				}
				return nil
			}
			w.chaos("lag")
			requireCondition(t, w.lag().Status.Conditions, v1alpha1.TargetsResolved, metav1.ConditionFalse, c.reason)
			require.Zero(t, w.agents.called("fault"), "nothing was begun")
		})
	}
}

func TestCountAndChoice(t *testing.T) {
	half := intstr.FromString("50%")
	for name, c := range map[string]struct {
		v    *intstr.IntOrString
		n    int
		want int
	}{
		"half of three":    {&half, 3, 1},
		"half of one":      {&half, 1, 1},
		"half of five":     {&half, 5, 2},
		"one when not set": {nil, 4, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := share(c.v, c.n, 1)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	t.Run("the choice is the experiment's alone", func(t *testing.T) {
		w := newWorld(t)
		w.experiment(dryRun)
		w.chaos("lag")
		first := w.lag().Status.Targets[0].Pod
		for range 5 {
			w := newWorld(t)
			w.experiment(dryRun)
			w.chaos("lag")
			require.Equal(t, first, w.lag().Status.Targets[0].Pod)
		}
		seen := map[uint64]bool{}
		for i := range 32 {
			seen[lot("experiment", testPod(i).UID)%2] = true
		}
		require.Len(t, seen, 2)
	})
}

func jitter(d v1alpha1.Duration) *v1alpha1.Duration { return &d }

func TestFaultsInTheAgentsWords(t *testing.T) {
	half, all := resource.MustParse("0.5"), resource.MustParse("100")
	for name, c := range map[string]struct {
		fault v1alpha1.Fault
		want  string
	}{
		"delay":         {v1alpha1.Fault{NetworkDelay: &v1alpha1.NetworkDelay{Delay: metav1.Duration{Duration: time.Second}, Jitter: jitter("0.001s")}}, "net-delay delay=1s jitter=1ms"},
		"loss":          {v1alpha1.Fault{NetworkLoss: &v1alpha1.NetworkLoss{Percent: half}}, "net-loss percent=0.5"},
		"I/O":           {v1alpha1.Fault{IOError: &v1alpha1.IOError{Operations: v1alpha1.IOWrite, Percent: &all}}, "io-error operations=write percent=100"},
		"I/O, defaults": {v1alpha1.Fault{IOError: &v1alpha1.IOError{}}, "io-error"},
		"freeze":        {v1alpha1.Fault{Freeze: &v1alpha1.Freeze{}}, "freeze"},
		"tenth":         {v1alpha1.Fault{NetworkLoss: &v1alpha1.NetworkLoss{Percent: resource.MustParse("100m")}}, "net-loss percent=0.1"},
		"smallest":      {v1alpha1.Fault{NetworkLoss: &v1alpha1.NetworkLoss{Percent: resource.MustParse("100u")}}, "net-loss percent=0.0001"},
	} {
		t.Run(name, func(t *testing.T) {
			kind, params := faultOf(&c.fault)
			require.Equal(t, c.want, faultLine(kind, params))
		})
	}
}
