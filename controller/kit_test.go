package controller

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// world is a cluster of one namespace with three database pods on three nodes,
// an API server and agents that are both made up, and a clock that stands still.
type world struct {
	*testing.T
	kube   client.WithWatch
	agents *fakeAgents
	r      *reconciler
	events *events.FakeRecorder
	clock  time.Time
	hooks  interceptor.Funcs
	ends   []fleet.Endpoint
}

const (
	podUID        = "aaaaaaa%d-0000-4000-8000-000000000000"
	experimentUID = "eeeeeeee-0000-4000-8000-000000000001"
)

func newWorld(t *testing.T) *world {
	w := &world{T: t, clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	w.agents = newFakeAgents(w)
	w.events = events.NewFakeRecorder(256)
	objects := []client.Object{testPolicy()}
	for i := range 3 {
		objects = append(objects, testPod(i))
	}
	w.kube = fake.NewClientBuilder().WithScheme(newScheme()).
		WithStatusSubresource(&v1alpha1.DatabasePolicy{}, &v1alpha1.ChaosExperiment{}, &v1alpha1.InstanceResize{}).
		WithIndex(&corev1.Pod{}, byNode, nodeOf).WithObjects(objects...).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
				if w.hooks.SubResourcePatch != nil {
					return w.hooks.SubResourcePatch(ctx, c, sub, o, p, opts...)
				}
				return c.SubResource(sub).Patch(ctx, o, p, opts...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
				if w.hooks.Patch != nil {
					return w.hooks.Patch(ctx, c, o, p, opts...)
				}
				return c.Patch(ctx, o, p, opts...)
			},
		}).Build()
	w.fresh()
	return w
}

// fresh puts another controller in the place of the one before: it knows nothing
// but what it can read.
func (w *world) fresh() {
	w.r = &reconciler{
		kube: w.kube, live: w.kube, agents: w.agents, events: w.events,
		metrics: newMetrics(prometheus.NewRegistry()), log: slog.New(slog.DiscardHandler),
		now:       func() time.Time { return w.clock },
		endpoints: func(all []fleet.Endpoint) { w.ends = all },
		place:     agentPlace{namespace: "mooring-system", selector: labels.SelectorFromSet(labels.Set{"app.kubernetes.io/name": "mooring-agent"}), port: 9751},
		renewed:   map[string]time.Time{},
	}
}

func (w *world) after(d time.Duration) { w.clock = w.clock.Add(d) }

func testPolicy() *v1alpha1.DatabasePolicy {
	return &v1alpha1.DatabasePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: "pg", UID: "pppppppp", Generation: 1},
		Spec: v1alpha1.DatabasePolicySpec{
			Selector:     metav1.LabelSelector{MatchLabels: map[string]string{"app": "pg"}},
			Engine:       "postgresql",
			ClusterLabel: "cluster",
			Role:         &v1alpha1.RoleSource{Label: "role", PrimaryValues: []string{"primary"}, ReplicaValues: []string{"replica"}},
			Chaos:        v1alpha1.ChaosLimits{Allow: true, MaxDuration: "10m"},
		},
	}
}

func testPod(i int) *corev1.Pod {
	role := "replica"
	if i == 0 {
		role = "primary"
	}
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "db", Name: fmt.Sprintf("pg-%d", i), UID: types.UID(fmt.Sprintf(podUID, i)), Generation: 1,
			Labels: map[string]string{"app": "pg", "role": role, "cluster": "orders"},
		},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("n%d", i), Containers: []corev1.Container{
			{Name: "server", Resources: corev1.ResourceRequirements{Limits: limits, Requests: limits.DeepCopy()}},
		}},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "server", Resources: &corev1.ResourceRequirements{Limits: limits.DeepCopy()}}},
		},
	}
}

// experiment makes an experiment that delays the packets of one replica.
func (w *world) experiment(change ...func(*v1alpha1.ChaosExperiment)) *v1alpha1.ChaosExperiment {
	w.Helper()
	one := intstr.FromInt32(1)
	e := &v1alpha1.ChaosExperiment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: "lag", UID: experimentUID, Generation: 1, CreationTimestamp: metav1.NewTime(w.clock)},
		Spec: v1alpha1.ChaosExperimentSpec{
			Target:         v1alpha1.ChaosTarget{Policy: "pg", Role: v1alpha1.Replica, Count: &one},
			Fault:          v1alpha1.Fault{NetworkDelay: &v1alpha1.NetworkDelay{Delay: metav1.Duration{Duration: 300 * time.Millisecond}}},
			Duration:       metav1.Duration{Duration: time.Minute},
			OnControlLoss:  v1alpha1.Recover,
			OnAgentRestart: v1alpha1.End,
		},
	}
	for _, c := range change {
		c(e)
	}
	require.NoError(w, w.kube.Create(w.Context(), e))
	return e
}

// chaos gives an experiment one turn.
func (w *world) chaos(name string) time.Duration {
	w.Helper()
	after, err := w.r.reconcile(w.Context(), key{kindChaos, "db", name})
	require.NoError(w, err)
	return after
}

func (w *world) lag() *v1alpha1.ChaosExperiment {
	w.Helper()
	var e v1alpha1.ChaosExperiment
	require.NoError(w, w.kube.Get(w.Context(), types.NamespacedName{Namespace: "db", Name: "lag"}, &e))
	return &e
}

// update writes an object; of a pod, which has a status of its own, that as well.
func (w *world) update(o client.Object) {
	w.Helper()
	status := o.DeepCopyObject()
	require.NoError(w, w.kube.Update(w.Context(), o))
	if pod, ok := status.(*corev1.Pod); ok {
		pod.ResourceVersion = o.GetResourceVersion()
		require.NoError(w, w.kube.Status().Update(w.Context(), pod))
	}
}

func (w *world) pod(i int) *corev1.Pod {
	w.Helper()
	var p corev1.Pod
	require.NoError(w, w.kube.Get(w.Context(), types.NamespacedName{Namespace: "db", Name: fmt.Sprintf("pg-%d", i)}, &p))
	return &p
}

// requireCondition checks one condition of a list.
func requireCondition(t *testing.T, all []metav1.Condition, kind string, want metav1.ConditionStatus, reason string, says ...string) {
	t.Helper()
	c := meta.FindStatusCondition(all, kind)
	require.NotNil(t, c, "no condition %s in %v", kind, all)
	require.Equal(t, want, c.Status, "%s: %s", c.Reason, c.Message)
	require.Equal(t, reason, c.Reason, c.Message)
	for _, s := range says {
		require.Contains(t, c.Message, s)
	}
}

// fakeAgents are agents that do what they are asked, in memory.
type fakeAgents struct {
	w     *world
	mu    sync.Mutex
	nodes map[string]*fakeNode
	// hook, when set, sees each request before it is carried out; an error is
	// what the caller gets.
	hook func(node string, r *agentpb.ApplyRequest) error
	// late is like hook, after the request was carried out.
	late func(node string, r *agentpb.ApplyRequest) error
	// race, when set, is what happens between what was seen and what is asked.
	race  func()
	calls []string
}

type fakeNode struct {
	reply   *agentpb.StatusReply
	session uint64
	err     error
}

func newFakeAgents(w *world) *fakeAgents {
	a := &fakeAgents{w: w, nodes: map[string]*fakeNode{}}
	for i := range 3 {
		a.nodes[fmt.Sprintf("n%d", i)] = &fakeNode{session: 1, reply: &agentpb.StatusReply{
			ProtocolVersion: 2, NodeName: fmt.Sprintf("n%d", i),
			Capabilities: []*agentpb.Capability{{Name: "net-delay", Ok: true}, {Name: "io-error", Ok: true}, {Name: "freeze", Ok: true}},
			Instances: []*agentpb.Instance{{
				Id: fmt.Sprintf("db/pg-%d/server", i), Pod: fmt.Sprintf("pg-%d", i), Namespace: "db", Container: "server",
				PodUid: fmt.Sprintf(podUID, i), Policy: "db/pg", Resources: &agentpb.Resources{CpuMillicores: 1000, MemoryLimitBytes: 1 << 30},
			}},
		}}
	}
	return a
}

func (a *fakeAgents) Status(node string) (fleet.Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.nodes[node]
	if !ok {
		return fleet.Status{}, &fleet.Error{Node: node, Reason: fleet.Missing}
	}
	if n.err != nil {
		return fleet.Status{}, n.err
	}
	r := proto.Clone(n.reply).(*agentpb.StatusReply)
	r.Time = timestamppb.New(a.w.clock)
	return fleet.Status{Reply: r, At: a.w.clock, Session: n.session}, nil
}

func (a *fakeAgents) Apply(_ context.Context, node string, session uint64, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.race != nil {
		a.race()
	}
	n := a.nodes[node]
	what := "fault"
	switch {
	case r.GetWithdraw():
		what = "withdraw"
	case r.GetPolicy() != nil:
		what = "policy"
	case r.GetSize() != nil:
		what = "size"
	}
	if r.GetDryRun() {
		what += "?"
	}
	a.calls = append(a.calls, what+" "+node)
	if n == nil {
		return nil, &fleet.Error{Node: node, Reason: fleet.Missing}
	}
	if n.err != nil {
		return nil, n.err
	}
	if session != 0 && session != n.session {
		return nil, &fleet.Error{Node: node, Reason: fleet.Replaced}
	}
	if a.hook != nil {
		if err := a.hook(node, r); err != nil {
			return nil, err
		}
	}
	reply, err := a.carryOut(n, r)
	if err == nil && a.late != nil {
		if err := a.late(node, r); err != nil {
			return nil, err
		}
	}
	return reply, err
}

func (a *fakeAgents) carryOut(n *fakeNode, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	f := find(n.reply, r.GetUid())
	switch {
	case r.GetWithdraw():
		if f == nil {
			return nil, status.Errorf(codes.InvalidArgument, "unknown fault %q", r.GetUid())
		}
		a.endFault(f, "stopped")
	case r.GetPolicy() != nil:
		n.reply.PolicyDigest = r.GetPolicy().GetDigest()
		return &agentpb.ApplyReply{}, nil
	case r.GetSize() != nil:
		if !r.GetDryRun() {
			res := n.reply.Instances[0].Resources
			if r.GetSize().CpuMillicores != nil {
				res.CpuMillicores = r.GetSize().GetCpuMillicores()
			}
			if r.GetSize().MemoryBytes != nil {
				res.MemoryLimitBytes = r.GetSize().GetMemoryBytes()
			}
		}
		return &agentpb.ApplyReply{Resources: n.reply.Instances[0].Resources}, nil
	case f == nil && !a.w.clock.Before(r.GetFault().GetNotAfter().AsTime()):
		return nil, status.Error(codes.FailedPrecondition, "was to be over by then")
	case f == nil:
		f = &agentpb.Fault{
			Uid: r.GetUid(), Kind: r.GetFault().GetKind(), Instance: r.GetInstance(), Phase: "active",
			Started: timestamppb.New(a.w.clock), Deadline: timestamppb.New(a.w.clock.Add(r.GetFault().GetDuration().AsDuration())),
		}
		if !r.GetDryRun() {
			n.reply.Faults = append(n.reply.Faults, f)
		}
	}
	return &agentpb.ApplyReply{Fault: proto.Clone(f).(*agentpb.Fault), Changes: []string{"netem delay 300ms"}}, nil
}

// endFault ends a fault as an agent does that finds everything in order.
func (a *fakeAgents) endFault(f *agentpb.Fault, reason string) {
	if f.Phase == "active" {
		f.Phase, f.Reason, f.Verified, f.Ended = "ended", reason, true, timestamppb.New(a.w.clock)
	}
}

// fault returns the only fault of a node, nil where there is none.
func (a *fakeAgents) fault(node string) *agentpb.Fault {
	all := a.nodes[node].reply.Faults
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// inForce lists the faults that are in force, on all nodes.
func (a *fakeAgents) inForce() []string {
	var all []string
	for i := range 3 {
		for _, f := range a.nodes[fmt.Sprintf("n%d", i)].reply.Faults {
			if f.Phase == "active" {
				all = append(all, f.Uid)
			}
		}
	}
	return all
}

func (a *fakeAgents) called(what string) int {
	n := 0
	for _, c := range a.calls {
		if strings.HasPrefix(c, what+" ") {
			n++
		}
	}
	return n
}

// target is the node that the experiment of one target chose.
func (w *world) target() string {
	w.Helper()
	t := w.lag().Status.Targets
	require.Len(w, t, 1)
	return t[0].Node
}
