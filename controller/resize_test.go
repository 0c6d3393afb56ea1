package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// kubelets resize pods as the API server and kubelets do, in memory.
type kubelets struct {
	w *world
	// order is which pods were asked for, dry runs left out.
	order []string
	dry   int
	// refuse is what the API server answers for a pod.
	refuse func(pod string, dryRun bool) error
	// stuck pods keep their size and have this condition.
	stuck map[string]corev1.PodCondition
	// restarts are pods that a resize restarts.
	restarts map[string]bool
}

func newKubelets(w *world) *kubelets {
	k := &kubelets{w: w, stuck: map[string]corev1.PodCondition{}, restarts: map[string]bool{}}
	w.hooks.SubResourcePatch = func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
		if sub != "resize" {
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		}
		var po client.SubResourcePatchOptions
		po.ApplyOptions(opts)
		dry := len(po.DryRun) > 0
		if k.refuse != nil {
			if err := k.refuse(o.GetName(), dry); err != nil {
				return err
			}
		}
		if dry {
			k.dry++
			return nil
		}
		k.order = append(k.order, o.GetName())
		if err := c.Patch(ctx, o, p); err != nil {
			return err
		}
		k.sync(o.GetName())
		return nil
	}
	return k
}

// sync is a turn of the kubelet of a pod.
func (k *kubelets) sync(name string) {
	var i int
	_, err := fmt.Sscanf(name, "pg-%d", &i)
	require.NoError(k.w, err)
	pod := k.w.pod(i)
	limits := pod.Spec.Containers[0].Resources.Limits
	if c, ok := k.stuck[name]; ok && !limits.Memory().Equal(resource.MustParse("1Gi")) {
		c.LastTransitionTime = metav1.NewTime(k.w.clock)
		pod.Status.Conditions = append(pod.Status.Conditions[:1], c)
		k.w.update(pod)
		return
	}
	pod.Status.Conditions = pod.Status.Conditions[:1]
	pod.Status.ContainerStatuses[0].Resources = &corev1.ResourceRequirements{Limits: limits.DeepCopy()}
	if k.restarts[name] {
		pod.Status.ContainerStatuses[0].RestartCount++
	}
	k.w.update(pod)
	got := k.w.agents.nodes[fmt.Sprintf("n%d", i)].reply.Instances[0].Resources
	got.CpuMillicores, got.MemoryLimitBytes = limits.Cpu().MilliValue(), limits.Memory().Value()
}

func (w *world) newResize(change ...func(*v1alpha1.InstanceResize)) {
	w.Helper()
	memory := resource.MustParse("2Gi")
	z := &v1alpha1.InstanceResize{
		ObjectMeta: metav1.ObjectMeta{Namespace: "db", Name: "grow", UID: "rrrrrrrr", Generation: 1, CreationTimestamp: metav1.NewTime(w.clock)},
		Spec: v1alpha1.InstanceResizeSpec{
			Target: v1alpha1.ResizeTarget{Policy: "pg"}, Resources: v1alpha1.ResizeResources{Memory: &memory}, Timeout: "1m",
		},
	}
	for _, c := range change {
		c(z)
	}
	require.NoError(w, w.kube.Create(w.Context(), z))
}

func (w *world) resized(name string) *v1alpha1.InstanceResize {
	w.Helper()
	var z v1alpha1.InstanceResize
	require.NoError(w, w.kube.Get(w.Context(), client.ObjectKey{Namespace: "db", Name: name}, &z))
	return &z
}

// resizeAll gives a resize turns until it is over.
func (w *world) resizeAll() *v1alpha1.InstanceResize {
	w.Helper()
	for range 500 {
		_, err := w.r.reconcile(w.Context(), key{kindResize, "db", "grow"})
		require.NoError(w, err)
		if z := w.resized("grow"); resizeFinished(z.Status.Phase) {
			return z
		}
		w.after(time.Second)
	}
	require.Fail(w, "the resize does not come to an end")
	return nil
}

func states(z *v1alpha1.InstanceResize) map[string]v1alpha1.ResizeState {
	out := map[string]v1alpha1.ResizeState{}
	for _, t := range z.Status.Targets {
		out[t.Pod] = t.State
	}
	return out
}

func (w *world) memory(i int) string {
	c := w.pod(i).Spec.Containers[0].Resources
	return c.Limits.Memory().String() + "/" + c.Requests.Memory().String()
}

func TestAResizeGoesFromReplicasToThePrimary(t *testing.T) {
	w := newWorld(t)
	k := newKubelets(w)
	w.newResize()
	z := w.resizeAll()
	require.Equal(t, v1alpha1.ResizeDone, z.Status.Phase)
	require.Equal(t, []string{"pg-1", "pg-2", "pg-0"}, slices.Compact(k.order))
	require.Equal(t, 3, k.dry, "all were rehearsed first")
	require.Equal(t, "3/3", z.Status.Progress)
	requireCondition(t, z.Status.Conditions, v1alpha1.ResizeAccepted, metav1.ConditionTrue, "Accepted")
	requireCondition(t, z.Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionTrue, "Verified")
	for i := range 3 {
		require.Equal(t, "2Gi/2Gi", w.memory(i), "a request that equals the limit follows it")
	}
	x := z.Status.Targets[0]
	require.Equal(t, "1Gi", x.From.Memory.String())
	require.Nil(t, x.From.CPU)
	require.Equal(t, methodKubelet, x.Method)
	require.NotNil(t, x.FinishedAt)
	require.Contains(t, x.Message, "2147483648")
}

func TestAResizeLooksAtRolesWhenEachTurnComes(t *testing.T) {
	w := newWorld(t)
	k := newKubelets(w)
	w.newResize()
	first := true
	patch := w.hooks.SubResourcePatch
	w.hooks.SubResourcePatch = func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
		var po client.SubResourcePatchOptions
		po.ApplyOptions(opts)
		if sub == "resize" && len(po.DryRun) == 0 && first {
			// pg-2 is promoted while pg-1 is being resized.
			first = false
			old, new := w.pod(0), w.pod(2)
			old.Labels["role"], new.Labels["role"] = "replica", "primary"
			w.update(old)
			w.update(new)
		}
		return patch(ctx, c, sub, o, p, opts...)
	}
	require.Equal(t, v1alpha1.ResizeDone, w.resizeAll().Status.Phase)
	require.Equal(t, []string{"pg-1", "pg-0", "pg-2"}, slices.Compact(k.order))
}

func TestAResizeThatCannotGoOnIsTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		condition corev1.PodCondition
		reason    string
		says      string
	}{
		"infeasible": {corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: "Infeasible", Message: "Node didn't have enough capacity"}, "Infeasible", "enough capacity"},
		"deferred":   {corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: "Deferred", Message: "wait for others"}, "Timeout", "wait for others"},
		"in use":     {corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, Reason: "Error", Message: "usage above limit"}, "Timeout", "usage above limit"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := newKubelets(w)
			k.stuck["pg-2"] = c.condition
			w.newResize()
			z := w.resizeAll()
			require.Equal(t, v1alpha1.ResizeRolledBack, z.Status.Phase)
			requireCondition(t, z.Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionFalse, c.reason, c.says, "everything was taken back")
			require.Equal(t, map[string]v1alpha1.ResizeState{"pg-0": "Pending", "pg-1": "RolledBack", "pg-2": "RolledBack"}, states(z))
			require.Equal(t, []string{"pg-1", "pg-2", "pg-1"}, slices.Compact(k.order), "the last one first")
			for i := range 3 {
				require.Equal(t, "1Gi/1Gi", w.memory(i))
			}
		})
	}
	t.Run("when the API server refuses midway", func(t *testing.T) {
		w := newWorld(t)
		k := newKubelets(w)
		k.refuse = func(pod string, dry bool) error {
			if pod == "pg-2" && !dry {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, pod, errors.New("exceeded quota"))
			}
			return nil
		}
		w.newResize()
		z := w.resizeAll()
		require.Equal(t, v1alpha1.ResizeRolledBack, z.Status.Phase)
		requireCondition(t, z.Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionFalse, "Rejected", "exceeded quota")
		require.Equal(t, "1Gi/1Gi", w.memory(1))
	})
	t.Run("when the kernel does not have it although the kubelet says so", func(t *testing.T) {
		w := newWorld(t)
		newKubelets(w)
		patch := w.hooks.SubResourcePatch
		w.hooks.SubResourcePatch = func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			err := patch(ctx, c, sub, o, p, opts...)
			w.agents.nodes["n1"].reply.Instances[0].Resources.MemoryLimitBytes = 1 << 30
			return err
		}
		w.newResize()
		z := w.resizeAll()
		require.Equal(t, v1alpha1.ResizeRolledBack, z.Status.Phase)
		requireCondition(t, z.Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionFalse, "Timeout", "the kernel has")
	})
}

func TestAResizeStopsWhereSomethingElseHappened(t *testing.T) {
	t.Run("a restart", func(t *testing.T) {
		w := newWorld(t)
		k := newKubelets(w)
		k.restarts["pg-2"] = true
		w.newResize()
		z := w.resizeAll()
		require.Equal(t, v1alpha1.ResizeFailed, z.Status.Phase)
		requireCondition(t, z.Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionFalse, "Restarted", "pg-2")
		require.Equal(t, map[string]v1alpha1.ResizeState{"pg-0": "Pending", "pg-1": "Verified", "pg-2": "Failed"}, states(z))
	})
	t.Run("a pod made again", func(t *testing.T) {
		w := newWorld(t)
		k := newKubelets(w)
		k.stuck["pg-1"] = corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: "Deferred"}
		w.newResize()
		_, err := w.r.reconcile(t.Context(), key{kindResize, "db", "grow"})
		require.NoError(t, err)
		require.NoError(t, w.kube.Delete(t.Context(), w.pod(1)))
		p := testPod(1)
		p.UID = "another"
		require.NoError(t, w.kube.Create(t.Context(), p))
		z := w.resizeAll()
		require.Equal(t, v1alpha1.ResizeFailed, z.Status.Phase)
		requireCondition(t, z.Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionFalse, "PodReplaced", "pg-1")
	})
}

func TestResizesAreRefusedAsAWhole(t *testing.T) {
	container := func(f func(c *corev1.Container)) func(w *world) {
		return func(w *world) { p := w.pod(2); f(&p.Spec.Containers[0]); w.update(p) }
	}
	for name, c := range map[string]struct {
		change func(z *v1alpha1.InstanceResize)
		world  func(w *world)
		reason string
		says   string
	}{
		"no such policy": {func(z *v1alpha1.InstanceResize) { z.Spec.Target.Policy = "my" }, nil, "PolicyMissing", "my"},
		"no match":       {func(z *v1alpha1.InstanceResize) { z.Spec.Target.Cluster = "ledger" }, nil, "NoMatch", "3"},
		"missing pod":    {func(z *v1alpha1.InstanceResize) { z.Spec.Target.Pods = []string{"pg-9"} }, nil, "PodMissing", "pg-9"},
		"no limit":       {nil, container(func(c *corev1.Container) { delete(c.Resources.Limits, "memory") }), "NoLimit", "memory"},
		"would restart": {nil, container(func(c *corev1.Container) {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "memory", RestartPolicy: corev1.RestartContainer}}
		}), "WouldRestart", "RestartContainer"},
		"below the request": {func(z *v1alpha1.InstanceResize) { q := resource.MustParse("512Mi"); z.Spec.Resources.Memory = &q },
			container(func(c *corev1.Container) { c.Resources.Requests["memory"] = resource.MustParse("768Mi") }), "BelowRequest", "768Mi"},
		"agent gone":         {nil, func(w *world) { delete(w.agents.nodes, "n2") }, "AgentMissing", "n2"},
		"role unknown":       {func(z *v1alpha1.InstanceResize) { z.Spec.Target.Role = v1alpha1.Replica }, policyWith(func(p *v1alpha1.DatabasePolicy) { p.Spec.Role = nil }), "RoleUnknown", "spec.role"},
		"API server says no": {nil, nil, "Rejected", "QoS"},
		"a timeout in words": {func(z *v1alpha1.InstanceResize) { z.Spec.Timeout = "2 minutes" }, nil, "InvalidTimeout", `"2 minutes" is to be from 1s to 24h`},
		"a timeout below 0":  {func(z *v1alpha1.InstanceResize) { z.Spec.Timeout = "-2m" }, nil, "InvalidTimeout", `"-2m"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := newKubelets(w)
			if c.reason == "Rejected" {
				k.refuse = func(pod string, _ bool) error {
					if pod != "pg-2" {
						return nil
					}
					return apierrors.NewBadRequest("QoS may not change")
				}
			}
			if c.world != nil {
				c.world(w)
			}
			change := c.change
			if change == nil {
				change = func(*v1alpha1.InstanceResize) {}
			}
			w.newResize(change)
			w.after(settle + time.Second)
			_, err := w.r.reconcile(t.Context(), key{kindResize, "db", "grow"})
			require.NoError(t, err)
			z := w.resized("grow")
			require.Equal(t, v1alpha1.ResizeRefused, z.Status.Phase)
			requireCondition(t, z.Status.Conditions, v1alpha1.ResizeAccepted, metav1.ConditionFalse, c.reason, c.says)
			require.Empty(t, k.order)
		})
	}
}

func TestAResizeDryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	k := newKubelets(w)
	w.newResize(func(z *v1alpha1.InstanceResize) { z.Spec.DryRun = true })
	z := w.resizeAll()
	require.Equal(t, v1alpha1.ResizeDryRun, z.Status.Phase)
	require.Equal(t, "from memory 1Gi to memory 2Gi", z.Status.Targets[0].Message)
	require.Empty(t, k.order)
}

func TestTheAgentResizesWhereNoKubeletDoes(t *testing.T) {
	w := newWorld(t)
	k := newKubelets(w)
	k.refuse = func(string, bool) error { return errors.New("the server could not find the requested resource") }
	w.newResize()
	z := w.resizeAll()
	require.Equal(t, v1alpha1.ResizeDone, z.Status.Phase)
	require.Equal(t, methodAgent, z.Status.Targets[0].Method)
	require.Equal(t, 3, w.agents.called("size?"))
	require.EqualValues(t, 2<<30, w.agents.nodes["n0"].reply.Instances[0].Resources.MemoryLimitBytes)
	require.Equal(t, "1Gi/1Gi", w.memory(0), "the pod itself is left as it is")
}

func TestOneResizeOfAClusterAtATime(t *testing.T) {
	w := newWorld(t)
	k := newKubelets(w)
	k.stuck["pg-1"] = corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: "Deferred"}
	w.newResize(func(z *v1alpha1.InstanceResize) { z.Name, z.UID = "first", "ssssssss" })
	turn := func(name string) {
		_, err := w.r.reconcile(t.Context(), key{kindResize, "db", name})
		require.NoError(t, err)
	}
	turn("first")
	w.newResize(func(z *v1alpha1.InstanceResize) { z.Spec.Target.Pods = []string{"pg-2"} })
	turn("grow")
	requireCondition(t, w.resized("grow").Status.Conditions, v1alpha1.ResizeComplete, metav1.ConditionFalse, "Waiting", `"first"`)
	require.NotContains(t, k.order, "pg-2")
	delete(k.stuck, "pg-1")
	require.NoError(t, w.kube.Delete(t.Context(), w.resized("first")))
	require.Equal(t, v1alpha1.ResizeDone, w.resizeAll().Status.Phase)
}
