package kube

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// page is a podReader that has one page.
type page struct {
	text string
	err  error
}

func (p page) Read(context.Context, string, string, string, string) ([]byte, error) {
	return []byte(p.text), p.err
}

// cluster is a fake API server and what commands print about it.
type cluster struct {
	client.WithWatch
	metrics page
	dial    error
}

func newCluster(t *testing.T, hooks interceptor.Funcs, objects ...client.Object) *cluster {
	t.Helper()
	scheme, err := newScheme()
	require.NoError(t, err)
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(hooks).
		WithStatusSubresource(&v1alpha1.DatabasePolicy{}, &v1alpha1.ChaosExperiment{}, &v1alpha1.InstanceResize{}).Build()
	return &cluster{WithWatch: c}
}

// buffer may be read while a command writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// run runs one command line and returns what it printed.
func (c *cluster) run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs buffer
	cmd := &command{name: "kubectl mooring", out: &out, errOut: &errs, retry: time.Millisecond, now: time.Now}
	cmd.connect = func(*command) (*session, error) {
		return &session{WithWatch: c, pods: c.metrics, namespace: "shop"}, c.dial
	}
	root := cmd.root("v1")
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

// exit is the status that main would end with.
func exit(err error) int {
	var f *Failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return f.ExitStatus()
	}
	return 2
}

func policy() *v1alpha1.DatabasePolicy {
	one := int32(1)
	return &v1alpha1.DatabasePolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "orders"},
		Spec:       v1alpha1.DatabasePolicySpec{Engine: "postgresql"},
		Status: v1alpha1.DatabasePolicyStatus{
			ObservedGeneration: 1, Matched: 2, Ready: 1,
			Instances: []v1alpha1.InstanceStatus{
				{Pod: "orders-0", Node: "n1", Role: "primary", Cluster: "orders", NUMANode: &one, Ready: true},
				{Pod: "orders-1", Node: "n2", Role: "replica", Cluster: "orders", Message: "no agent\nis ready on n2"},
			},
			Conditions: []metav1.Condition{{Type: "Applied", Status: metav1.ConditionFalse, Reason: "AgentMissing", Message: "1 of 2 pods has no agent"}},
		},
	}
}

func agentPod(node string, ready bool) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "mooring-system", Name: "mooring-agent-" + node, Labels: map[string]string{nameLabel: agentName}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "agent", Image: "reg:5000/mooring-agent:v0.2.0"}}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if !ready {
		p.Status.Conditions[0].Status = corev1.ConditionFalse
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 4, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off"}}}}
	}
	return p
}

func system() []client.Object {
	holder, life := "mooring-controller-a", int32(15)
	return []client.Object{
		agentPod("n1", true), agentPod("n2", false),
		&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "mooring-system", Name: agentName}, Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 3}},
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "mooring-system", Name: controllerName}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &life, RenewTime: &metav1.MicroTime{Time: time.Now()}}},
	}
}

func TestInstancesListsWhatPoliciesDeclare(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, policy())
	out, _, err := c.run(t.Context(), "instances")
	require.NoError(t, err)
	require.Contains(t, out, "NAMESPACE")
	require.Regexp(t, `shop +orders-0 +n1 +primary +orders +postgresql +1 +yes +-`, out)
	require.Regexp(t, `shop +orders-1 +n2 +replica +orders +postgresql +any +no +no agent is ready on n2`, out)
	out, _, err = c.run(t.Context(), "instances", "-n", "other")
	require.NoError(t, err)
	require.NotContains(t, out, "orders")
	out, _, err = c.run(t.Context(), "instances", "-n", "other", "-A")
	require.NoError(t, err)
	require.Contains(t, out, "orders-0")
}

func TestStatusShowsEverythingOnOneScreen(t *testing.T) {
	live := experiment("live")
	live.Status.Phase = v1alpha1.ExperimentActive
	over := experiment("over")
	over.Status.Phase = v1alpha1.ExperimentRecovered
	objects := append(system(), policy(), live, over, &v1alpha1.InstanceResize{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "grow"}})
	out, _, err := newCluster(t, interceptor.Funcs{}, objects...).run(t.Context(), "status")
	require.NoError(t, err)
	for _, says := range []string{"leader mooring-controller-a", "1 of 3 ready", "v0.2.0", "CrashLoopBackOff back-off", "AgentMissing: 1 of 2", "live", "grow"} {
		require.Contains(t, out, says)
	}
	require.NotContains(t, out, " over ")
}

func TestStatusSaysWhenNobodyLeads(t *testing.T) {
	objects := system()
	lease, ok := objects[3].(*coordinationv1.Lease)
	require.True(t, ok)
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-time.Minute)}
	out, _, err := newCluster(t, interceptor.Funcs{}, objects...).run(t.Context(), "status")
	require.NoError(t, err)
	require.Contains(t, out, "no leader: mooring-controller-a has not renewed the lease")
}

func TestWhoMaySeeOnlyDatabasesStillGetsTheirStatus(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{List: func(ctx context.Context, w client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
		if _, pods := l.(*corev1.PodList); pods {
			return forbidden("", "pods", "list")
		}
		return w.List(ctx, l, o...)
	}}, policy())
	out, errs, err := c.run(t.Context(), "status")
	require.NoError(t, err)
	require.Contains(t, out, "orders")
	require.Contains(t, errs, "mooring-doctor")
}

func forbidden(group, resource, verb string) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: group, Resource: resource}, "", errors.New(`User "eve" cannot `+verb+` resource "`+resource+`"`))
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for name, row := range map[string]struct {
		args   string
		err    error
		status int
		says   []string
	}{
		"no resources":      {"instances", &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: v1alpha1.GroupName, Kind: "DatabasePolicy"}}, 1, []string{"kubectl apply"}},
		"may not read":      {"instances", forbidden(v1alpha1.GroupName, "databasepolicies", "list"), 1, []string{"cannot list", "mooring-view"}},
		"may not break":     {"chaos run --policy orders --fault freeze --duration 5s", forbidden(v1alpha1.GroupName, "chaosexperiments", "create"), 1, []string{"mooring-chaos"}},
		"may not resize":    {"resize --policy orders --cpu 1", forbidden(v1alpha1.GroupName, "instanceresizes", "create"), 1, []string{"mooring-operator"}},
		"may not examine":   {"doctor n1", forbidden("", "pods", "list"), 1, []string{"mooring-doctor", "mooring-system"}},
		"not logged in":     {"instances", apierrors.NewUnauthorized("who"), 1, []string{"log in"}},
		"refused by schema": {"chaos run --policy orders --fault freeze --duration 5s --name X_", apierrors.NewInvalid(schema.GroupKind{}, "X_", nil), 2, []string{"X_"}},
		"slow":              {"instances", context.DeadlineExceeded, 1, []string{"did not answer within 30s"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, interceptor.Funcs{
				List:   func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return row.err },
				Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return row.err },
			})
			_, _, err := c.run(t.Context(), strings.Fields(row.args)...)
			require.Equal(t, row.status, exit(err), "%v", err)
			for _, s := range row.says {
				require.ErrorContains(t, err, s)
			}
		})
	}
}

func TestWrongUsageAsksNothing(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{})
	c.dial = errors.New("must not connect")
	for args, says := range map[string]string{
		"frobnicate":                          "frobnicate",
		"chaos run":                           "--policy",
		"chaos run --policy p":                "--fault",
		"chaos run --policy p --fault freeze": "--duration",
		"chaos run --policy p --fault freeze --duration 0s":                                 "more than zero",
		"chaos run --policy p --fault meteor --duration 5s":                                 "there are net-delay",
		"chaos run --policy p --fault net-delay --duration 5s":                              "--set delay=",
		"chaos run --policy p --fault net-delay --duration 5s --set delay":                  "NAME=VALUE",
		"chaos run --policy p --fault net-delay --duration 5s --set speed=1":                "no such parameter",
		"chaos run --policy p --fault net-delay --duration 5s --set delay=1s --set delay=2": "twice",
		"chaos run --policy p --fault net-loss --duration 5s --set percent=lots":            "percent=lots",
		"chaos run -f x.yaml --policy p":                                                    "leave out --policy",
		"resize --policy p":                                                                 "--cpu",
		"resize --policy p --cpu -1":                                                        `"-1"`,
		"resize --cpu 1":                                                                    "--policy",
		"doctor":                                                                            "1 arg",
	} {
		t.Run(args, func(t *testing.T) {
			_, _, err := c.run(t.Context(), strings.Fields(args)...)
			require.Equal(t, 2, exit(err), "%v", err)
			require.ErrorContains(t, err, says)
		})
	}
}

const metricsPage = `# TYPE mooring_build_info gauge
mooring_build_info{version="v0.2.0"} 1
# TYPE db_probe_mode gauge
db_probe_mode{mode="tracepoint"} 1
# TYPE mooring_capability gauge
mooring_capability{name="io-error"} 0
mooring_capability{name="freeze"} 1
# TYPE mooring_capability_info gauge
mooring_capability_info{name="io-error",detail="refused by the kernel"} 1
# TYPE mooring_journal_damaged gauge
mooring_journal_damaged 1
# TYPE mooring_snapshot_age_seconds gauge
mooring_snapshot_age_seconds 40
# TYPE mooring_fault_stuck gauge
mooring_fault_stuck{namespace="shop",pod="orders-1",kind="freeze"} 1
`

func TestDoctorShowsWhatANodeCanDoAndWhatIsWrong(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{}, append(system(), policy())...)
	c.metrics.text = metricsPage
	out, _, err := c.run(t.Context(), "doctor", "n1")
	require.NoError(t, err)
	for _, says := range []string{"version v0.2.0", "timed by tracepoint", "journal was found damaged", "stuck: its snapshot is 40 s", "freeze on shop/orders-1"} {
		require.Contains(t, out, says)
	}
	require.Regexp(t, `freeze +yes`, out)
	require.Regexp(t, `io-error +no +refused by the kernel`, out)
	require.NotContains(t, out, "policy shop/orders", "the instance that is not ready is on n2")

	t.Run("an agent that does not answer", func(t *testing.T) {
		c.metrics = page{err: apierrors.NewServiceUnavailable("dial tcp: refused")}
		out, _, err := c.run(t.Context(), "doctor", "n2")
		require.Equal(t, 1, exit(err))
		require.ErrorContains(t, err, "does not answer on port 9750")
		require.Contains(t, out, "CrashLoopBackOff")
		require.Contains(t, out, "policy shop/orders")
		require.Contains(t, out, "no agent is ready on n2")
	})
	t.Run("garbage", func(t *testing.T) {
		c.metrics = page{text: "<html>"}
		_, _, err := c.run(t.Context(), "doctor", "n1")
		require.ErrorContains(t, err, "read metrics")
	})
	t.Run("no agent there", func(t *testing.T) {
		_, _, err := c.run(t.Context(), "doctor", "n9")
		require.ErrorContains(t, err, `no agent on node "n9", but 2 elsewhere`)
	})
	t.Run("no agent anywhere", func(t *testing.T) {
		_, _, err := newCluster(t, interceptor.Funcs{}).run(t.Context(), "doctor", "n1")
		require.ErrorContains(t, err, "is Mooring installed there?")
	})
}
