package pods

import (
	"fmt"
	"strings"

	"github.com/mooring-dev/mooring/agent/state"
)

// maxAncestors bounds the climb from a process to its ancestors: parents are
// read one after the other while processes come and go, so the chain may not
// be one that ever existed.
const maxAncestors = 64

// instance describes a server. With whole set, all processes of its cgroup are
// the instance's. An error means that it cannot be described; it may only have
// vanished.
func (v *view) instance(srv server, whole bool) (state.Instance, error) {
	in := state.Instance{
		Engine: srv.engine, Cgroup: srv.cgroup, MainPID: srv.pid,
		Ports: append([]uint16{}, srv.ports...),
		NetNS: srv.netns, HostNetwork: srv.netns == v.hostNetNS, HostLink: v.link(srv),
	}
	var err error
	if in.DataDir, in.DataDevice, err = v.proc.dataDir(v.ctx, srv.pid); err != nil {
		return state.Instance{}, err
	}
	f, err := v.family(srv, whole)
	if err != nil {
		return state.Instance{}, err
	}
	in.PIDs, in.Cgroup.Shared = f.divide()
	in.Cgroup.Paths = f.ownPaths(in.Cgroup.Shared == "")
	return in, nil
}

// family tells the processes of one instance from others in its cgroup.
type family struct {
	*view
	srv server
	// whole says that all processes of the cgroup are the instance's.
	whole bool
	// servers is the number of known servers in the cgroup or below it.
	servers int
	// pids are the processes in the cgroup and below it, ascending.
	pids    []int
	members map[int]bool
	// ancestors are those of pids from which the server descends, and top is
	// the first of them, or the server.
	ancestors map[int]bool
	top       int
	// unreadable says why pids are not known.
	unreadable error
}

func (v *view) family(srv server, whole bool) (*family, error) {
	f := &family{
		view: v, srv: srv, whole: whole,
		members: make(map[int]bool), ancestors: make(map[int]bool), top: srv.pid,
	}
	path := srv.cgroup.Path
	for _, other := range v.servers {
		if isAtOrBelow(other.cgroup.Path, path) {
			f.servers++
		}
	}
	pids, err := v.groups.members("memory", path)
	if vanished(err) {
		return nil, err
	}
	f.pids, f.unreadable = pids, err
	for _, pid := range pids {
		f.members[pid] = true
	}
	for range maxAncestors {
		st, err := v.stat(f.top)
		if err != nil || st.parent == 0 || !f.members[st.parent] {
			break
		}
		f.top = st.parent
		f.ancestors[f.top] = true
	}
	return f, nil
}

// isAtOrBelow reports whether a cgroup path is dir or in the tree below it.
func isAtOrBelow(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// divide returns the instance's processes and why the cgroup is shared, "" if
// it is not.
func (f *family) divide() (own []int, shared string) {
	var others []int
	path := f.srv.cgroup.Path
	if f.unreadable != nil {
		return []int{f.srv.pid}, fmt.Sprintf("the processes in cgroup %q cannot be told: %v", path, f.unreadable)
	}
	for _, pid := range f.pids {
		if pid == 0 {
			others = append(others, 0)
			continue
		}
		if _, err := f.stat(pid); err != nil {
			continue // it has ended
		}
		if f.owns(pid) {
			own = append(own, pid)
		} else {
			others = append(others, pid)
		}
	}
	if !f.members[f.srv.pid] {
		own = []int{f.srv.pid} // it moved during the scan, or ended
	}
	switch {
	case path == "/":
		shared = "the server runs in the root cgroup, which is the whole node's: run it as a service or in a container"
	case f.servers > 1:
		shared = fmt.Sprintf("%d database servers run in cgroup %q: give each a cgroup of its own", f.servers, path)
	case len(others) > 0:
		shared = fmt.Sprintf("cgroup %q also holds %s: run the server as a service or in a container of its own", path, f.describe(others))
	case !f.members[f.srv.pid]:
		shared = fmt.Sprintf("process %d is not in cgroup %q any more", f.srv.pid, path)
	}
	return own, shared
}

// owns reports whether a process in the cgroup is the instance's.
func (f *family) owns(pid int) bool {
	if f.descends(pid) {
		return true
	}
	if f.servers > 1 || f.srv.cgroup.Path == "/" {
		return false
	}
	if f.whole || f.ancestors[pid] {
		return f.members[pid]
	}
	// What is entered into a container, such as a health check, descends from
	// the engine outside and not from the container's first process.
	return containerID(f.srv.cgroup.Path) != "" && f.members[pid] && f.topOf(pid) != f.top
}

// descends reports whether a process is the server or descends from it.
func (f *family) descends(pid int) bool {
	for range maxAncestors {
		if pid == f.srv.pid {
			return true
		}
		st, err := f.stat(pid)
		if err != nil || st.parent == 0 {
			return false
		}
		pid = st.parent
	}
	return false
}

// topOf returns the furthest ancestor of a process within the cgroup.
func (f *family) topOf(pid int) int {
	for range maxAncestors {
		st, err := f.stat(pid)
		if err != nil || !f.members[st.parent] {
			break
		}
		pid = st.parent
	}
	return pid
}

// describe names processes for a message.
func (f *family) describe(pids []int) string {
	if pids[0] == 0 {
		return "processes the agent cannot see (run it in the host's pid namespace)"
	}
	name := "process " + fmt.Sprint(pids[0])
	if st, err := f.stat(pids[0]); err == nil {
		name = fmt.Sprintf("%s (%q)", name, st.comm)
	}
	if len(pids) > 1 {
		return fmt.Sprintf("%s and %d more that are not the server's", name, len(pids)-1)
	}
	return name + ", which is not the server's"
}

// ownPaths returns the version 1 controllers in whose hierarchy the instance
// has a cgroup of its own: systemd makes one only for the controllers a unit
// uses and leaves the process in a parent's, or in the root, for the others.
// With check unset only the root is left out. It is nil on version 2.
func (f *family) ownPaths(check bool) map[string]string {
	if f.srv.cgroup.Paths == nil {
		return nil
	}
	out := make(map[string]string)
	for controller, path := range f.srv.cgroup.Paths {
		if path != "/" && (controller == "memory" || !check || f.ownsAll(controller, path)) {
			out[controller] = path
		}
	}
	return out
}

// ownsAll reports whether all processes of another controller's cgroup are the
// instance's.
func (f *family) ownsAll(controller, path string) bool {
	pids, err := f.groups.members(controller, path)
	if err != nil {
		return false
	}
	found := false
	for _, pid := range pids {
		if pid == 0 {
			return false
		}
		if _, err := f.stat(pid); err == nil && !f.owns(pid) {
			return false
		}
		found = found || pid == f.srv.pid
	}
	return found
}
