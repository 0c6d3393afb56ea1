package pods

import (
	"errors"
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/mooring-dev/mooring/agent/state"
)

// Seen is where the server of a declared pod was found last. Whoever keeps it
// across restarts and gives it to Remember lets the pod be found under the same
// id while the API server is away.
type Seen struct {
	// Container is the container's name, ContainerID its id with the runtime's
	// name in front.
	Container   string `json:"container"`
	ContainerID string `json:"containerId"`
	// CgroupUID is the uid in the pod's cgroup path: its own, or for a static
	// pod the hash of its manifest.
	CgroupUID string `json:"cgroupUid"`
}

// Declare replaces what is declared of the node's pods. A declared pod is
// resolved by its declaration, ahead of what is written on it, and only when
// uid, namespace and name are its own. The next Instances follows it.
func (k *Kubernetes) Declare(declared []state.Declared) {
	now := make(map[string]state.Declared, len(declared))
	for _, d := range declared {
		now[d.PodUID] = d
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.declared = now
	k.keepDeclared()
}

// Remember gives back what Seen returned to an earlier agent on this node. It
// is called before Declare.
func (k *Kubernetes) Remember(seen map[string]Seen) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = maps.Clone(seen)
}

// Seen returns, by pod uid, where the servers of the declared pods were found
// last. The caller must not change it.
func (k *Kubernetes) Seen() map[string]Seen {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen
}

func (k *Kubernetes) declarations() map[string]state.Declared {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.declared
}

// keepDeclared forgets where undeclared pods were seen. The caller holds mu.
func (k *Kubernetes) keepDeclared() {
	seen := make(map[string]Seen, len(k.seen))
	for uid, s := range k.seen {
		if _, ok := k.declared[uid]; ok {
			seen[uid] = s
		}
	}
	k.seen = seen
}

// remember notes where declared pods were found.
func (k *Kubernetes) remember(found map[string]Seen) {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := make(map[string]Seen, len(k.seen)+len(found))
	maps.Copy(seen, k.seen)
	maps.Copy(seen, found)
	k.seen = seen
	k.keepDeclared()
}

// declarationOf returns what is declared of a pod. The uid of a static pod's
// mirror and that on its node both name it.
func declarationOf(pod *corev1.Pod, declared map[string]state.Declared) (state.Declared, bool) {
	d, ok := declared[string(pod.UID)]
	if uid, static := staticUID(pod); !ok && static {
		d, ok = declared[uid]
	}
	return d, ok
}

// resolveDeclared returns the instance that a declared pod runs. Where the pod
// object names no container with a server, as after a restart that the API
// server has not told of, the pod's cgroups are searched; where that finds none
// either, the pod is noted as missing.
func (k *Kubernetes) resolveDeclared(l *look, pod *corev1.Pod, d state.Declared) (*state.Instance, error) {
	s, err := k.searchFor(d, podCgroupUID(pod))
	if err != nil {
		return nil, err
	}
	statuses, err := eligible(pod, d.Container)
	if err != nil {
		return nil, err
	}
	srv, err := k.choose(l.view, pod, statuses, s.engine)
	if errors.Is(err, errNoServer) {
		if len(statuses) == 1 && len(pod.Status.ContainerStatuses) > 1 {
			s.container, s.nameless = statuses[0].Name, ""
		} else if len(statuses) == 1 {
			s.nameless = statuses[0].Name
		}
		found, searchErr := k.search(l.view, s)
		switch {
		case searchErr == nil:
			srv, err = found, nil
		case errors.Is(searchErr, errNoServer) && pod.DeletionTimestamp == nil:
			d.Container = s.last.Container
			if len(statuses) == 1 {
				d.Container = statuses[0].Name
			}
			l.missing = append(l.missing, d)
		}
	}
	if err != nil {
		return nil, err
	}
	return l.declaredInstance(s, srv)
}

// withoutPods resolves declared pods while the API server has not yet said
// which pods there are.
func (k *Kubernetes) withoutPods(l *look) []state.Instance {
	var out []state.Instance
	for _, d := range l.declared {
		in, err := k.resolveByUID(l, d)
		if err != nil && !vanished(err) {
			l.problemf("pod %s/%s: declared by policy %q: %v", d.Namespace, d.Pod, d.Policy, err)
		}
		if err == nil {
			out = append(out, *in)
		}
	}
	return out
}

// resolveByUID returns the instance that a declared pod runs when nothing but
// its declaration is known.
func (k *Kubernetes) resolveByUID(l *look, d state.Declared) (*state.Instance, error) {
	uid := d.PodUID
	if last, ok := k.Seen()[d.PodUID]; ok {
		uid = last.CgroupUID
	}
	s, err := k.searchFor(d, uid)
	if err != nil {
		return nil, err
	}
	srv, err := k.search(l.view, s)
	if err != nil {
		return nil, err
	}
	return l.declaredInstance(s, srv)
}

// declaredInstance makes the instance of a declared pod's server and notes
// where it is.
func (l *look) declaredInstance(s search, srv placedServer) (*state.Instance, error) {
	d := s.declared
	in, err := describe(l.view, d.Namespace, d.Pod, d.PodUID, s.engine, srv)
	if err != nil {
		return nil, err
	}
	in.Declared = &d
	l.seen[d.PodUID] = Seen{Container: srv.container, ContainerID: srv.id, CgroupUID: s.uid}
	return in, nil
}
