package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	// declared and seen are by Declared.PodUID. The maps are replaced, never
	// changed.
	declared map[string]state.Declared
	seen     map[string]Seen
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
		ResourceVersion: pod.ResourceVersion, Labels: pod.Labels, DeletionTimestamp: pod.DeletionTimestamp,
	}}
	for _, key := range []string{engineAnnotation, containerAnnotation, hashAnnotation, mirrorAnnotation} {
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

// Synced returns nil once the pods of the node have been received, and before
// that an error that wraps ErrNotSynced and says why not. It does not block.
func (k *Kubernetes) Synced() error {
	if k.informer.HasSynced() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lastErr != nil {
		return fmt.Errorf("%w from the API server: %w", ErrNotSynced, k.lastErr)
	}
	return fmt.Errorf("%w from the API server", ErrNotSynced)
}

// Instances scans the node for the servers of the pods known now. It does not
// ask the API server. Until the pods have been received once only declared ones
// are found, by their uid, and Unresolved says so; with none declared it
// returns ErrNotSynced, with the last answer of the API server if there was one.
func (k *Kubernetes) Instances(ctx context.Context) (Result, error) {
	unsynced := k.Synced()
	declared := k.declarations()
	if unsynced != nil && len(declared) == 0 {
		return Result{}, unsynced
	}
	k.scanner.mu.Lock()
	defer k.scanner.mu.Unlock()
	v, err := k.scanner.scan(ctx)
	if err != nil {
		return Result{}, err
	}
	var out Result
	l := &look{view: v, declared: maps.Clone(declared), seen: make(map[string]Seen)}
	if unsynced != nil {
		v.problemf("only declared pods are listed: %v", unsynced)
		out.Instances = k.withoutPods(l)
	} else {
		out.Instances = k.withPods(l)
	}
	k.remember(l.seen)
	sortInstances(out.Instances)
	slices.Sort(v.problems)
	out.Unresolved = v.problems
	slices.SortFunc(l.missing, func(a, b state.Declared) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	out.Missing = l.missing
	return out, nil
}

// look is one call of Instances.
type look struct {
	*view
	// declared is what no pod was found for yet, by Declared.PodUID.
	declared map[string]state.Declared
	// seen is where the servers of declared pods were found.
	seen map[string]Seen
	// missing is Result.Missing.
	missing []state.Declared
}

// withPods resolves the node's pods, those that are declared by their
// declaration and the others by what is written on them.
func (k *Kubernetes) withPods(l *look) []state.Instance {
	var out []state.Instance
	uids := make(map[string]string)
	for _, obj := range k.informer.GetStore().List() {
		pod, ok := obj.(*corev1.Pod)
		if !ok || pod.Spec.NodeName != k.node {
			continue
		}
		uids[pod.Namespace+"/"+pod.Name] = string(pod.UID)
		in, err := k.resolvePod(l, pod)
		if err != nil && !vanished(err) {
			l.problemf("pod %s/%s: %v", pod.Namespace, pod.Name, err)
		}
		if err == nil && in != nil {
			out = append(out, *in)
		}
	}
	for _, d := range l.declared {
		if uid, ok := uids[d.Namespace+"/"+d.Pod]; ok {
			l.problemf("pod %s/%s: policy %q declares it with uid %q and the one here has uid %q, which is another pod", d.Namespace, d.Pod, d.Policy, d.PodUID, uid)
		} else {
			l.problemf("pod %s/%s: policy %q declares it with uid %q and no such pod is on this node", d.Namespace, d.Pod, d.Policy, d.PodUID)
		}
	}
	return out
}

// resolvePod resolves a pod and takes its declaration, if it has one.
func (k *Kubernetes) resolvePod(l *look, pod *corev1.Pod) (*state.Instance, error) {
	d, ok := declarationOf(pod, l.declared)
	if !ok {
		if pod.Status.Phase != corev1.PodRunning {
			return nil, nil
		}
		return k.resolve(l.view, pod)
	}
	if d.Namespace != pod.Namespace || d.Pod != pod.Name {
		return nil, fmt.Errorf("policy %q declares its uid %q as pod %s/%s, so the two are not the same", d.Policy, d.PodUID, d.Namespace, d.Pod)
	}
	// Not before: the pod that it is about may come after this one.
	delete(l.declared, d.PodUID)
	if pod.Status.Phase != corev1.PodRunning {
		return nil, fmt.Errorf("policy %q declares it and it is %q, not running", d.Policy, pod.Status.Phase)
	}
	in, err := k.resolveDeclared(l, pod, d)
	if err != nil {
		return nil, fmt.Errorf("declared by policy %q: %w", d.Policy, err)
	}
	return in, nil
}

// resolve returns the instance an undeclared pod runs, nil for one that is no
// database.
func (k *Kubernetes) resolve(v *view, pod *corev1.Pod) (*state.Instance, error) {
	want, ok, err := declaredEngine(pod)
	if err != nil || !ok {
		return nil, err
	}
	statuses, err := eligible(pod, "")
	if err != nil {
		return nil, err
	}
	srv, err := k.choose(v, pod, statuses, want)
	if err != nil {
		return nil, err
	}
	return describe(v, pod.Namespace, pod.Name, string(pod.UID), want, srv)
}

// describe makes the instance of a pod's server.
func describe(v *view, namespace, pod, uid string, e engine, srv placedServer) (*state.Instance, error) {
	in, err := v.instance(srv.server, true)
	if err != nil {
		return nil, err
	}
	in.Source, in.Engine = "kubernetes", e.name
	in.ID = namespace + "/" + pod + "/" + srv.container
	in.Name, in.Namespace, in.Pod, in.Container = pod, namespace, pod, srv.container
	in.PodUID, in.ContainerID = uid, srv.id
	if in.Cgroup.Shared == "" && in.Cgroup.Path != srv.path {
		in.Cgroup.Shared = fmt.Sprintf("the server runs in cgroup %q below its container's, which holds the limits", in.Cgroup.Path)
	}
	return &in, nil
}

// placedServer is a server with the container it was found in.
type placedServer struct {
	server
	// container is the container's name, id its id with the runtime's name in
	// front, path its cgroup.
	container, id, path string
}

// errNoServer is inside the error of a pod in none of whose containers a server
// was found.
var errNoServer = errors.New("no container in which a server listens")

// noServer is an error that wraps errNoServer without its words.
type noServer struct{ text string }

func (e noServer) Error() string { return e.text }
func (e noServer) Unwrap() error { return errNoServer }

// choose returns the one of some containers of a pod in which one server of the
// engine listens.
func (k *Kubernetes) choose(v *view, pod *corev1.Pod, statuses []corev1.ContainerStatus, want engine) (placedServer, error) {
	var names, reasons []string
	var chosen placedServer
	for _, st := range statuses {
		found, reason := k.serversOf(v, pod, st, want)
		if len(found) > 1 {
			return placedServer{}, tooMany(len(found), want, st.Name)
		}
		if len(found) == 1 {
			names, chosen = append(names, st.Name), found[0]
		} else {
			reasons = append(reasons, fmt.Sprintf("container %q %s", st.Name, reason))
		}
	}
	switch len(names) {
	case 1:
		return chosen, nil
	case 0:
		if len(reasons) == 0 {
			reasons = []string{"it has no containers yet"}
		}
		return placedServer{}, noServer{fmt.Sprintf("no container in which a %s server listens: %s", want.name, strings.Join(reasons, "; "))}
	}
	return placedServer{}, severalContainers(names, want)
}

func tooMany(n int, want engine, container string) error {
	return fmt.Errorf("%d %s servers listen in container %q: give each a container of its own", n, want.name, container)
}

func severalContainers(names []string, want engine) error {
	return fmt.Errorf("%s servers listen in containers %s: name one in the policy, or with the annotation %s",
		want.name, strings.Join(names, ", "), containerAnnotation)
}

// eligible returns the containers of a pod that may run its server: the one its
// declaration names, else the one its annotation names, else all.
func eligible(pod *corev1.Pod, declared string) ([]corev1.ContainerStatus, error) {
	want, who := declared, "the policy"
	if want == "" {
		var ok bool
		if want, ok = pod.Annotations[containerAnnotation]; !ok {
			return pod.Status.ContainerStatuses, nil
		}
		who = "annotation " + containerAnnotation
	}
	var names []string
	for _, st := range pod.Status.ContainerStatuses {
		if st.Name == want {
			return []corev1.ContainerStatus{st}, nil
		}
		names = append(names, st.Name)
	}
	return nil, fmt.Errorf("%s names container %q: the pod has %s", who, want, strings.Join(names, ", "))
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
			found = append(found, placedServer{server: srv, container: st.Name, id: st.ContainerID, path: paths[i]})
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
