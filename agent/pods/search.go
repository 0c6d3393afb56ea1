package pods

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/mooring-dev/mooring/agent/state"
)

// search is what is looked for among the cgroups of one pod.
type search struct {
	declared state.Declared
	engine   engine
	// uid is the one in the pod's cgroup path.
	uid string
	// container restricts the search to the container of that name; "" does not.
	container string
	// nameless is the name of a container that nothing tells the name of, where
	// it is the only one found; "" means that it cannot be known.
	nameless string
	last     Seen
}

// searchFor prepares a search for a declared pod's server.
func (k *Kubernetes) searchFor(d state.Declared, uid string) (search, error) {
	e, ok := engineNamed(d.Engine)
	if !ok {
		return search{}, fmt.Errorf("engine %q is none of %s", d.Engine, engineNames())
	}
	if !isPathElement(uid) {
		return search{}, fmt.Errorf("pod uid %q cannot be part of a cgroup path", uid)
	}
	s := search{declared: d, engine: e, uid: uid, container: d.Container, last: k.Seen()[d.PodUID]}
	if d.Container == "" {
		// It was chosen as the only one before, too.
		s.nameless = s.last.Container
	}
	return s, nil
}

// search finds the server of a declared pod by the uid in its cgroup path alone.
func (k *Kubernetes) search(v *view, s search) (placedServer, error) {
	var dirs []string
	for _, root := range append([]string{"/"}, k.roots...) {
		for _, level := range qosLevels("") {
			dirs = append(dirs, podDirs(root, level, s.uid)...)
		}
	}
	containers := make(map[string][]placedServer)
	for _, srv := range v.servers {
		i := slices.IndexFunc(dirs, func(dir string) bool { return srv.cgroup.Path != dir && isAtOrBelow(srv.cgroup.Path, dir) })
		if i < 0 || !s.engine.runs(srv.executable) {
			continue
		}
		leaf, _, _ := strings.Cut(strings.TrimPrefix(srv.cgroup.Path, dirs[i]+"/"), "/")
		p := placedServer{server: srv, path: path.Join(dirs[i], leaf), id: idOfLeaf(leaf)}
		containers[p.path] = append(containers[p.path], p)
	}
	var chosen []placedServer
	for _, servers := range containers {
		p := s.identify(v, servers[0], len(containers) == 1)
		if s.container != "" && p.container != "" && p.container != s.container {
			continue
		}
		if p.container == "" {
			return placedServer{}, fmt.Errorf("a %s server listens in container id %q, whose name only the API server knows", s.engine.name, p.id)
		}
		if len(servers) > 1 {
			return placedServer{}, tooMany(len(servers), s.engine, p.container)
		}
		chosen = append(chosen, p)
	}
	return s.only(chosen)
}

// identify fills in the name and the whole id of the container in which a
// server was found. The name is in no cgroup path: it comes from the mounts the
// kubelet gave the container, else from where the server was seen last.
func (s search) identify(v *view, p placedServer, alone bool) placedServer {
	lastRuntime, lastID := splitID(s.last.ContainerID)
	runtime, id := splitID(p.id)
	if runtime == "" {
		// It is the same as before.
		p.id = lastRuntime + id
	}
	p.container = v.containerName(p.pid, s.uid)
	switch {
	case p.container != "":
	case id == lastID && id != "":
		p.container = s.last.Container
	case alone:
		p.container = s.nameless
	}
	return p
}

// splitID cuts "containerd://4f…" into "containerd://" and the id itself; the
// first is empty where the runtime is not known.
func splitID(s string) (runtime, id string) {
	if i := strings.LastIndex(s, "://"); i >= 0 {
		return s[:i+len("://")], s[i+len("://"):]
	}
	return "", s
}

// only returns the one server there is.
func (s search) only(chosen []placedServer) (placedServer, error) {
	switch len(chosen) {
	case 1:
		return chosen[0], nil
	case 0:
		return placedServer{}, noServer{fmt.Sprintf("no cgroup of pod uid %q in which a %s server listens", s.uid, s.engine.name)}
	}
	var names []string
	for _, p := range chosen {
		names = append(names, p.container)
	}
	slices.Sort(names)
	return placedServer{}, severalContainers(names, s.engine)
}
