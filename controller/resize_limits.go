package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// Who writes the limits of a pod.
const (
	methodKubelet = "kubelet"
	methodAgent   = "agent"
)

// pageSize is the smallest unit of a memory limit in the kernel. On machines with
// larger pages the limits people write are multiples of those as well.
const pageSize = 4096

// wishes lists the resources that a size names.
func wishes(s *v1alpha1.ResizeResources) map[corev1.ResourceName]resource.Quantity {
	out := map[corev1.ResourceName]resource.Quantity{}
	if s == nil {
		return out
	}
	if s.CPU != nil {
		out[corev1.ResourceCPU] = *s.CPU
	}
	if s.Memory != nil {
		out[corev1.ResourceMemory] = *s.Memory
	}
	return out
}

func sizeText(s *v1alpha1.ResizeResources) string {
	var parts []string
	if s != nil && s.CPU != nil {
		parts = append(parts, "cpu "+s.CPU.String())
	}
	if s != nil && s.Memory != nil {
		parts = append(parts, "memory "+s.Memory.String())
	}
	return strings.Join(parts, ", ")
}

func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &pod.Spec.Containers[i]
}

// sizeOf returns the limits that want would change. A container without a limit
// has no size to come back to, and its pod's quality of service would change.
func sizeOf(pod *corev1.Pod, container string, want *v1alpha1.ResizeResources) (*v1alpha1.ResizeResources, *refusal) {
	c := containerOf(pod, container)
	if c == nil {
		return nil, refuse("Unresolved", "pod %q has no container %q", pod.Name, container)
	}
	from := &v1alpha1.ResizeResources{}
	for name := range wishes(want) {
		limit, ok := c.Resources.Limits[name]
		if !ok {
			return nil, refuse("NoLimit", "container %q of pod %q has no %s limit: give it one in its template first", container, pod.Name, name)
		}
		limit = limit.DeepCopy()
		if name == corev1.ResourceCPU {
			from.CPU = &limit
		} else {
			from.Memory = &limit
		}
	}
	return from, nil
}

// resizable refuses what would restart the container or could not be taken back.
func resizable(pod *corev1.Pod, container string, from, want *v1alpha1.ResizeResources) *refusal {
	c := containerOf(pod, container)
	limits := wishes(from)
	for name, new := range wishes(want) {
		if new.Sign() <= 0 {
			return refuse("InvalidSize", "the new %s limit %s is not above 0", name, new.String())
		}
		for _, p := range c.ResizePolicy {
			if p.ResourceName == name && p.RestartPolicy == corev1.RestartContainer {
				return refuse("WouldRestart", "container %q of pod %q is restarted when its %s changes (resizePolicy RestartContainer): set NotRequired in its template", container, pod.Name, name)
			}
		}
		request, has := c.Resources.Requests[name]
		old := limits[name]
		// A request that is lowered only because of the limit would not be known
		// when the limit is taken back.
		if has && request.Cmp(old) != 0 && request.Cmp(new) >= 0 {
			return refuse("BelowRequest", "the new %s limit %s of pod %q is not above the request of %s: a resize moves a request only where it equals the limit", name, new.String(), pod.Name, request.String())
		}
	}
	return nil
}

// patchLimits asks the API server for new limits. Requests that equal the limit
// follow it, so that the pod keeps its quality of service.
func (r *reconciler) patchLimits(ctx context.Context, pod *corev1.Pod, container string, old, want *v1alpha1.ResizeResources, dryRun bool) error {
	c := containerOf(pod, container)
	if c == nil {
		return fmt.Errorf("pod %q has no container %q", pod.Name, container)
	}
	limits, requests := corev1.ResourceList{}, corev1.ResourceList{}
	for name, q := range wishes(want) {
		limits[name] = q
		request, has := c.Resources.Requests[name]
		if limit := c.Resources.Limits[name]; has && request.Cmp(limit) == 0 {
			requests[name] = q
		}
	}
	resources := corev1.ResourceRequirements{Limits: limits, Requests: requests}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": container, "resources": resources}}}})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	opts := []client.SubResourcePatchOption{}
	if dryRun {
		opts = append(opts, client.DryRunAll)
	}
	// The uid is not checked by the server; a pod made again under the name has
	// another one, and the turn that saw it stops.
	target := &corev1.Pod{}
	target.Namespace, target.Name = pod.Namespace, pod.Name
	return r.kube.SubResource("resize").Patch(ctx, target, client.RawPatch(types.StrategicMergePatchType, body), opts...)
}

// notServed says that the API server has no pods/resize. The text is that of
// every answer to an unknown path; a pod that is gone is named.
func notServed(err error) bool {
	return err != nil && strings.Contains(err.Error(), "the server could not find the requested resource")
}

// applySize has the agent write the limits, where no kubelet does, and returns
// what it read back.
func (r *reconciler) applySize(ctx context.Context, z *v1alpha1.InstanceResize, x *v1alpha1.ResizeTargetStatus, want *v1alpha1.ResizeResources, dryRun bool) (*agentpb.Resources, error) {
	size := &agentpb.Size{}
	if want.CPU != nil {
		v := want.CPU.MilliValue()
		size.CpuMillicores = &v
	}
	if want.Memory != nil {
		v := want.Memory.Value()
		size.MemoryBytes = &v
	}
	reply, err := r.agents.Apply(ctx, x.Node, 0, &agentpb.ApplyRequest{
		Uid: string(z.UID), Instance: z.Namespace + "/" + x.Pod + "/" + x.Container, PodUid: x.UID, DryRun: dryRun,
		Desired: &agentpb.ApplyRequest_Size{Size: size},
	})
	return reply.GetResources(), err
}

// hasLimits says that a pod's spec asks for a size.
func hasLimits(pod *corev1.Pod, container string, want *v1alpha1.ResizeResources) bool {
	c := containerOf(pod, container)
	return c != nil && sameSize(c.Resources.Limits, want)
}

func sameSize(have corev1.ResourceList, want *v1alpha1.ResizeResources) bool {
	for name, q := range wishes(want) {
		if h, ok := have[name]; !ok || h.Cmp(q) != 0 {
			return false
		}
	}
	return true
}

// statusOf returns what the kubelet says of a container.
func statusOf(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	i := slices.IndexFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &pod.Status.ContainerStatuses[i]
}

// datesFromBefore says that the kubelet does not tell which generation its
// conditions are about (before Kubernetes 1.34).
func datesFromBefore(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodResizePending && c.ObservedGeneration == 0 {
			return true
		}
	}
	return false
}

// actuated says whether the kubelet reports a size as done, and else what it
// says. final is true where it will not try again by itself.
func actuated(pod *corev1.Pod, container string, want *v1alpha1.ResizeResources, since time.Time) (done bool, says string, final bool) {
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue || c.Type != corev1.PodResizePending && c.Type != corev1.PodResizeInProgress {
			continue
		}
		// A condition of an earlier resize stays until the kubelet has looked at
		// this one.
		if c.ObservedGeneration != 0 && c.ObservedGeneration < pod.Generation || c.ObservedGeneration == 0 && c.LastTransitionTime.Add(time.Second).Before(since) {
			continue
		}
		says = strings.TrimSuffix(fmt.Sprintf("kubelet: %s %s: %s", c.Type, c.Reason, c.Message), ": ")
		if c.Reason == corev1.PodReasonInfeasible {
			return false, says, true
		}
	}
	s := statusOf(pod, container)
	if says == "" && s != nil && s.Resources != nil && sameSize(s.Resources.Limits, want) {
		return true, "", false
	}
	if says == "" {
		says = "waiting for the kubelet"
	}
	return false, says, false
}

// readBack says whether the kernel has a size by the agent's word, and what it
// has.
func (r *reconciler) readBack(x *v1alpha1.ResizeTargetStatus, want *v1alpha1.ResizeResources) (bool, string) {
	s, err := r.agents.Status(x.Node)
	if s.Reply == nil {
		return false, "waiting for the agent: " + err.Error()
	}
	for _, in := range s.Reply.GetInstances() {
		if in.GetPodUid() != x.UID || in.GetContainer() != x.Container {
			continue
		}
		got := in.GetResources()
		says := fmt.Sprintf("the kernel has cpu %dm, memory %d", got.GetCpuMillicores(), got.GetMemoryLimitBytes())
		return got != nil && inKernel(got, want), says
	}
	return false, fmt.Sprintf("the agent on node %q knows no instance in the pod", x.Node)
}

func inKernel(got *agentpb.Resources, want *v1alpha1.ResizeResources) bool {
	if want.CPU != nil && got.GetCpuMillicores() != want.CPU.MilliValue() {
		return false
	}
	return want.Memory == nil || got.GetMemoryLimitBytes()/pageSize == want.Memory.Value()/pageSize
}
