package kube

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/mooring-dev/mooring/chaos"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func experiment(name string) *v1alpha1.ChaosExperiment {
	return &v1alpha1.ChaosExperiment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       v1alpha1.ChaosExperimentSpec{Target: v1alpha1.ChaosTarget{Policy: "orders"}, Fault: v1alpha1.Fault{Freeze: &v1alpha1.Freeze{}}, Duration: metav1.Duration{Duration: time.Second}},
	}
}

// controller writes the given statuses, one after the other, into each
// experiment that is created, as a controller would.
func controller(t *testing.T, statuses ...v1alpha1.ChaosExperimentStatus) interceptor.Funcs {
	t.Helper()
	return interceptor.Funcs{Create: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		if err := w.Create(ctx, o, opts...); err != nil {
			return err
		}
		x, ok := o.DeepCopyObject().(*v1alpha1.ChaosExperiment)
		if !ok {
			return nil
		}
		go func() {
			for _, s := range statuses {
				x.Status = s
				if w.Status().Update(context.WithoutCancel(ctx), x) != nil {
					return
				}
			}
		}()
		return nil
	}}
}

func status(phase v1alpha1.ExperimentPhase, targets ...v1alpha1.ChaosTargetStatus) v1alpha1.ChaosExperimentStatus {
	return v1alpha1.ChaosExperimentStatus{Phase: phase, Targets: targets}
}

func TestRunExitsWellOnlyWhenTheExperimentRecovered(t *testing.T) {
	start, end := metav1.NowMicro(), metav1.NewMicroTime(time.Now().Add(2*time.Second))
	active := v1alpha1.ChaosTargetStatus{Pod: "orders-1", Node: "n1", State: v1alpha1.ChaosActive, StartedAt: &start, Hits: 7}
	ended := v1alpha1.ChaosTargetStatus{Pod: "orders-1", Node: "n1", State: v1alpha1.ChaosEnded, StartedAt: &start, EndedAt: &end, Hits: 7, Recovered: true, Reason: "deadline"}
	residue := ended
	residue.Residue = []string{"cgroup.freeze: was 0, is 1"}
	planned := v1alpha1.ChaosTargetStatus{Pod: "orders-1", State: v1alpha1.ChaosPending, Changes: []string{"freeze cgroup"}}
	refused := status(v1alpha1.ExperimentRefused)
	refused.Conditions = []metav1.Condition{{Type: v1alpha1.TargetsResolved, Status: metav1.ConditionFalse, Reason: "NoMatch", Message: "no pod matches"}}
	for name, row := range map[string]struct {
		flags    []string
		statuses []v1alpha1.ChaosExperimentStatus
		status   int
		says     string
	}{
		"recovered":         {[]string{"--watch"}, []v1alpha1.ChaosExperimentStatus{status("Active", active), status("Recovered", ended)}, 0, "orders-1: 7 hits, lasted 2s, recovered yes"},
		"refused":           {[]string{"--watch"}, []v1alpha1.ChaosExperimentStatus{refused}, 1, "NoMatch: no pod matches"},
		"aborted":           {[]string{"--watch"}, []v1alpha1.ChaosExperimentStatus{status("Aborted", ended)}, 1, "phase Aborted"},
		"failed":            {[]string{"--watch"}, []v1alpha1.ChaosExperimentStatus{status("Failed", ended)}, 1, "phase Failed"},
		"left something":    {[]string{"--watch"}, []v1alpha1.ChaosExperimentStatus{status("Recovered", residue)}, 1, "left behind: cgroup.freeze: was 0, is 1"},
		"dry run":           {[]string{"--dry-run"}, []v1alpha1.ChaosExperimentStatus{status("DryRun", planned)}, 0, "orders-1 would change: freeze cgroup"},
		"dry run, refused":  {[]string{"--dry-run"}, []v1alpha1.ChaosExperimentStatus{refused}, 1, "NoMatch"},
		"not waited for":    {nil, nil, 0, "created"},
		"not over in time":  {[]string{"--watch", "--timeout", "50ms"}, []v1alpha1.ChaosExperimentStatus{status("Active", active)}, 1, "created"},
		"nobody takes care": {[]string{"--watch", "--timeout", "50ms"}, nil, 1, "created"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, controller(t, row.statuses...))
			args := append([]string{"chaos", "run", "--name", "x", "--policy", "orders", "--fault", "freeze", "--duration", "2s"}, row.flags...)
			out, _, err := c.run(t.Context(), args...)
			require.Equal(t, row.status, exit(err), "%v\n%s", err, out)
			if err != nil {
				out += err.Error()
			}
			require.Contains(t, out, row.says)
		})
	}
}

func TestWhoStopsWatchingIsToldThatItGoesOnAndHowToEndIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hooks := interceptor.Funcs{Watch: func(ctx context.Context, w client.WithWatch, l client.ObjectList, o ...client.ListOption) (watch.Interface, error) {
		defer cancel()
		return w.Watch(ctx, l, o...)
	}}
	c := newCluster(t, hooks)
	_, _, err := c.run(ctx, "chaos", "run", "--name", "x", "--policy", "orders", "--fault", "freeze", "--duration", "2s", "--watch")
	require.Equal(t, 1, exit(err))
	require.ErrorContains(t, err, "kubectl mooring chaos abort x -n shop")
	var x v1alpha1.ChaosExperiment
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "x"}, &x))
	require.False(t, x.Spec.Abort, "to stop watching must change nothing")
}

func TestWatchingOutlastsAnAPIServerThatGoesAway(t *testing.T) {
	tries := 0
	hooks := controller(t, status(v1alpha1.ExperimentRecovered))
	hooks.Watch = func(ctx context.Context, w client.WithWatch, l client.ObjectList, o ...client.ListOption) (watch.Interface, error) {
		if tries++; tries <= 3 {
			return nil, errors.New("connection refused")
		}
		return w.Watch(ctx, l, o...)
	}
	_, errs, err := newCluster(t, hooks).run(t.Context(), "chaos", "run", "--name", "x", "--policy", "orders", "--fault", "freeze", "--duration", "2s", "--watch")
	require.NoError(t, err)
	require.Equal(t, 4, tries)
	require.Equal(t, "the API server does not answer (connection refused); asking again\n", errs)
}

func TestADeletedExperimentEndsTheWatch(t *testing.T) {
	hooks := interceptor.Funcs{Watch: func(ctx context.Context, w client.WithWatch, l client.ObjectList, o ...client.ListOption) (watch.Interface, error) {
		require.NoError(t, w.Delete(ctx, experiment("x")))
		return w.Watch(ctx, l, o...)
	}}
	_, _, err := newCluster(t, hooks).run(t.Context(), "chaos", "run", "--name", "x", "--policy", "orders", "--fault", "freeze", "--duration", "2s", "--watch")
	require.Equal(t, 1, exit(err))
	require.ErrorContains(t, err, "x was deleted")
}

func TestAbortEndsALiveExperimentAndLeavesOneThatIsOver(t *testing.T) {
	live, over := experiment("live"), experiment("over")
	live.Status.Phase, over.Status.Phase = v1alpha1.ExperimentActive, v1alpha1.ExperimentRecovered
	c := newCluster(t, interceptor.Funcs{}, live, over)
	_, _, err := c.run(t.Context(), "chaos", "abort", "live")
	require.NoError(t, err)
	var x v1alpha1.ChaosExperiment
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(live), &x))
	require.True(t, x.Spec.Abort)
	require.Equal(t, live.Spec.Target, x.Spec.Target)
	out, _, err := c.run(t.Context(), "chaos", "abort", "over")
	require.NoError(t, err)
	require.Contains(t, out, "over already: Recovered")
	_, _, err = c.run(t.Context(), "chaos", "abort", "ghost")
	require.Equal(t, 1, exit(err))
	require.ErrorContains(t, err, `no experiment "ghost" in namespace "shop"`)
	out, _, err = c.run(t.Context(), "chaos", "list")
	require.NoError(t, err)
	require.Contains(t, out, "live")
	require.Contains(t, out, "over")
}

func TestFlagsBecomeTheSpec(t *testing.T) {
	c := newCluster(t, interceptor.Funcs{})
	_, _, err := c.run(t.Context(), "chaos", "run", "--name", "x", "--policy", "orders", "--role", "replica", "--pods", "a,b", "--count", "50%", "--fault", "net-delay",
		"--set", "delay=300ms", "--set", "jitter=10ms", "--duration", "20s", "--resume", "--continue", "-n", "bank")
	require.NoError(t, err)
	var x v1alpha1.ChaosExperiment
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Namespace: "bank", Name: "x"}, &x))
	require.Equal(t, []string{"a", "b"}, x.Spec.Target.Pods)
	require.Equal(t, v1alpha1.Replica, x.Spec.Target.Role)
	require.Equal(t, "50%", x.Spec.Target.Count.String())
	require.Equal(t, 300*time.Millisecond, x.Spec.Fault.NetworkDelay.Delay.Duration)
	require.EqualValues(t, "10ms", *x.Spec.Fault.NetworkDelay.Jitter)
	require.Equal(t, v1alpha1.Resume, x.Spec.OnAgentRestart)
	require.Equal(t, v1alpha1.ContinueUntilDeadline, x.Spec.OnControlLoss)

	_, _, err = c.run(t.Context(), "resize", "--name", "r", "--policy", "orders", "--cpu", "1500m", "--role", "replica")
	require.NoError(t, err)
	var r v1alpha1.InstanceResize
	require.NoError(t, c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "r"}, &r))
	require.Equal(t, "1500m", r.Spec.Resources.CPU.String())
	require.Nil(t, r.Spec.Resources.Memory, "what was not typed stays as it is")
	require.EqualValues(t, "2m0s", r.Spec.Timeout)
}

func TestEveryFaultOfTheAgentCanBeAskedForWithItsExamples(t *testing.T) {
	require.Len(t, kinds(), len(chaos.Kinds()), "a fault has no place in the API or in builders")
	for _, k := range kinds() {
		var set []string
		for _, p := range k.Params {
			set = append(set, p.Name+"="+p.Example)
		}
		_, err := faultOf(k.Name, set)
		require.NoError(t, err, k.Name)
	}
}

func TestFilesAreReadStrictly(t *testing.T) {
	good := "apiVersion: mooring.dev/v1alpha1\nkind: ChaosExperiment\nmetadata: {name: f, namespace: bank}\nspec: {target: {policy: orders}, fault: {freeze: {}}, duration: 5s}\n"
	for name, row := range map[string]struct{ text, says string }{
		"good":         {good, ""},
		"typing error": {good + "extra: 1\n", "extra"},
		"other kind":   {"apiVersion: v1\nkind: Pod\n", `"Pod"`},
		"not YAML":     {"\t", "read"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.yaml")
			require.NoError(t, os.WriteFile(path, []byte(row.text), 0o600))
			c := newCluster(t, interceptor.Funcs{})
			_, _, err := c.run(t.Context(), "chaos", "run", "-f", path)
			if row.says == "" {
				require.NoError(t, err)
				require.NoError(t, c.Get(t.Context(), client.ObjectKey{Namespace: "bank", Name: "f"}, &v1alpha1.ChaosExperiment{}))
				_, _, err = c.run(t.Context(), "chaos", "run", "-f", path, "-n", "shop")
				require.ErrorContains(t, err, "leave one out")
				return
			}
			require.Equal(t, 2, exit(err))
			require.ErrorContains(t, err, row.says)
		})
	}
	_, _, err := newCluster(t, interceptor.Funcs{}).run(t.Context(), "chaos", "run", "-f", "/nonexistent")
	require.Equal(t, 2, exit(err))
}

func TestResizeIsFollowedToItsEnd(t *testing.T) {
	for phase, want := range map[v1alpha1.ResizePhase]int{v1alpha1.ResizeDone: 0, v1alpha1.ResizeRolledBack: 1, v1alpha1.ResizeRefused: 1} {
		c := newCluster(t, interceptor.Funcs{Create: func(ctx context.Context, w client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := w.Create(ctx, o, opts...); err != nil {
				return err
			}
			r, ok := o.DeepCopyObject().(*v1alpha1.InstanceResize)
			require.True(t, ok)
			r.Status = v1alpha1.InstanceResizeStatus{Phase: phase, Progress: "1/1", Targets: []v1alpha1.ResizeTargetStatus{{Pod: "orders-1", Node: "n1", State: v1alpha1.TargetVerified, Method: "kubelet", Message: "cpu.max reads 150000"}}}
			return w.Status().Update(ctx, r)
		}})
		out, _, err := c.run(t.Context(), "resize", "--policy", "orders", "--cpu", "1500m", "--name", "r", "--watch")
		require.Equal(t, want, exit(err), "%v", err)
		require.Contains(t, out, "orders-1 on n1 verified by kubelet: cpu.max reads 150000")
		require.Contains(t, out, "phase "+string(phase)+" 1/1")
	}
}
