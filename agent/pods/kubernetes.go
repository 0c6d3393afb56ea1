package pods

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/mooring-dev/mooring/agent/state"
)

// Kubernetes finds the servers of pods that are declared to be databases.
type Kubernetes struct {
	scanner  *scanner
	node     string
	roots    []string
	informer cache.SharedIndexInformer

	mu      sync.Mutex
	lastErr error
}

// NewKubernetes returns a source for the pods of one node. It needs get, list
// and watch on pods. Nothing is asked before Run.
func NewKubernetes(client kubernetes.Interface, node string, o Options) *Kubernetes {
	k := &Kubernetes{scanner: newScanner(o), node: node, roots: o.KubepodsRoots}
	ofNode := fields.OneTermEqualSelector("spec.nodeName", node).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, lo metav1.ListOptions) (runtime.Object, error) {
			lo.FieldSelector = ofNode
			return client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, lo)
		},
		WatchFuncWithContext: func(ctx context.Context, lo metav1.ListOptions) (watch.Interface, error) {
			lo.FieldSelector = ofNode
			return client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, lo)
		},
	}
	k.informer = cache.NewSharedIndexInformer(
		cache.ToListWatcherWithWatchListSemantics(lw, client), &corev1.Pod{}, 0, cache.Indexers{})
	// Both fail only on an informer that was started.
	_ = k.informer.SetTransform(slim)
	_ = k.informer.SetWatchErrorHandlerWithContext(k.watchFailed)
	return k
}

// Run follows the pods of the node until ctx ends and then returns nil. It may
// be called once. While the API server is away it goes on asking, slower and
// slower.
func (k *Kubernetes) Run(ctx context.Context) error {
	k.informer.RunWithContext(ctx)
	return nil
}

func (k *Kubernetes) watchFailed(ctx context.Context, r *cache.Reflector, err error) {
	k.mu.Lock()
	k.lastErr = err
	k.mu.Unlock()
	cache.DefaultWatchErrorHandler(ctx, r, err)
}

// slim keeps of a pod what the package reads: a node's pods stay in memory for
// the agent's lifetime.
func slim(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil // the informer's own mark of a missed deletion
	}
	out := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID,
		ResourceVersion: pod.ResourceVersion, Labels: pod.Labels,
	}}
	for _, key := range []string{engineAnnotation, containerAnnotation, hashAnnotation} {
		if value, ok := pod.Annotations[key]; ok {
			metav1.SetMetaDataAnnotation(&out.ObjectMeta, key, value)
		}
	}
	out.Spec.NodeName = pod.Spec.NodeName
	out.Status.Phase, out.Status.QOSClass = pod.Status.Phase, pod.Status.QOSClass
	for _, st := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		out.Status.ContainerStatuses = append(out.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: st.Name, ContainerID: st.ContainerID,
			State: corev1.ContainerState{Running: st.State.Running},
		})
	}
	return out, nil
}

// Instances scans the node for the servers of the pods known now. It does not
// ask the API server. It returns ErrNotSynced, with the last answer of the API
// server if there was one, until the pods have been received once.
func (k *Kubernetes) Instances(ctx context.Context) (Result, error) {
	if !k.informer.HasSynced() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.lastErr != nil {
			return Result{}, fmt.Errorf("%w from the API server: %w", ErrNotSynced, k.lastErr)
		}
		return Result{}, fmt.Errorf("%w from the API server", ErrNotSynced)
	}
	k.scanner.mu.Lock()
	defer k.scanner.mu.Unlock()
	v, err := k.scanner.scan(ctx)
	if err != nil {
		return Result{}, err
	}
	var out Result
	for _, obj := range k.informer.GetStore().List() {
		pod, ok := obj.(*corev1.Pod)
		if !ok || pod.Spec.NodeName != k.node || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		in, err := k.resolve(v, pod)
		if err != nil && !vanished(err) {
			v.problemf("pod %s/%s: %v", pod.Namespace, pod.Name, err)
		}
		if err == nil && in != nil {
			out.Instances = append(out.Instances, *in)
		}
	}
	sortInstances(out.Instances)
	slices.Sort(v.problems)
	out.Unresolved = v.problems
	return out, nil
}

// resolve returns the instance a pod runs, nil for a pod that is no database.
func (k *Kubernetes) resolve(v *view, pod *corev1.Pod) (*state.Instance, error) {
	want, ok, err := declaredEngine(pod)
	if err != nil || !ok {
		return nil, err
	}
	container, srv, err := k.choose(v, pod, want)
	if err != nil {
		return nil, err
	}
	in, err := v.instance(srv.server, true)
	if err != nil {
		return nil, err
	}
	in.Source, in.Engine = "kubernetes", want.name
	in.ID = pod.Namespace + "/" + pod.Name + "/" + container
	in.Name, in.Namespace, in.Pod, in.Container = pod.Name, pod.Namespace, pod.Name, container
	if in.Cgroup.Shared == "" && in.Cgroup.Path != srv.container {
		in.Cgroup.Shared = fmt.Sprintf("the server runs in cgroup %q below its container's, which holds the limits", in.Cgroup.Path)
	}
	return &in, nil
}

// placedServer is a server with the cgroup of the container it was found in.
type placedServer struct {
	server
	container string
}

// choose returns the one container of a pod in which one server of the engine
// listens.
func (k *Kubernetes) choose(v *view, pod *corev1.Pod, want engine) (string, placedServer, error) {
	statuses, err := eligible(pod)
	if err != nil {
		return "", placedServer{}, err
	}
	var names, reasons []string
	var chosen placedServer
	for _, st := range statuses {
		found, reason := k.serversOf(v, pod, st, want)
		if len(found) > 1 {
			return "", placedServer{}, fmt.Errorf("%d %s servers listen in container %q: give each a container of its own", len(found), want.name, st.Name)
		}
		if len(found) == 1 {
			names, chosen = append(names, st.Name), found[0]
		} else {
			reasons = append(reasons, fmt.Sprintf("container %q %s", st.Name, reason))
		}
	}
	switch len(names) {
	case 1:
		return names[0], chosen, nil
	case 0:
		if len(reasons) == 0 {
			reasons = []string{"it has no containers yet"}
		}
		return "", placedServer{}, fmt.Errorf("no container in which a %s server listens: %s", want.name, strings.Join(reasons, "; "))
	}
	return "", placedServer{}, fmt.Errorf("%s servers listen in containers %s: name one with the annotation %s",
		want.name, strings.Join(names, ", "), containerAnnotation)
}

// eligible returns the containers of a pod that may run its server: the one its
// annotation names, or all.
func eligible(pod *corev1.Pod) ([]corev1.ContainerStatus, error) {
	want, ok := pod.Annotations[containerAnnotation]
	if !ok {
		return pod.Status.ContainerStatuses, nil
	}
	var names []string
	for _, st := range pod.Status.ContainerStatuses {
		if st.Name == want {
			return []corev1.ContainerStatus{st}, nil
		}
		names = append(names, st.Name)
	}
	return nil, fmt.Errorf("annotation %s names container %q: the pod has %s", containerAnnotation, want, strings.Join(names, ", "))
}

// serversOf returns the servers of an engine that listen in a container, or why
// there are none.
func (k *Kubernetes) serversOf(v *view, pod *corev1.Pod, st corev1.ContainerStatus, want engine) ([]placedServer, string) {
	if st.State.Running == nil || st.ContainerID == "" {
		return nil, "is not running"
	}
	paths, err := containerCgroups(pod, st.ContainerID, k.roots)
	if err != nil {
		return nil, "cannot be found: " + err.Error()
	}
	var found []placedServer
	var others []string
	for _, srv := range v.servers {
		i := slices.IndexFunc(paths, func(p string) bool { return isAtOrBelow(srv.cgroup.Path, p) })
		switch {
		case i < 0:
		case want.runs(srv.executable):
			found = append(found, placedServer{srv, paths[i]})
		default:
			others = append(others, srv.executable)
		}
	}
	if len(others) > 0 {
		return found, "runs " + strings.Join(others, ", ")
	}
	if len(found) == 0 && !slices.ContainsFunc(paths, v.groups.exists) {
		return nil, "has no cgroup at any known place (a kubelet with a cgroup root of its own needs that root in the agent's configuration)"
	}
	return found, "has no known server that listens"
}
