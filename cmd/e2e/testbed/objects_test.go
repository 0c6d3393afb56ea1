package testbed

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

func pods(t *testing.T, objects []*unstructured.Unstructured) []corev1.Pod {
	t.Helper()
	var list []corev1.Pod
	for _, o := range objects {
		if o.GetKind() == "Pod" {
			var p corev1.Pod
			require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, &p, true), "no field is misspelt")
			list = append(list, p)
		}
	}
	return list
}

func allPods(t *testing.T) []corev1.Pod {
	t.Helper()
	stream, err := manifests.ReadFile("manifests/shop.yaml")
	require.NoError(t, err)
	objects, err := Objects(stream)
	require.NoError(t, err)
	require.Equal(t, "Namespace", objects[0].GetKind(), "what the others are in comes first")
	list := pods(t, objects)
	for _, name := range []string{"orders-1", "orders-2"} {
		stream, err := replicaManifest(replica{name, "10.244.1.9"})
		require.NoError(t, err)
		objects, err := Objects(stream)
		require.NoError(t, err)
		list = append(list, pods(t, objects)...)
	}
	return list
}

func TestThePodsFitOnTheNode(t *testing.T) {
	var cpu, memory resource.Quantity
	for _, p := range allPods(t) {
		for _, c := range p.Spec.Containers {
			cpu.Add(*c.Resources.Requests.Cpu())
			memory.Add(*c.Resources.Requests.Memory())
		}
	}
	const agent, controller = 200, 100
	require.LessOrEqual(t, cpu.MilliValue()+agent+controller, int64(2000), "two processors, with the agent and the controller")
	require.LessOrEqual(t, memory.Value(), int64(3)<<30)
}

func TestEachDatabaseHasLimitsAndCanBeResizedAlive(t *testing.T) {
	for _, p := range allPods(t) {
		t.Run(p.Name, func(t *testing.T) {
			require.Equal(t, Namespace, p.Namespace)
			require.Equal(t, corev1.DNSDefault, p.Spec.DNSPolicy)
			require.Len(t, p.Spec.Containers, 1)
			c := p.Spec.Containers[0]
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
				require.Positive(t, request.Sign(), name)
				require.LessOrEqual(t, request.Cmp(limit), 0, name)
			}
			require.Equal(t, corev1.PullNever, c.ImagePullPolicy)
			for _, r := range c.ResizePolicy {
				require.Equal(t, corev1.NotRequired, r.RestartPolicy)
			}
			if p.Labels["app"] == "neighbour" {
				return
			}
			require.Len(t, c.ResizePolicy, 2)
			// It passes a little before the server serves: who asks waits for an answer.
			require.NotNil(t, c.StartupProbe.TCPSocket, "processes of runc are much for an emulated node")
			require.GreaterOrEqual(t, c.StartupProbe.TimeoutSeconds, int32(5))
			require.Nil(t, c.ReadinessProbe, "three processes of runc each time are much for an emulated node")
		})
	}
}

func TestEachPodsImageIsMade(t *testing.T) {
	made := map[string]bool{}
	for _, d := range databases() {
		made[d.image] = true
	}
	for _, p := range allPods(t) {
		require.True(t, made[p.Spec.Containers[0].Image], p.Spec.Containers[0].Image)
	}
}

func TestObjectsRefusesWhatIsNoManifest(t *testing.T) {
	_, err := Objects([]byte("kind: Pod\n---\n- a\n"))
	require.ErrorContains(t, err, "decode manifest 2")
	list, err := Objects([]byte("---\n# nothing\n---\nkind: Pod\napiVersion: v1\n"))
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestDescribeSaysWhatAPodWaitsFor(t *testing.T) {
	p := &corev1.Pod{Status: corev1.PodStatus{
		Phase:      corev1.PodPending,
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes"}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name:  "db",
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull"}},
			LastTerminationState: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}},
		}},
	}}
	require.Equal(t, "Pending; PodScheduled: 0/1 nodes; container db: ready false, 0 restarts; ErrImageNeverPull; ended before with 3: Error ", describe(p))
}
