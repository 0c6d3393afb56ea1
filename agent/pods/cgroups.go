package pods

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mooring-dev/mooring/agent/state"
)

// maxSubgroups bounds the walk below one instance's cgroup.
const maxSubgroups = 256

// v1Controllers are the version 1 hierarchies the agent has a use for.
func v1Controllers() []string {
	return []string{"cpu", "cpuset", "memory", "freezer", "blkio"}
}

// membership is where a process is accounted, from /proc/PID/cgroup.
type membership struct {
	// unified is the path in the version 2 hierarchy, "" where there is none.
	unified string
	// controllers holds the path in each version 1 hierarchy, by controller.
	controllers map[string]string
}

// parseMembership reads "hierarchy:controllers:path" lines, see cgroups(7).
// The path may hold colons.
func parseMembership(data []byte) (membership, error) {
	m := membership{controllers: make(map[string]string)}
	for line := range bytes.Lines(data) {
		text := strings.TrimSuffix(string(line), "\n")
		if text == "" {
			continue
		}
		parts := strings.SplitN(text, ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			return membership{}, fmt.Errorf("cgroup line %q is not hierarchy:controllers:path", text)
		}
		if parts[0] == "0" && parts[1] == "" {
			m.unified = parts[2]
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			m.controllers[controller] = parts[2]
		}
	}
	return m, nil
}

// hierarchy is the node's cgroup set-up.
type hierarchy struct {
	root string
	// version is 2 when the version 2 hierarchy has the memory controller.
	version int
	// unified is the mount point of version 2; set for version 2 only.
	unified string
}

// readHierarchy finds out which hierarchy has the memory controller. On a
// hybrid node version 2 is mounted without controllers, for systemd's own use.
func readHierarchy(root string) (hierarchy, error) {
	for _, dir := range []string{root, filepath.Join(root, "unified")} {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return hierarchy{}, fmt.Errorf("read cgroup controllers: %w", err)
		}
		if slices.Contains(strings.Fields(string(data)), "memory") {
			return hierarchy{root: root, version: 2, unified: dir}, nil
		}
	}
	if _, err := os.Stat(filepath.Join(root, "memory")); err != nil {
		return hierarchy{}, fmt.Errorf("neither cgroup version at %q has the memory controller: mount the cgroup file systems there, or boot without cgroup_disable=memory: %w", root, err)
	}
	return hierarchy{root: root, version: 1}, nil
}

// dir returns the directory of a path in a controller's hierarchy. On version 2
// the controller does not matter.
func (h hierarchy) dir(controller, path string) string {
	if h.version == 2 {
		return h.unified + path
	}
	return h.root + "/" + controller + path
}

// main returns the path that stands for a process's cgroup: the memory
// controller's.
func (h hierarchy) main(m membership) (string, error) {
	path := m.unified
	if h.version == 1 {
		path = m.controllers["memory"]
	}
	if path == "" {
		return "", errors.New("the process is in no cgroup of the hierarchy that accounts memory")
	}
	if slices.Contains(strings.Split(path, "/"), "..") {
		return "", fmt.Errorf("cgroup %q is outside the agent's cgroup namespace: run the agent in the host's", path)
	}
	return path, nil
}

// inode returns the inode number of the directory that stands for a cgroup.
func (h hierarchy) inode(path string) (uint64, error) {
	fi, err := os.Stat(h.dir("memory", path))
	if err != nil {
		return 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("stat %q gave no inode number", path)
	}
	return st.Ino, nil
}

// exists reports whether a cgroup is there.
func (h hierarchy) exists(path string) bool {
	_, err := h.inode(path)
	return err == nil
}

// members returns the processes in a cgroup and in the cgroups below it,
// ascending. A 0 stands for a process outside the agent's pid namespace. Below
// the root cgroup is the whole node, so of that only its own are returned.
func (h hierarchy) members(controller, path string) ([]int, error) {
	var pids []int
	todo := []string{h.dir(controller, path)}
	for seen := 0; len(todo) > 0; seen++ {
		if seen == maxSubgroups {
			return nil, fmt.Errorf("more than %d cgroups are below it", maxSubgroups)
		}
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		found, below, err := readGroup(dir)
		if err != nil && (seen == 0 || !vanished(err)) {
			return nil, err
		}
		pids = append(pids, found...)
		if path != "/" {
			todo = append(todo, below...)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// readGroup returns the processes in one cgroup and the directories below it.
func readGroup(dir string) (pids []int, below []string, err error) {
	data, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return nil, nil, err
	}
	for _, field := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, nil, fmt.Errorf("process %q in %q", field, dir)
		}
		pids = append(pids, pid)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			below = append(below, dir+"/"+e.Name())
		}
	}
	return pids, below, nil
}

// resolve turns a membership into the cgroup of an instance, without saying
// whether it is shared. Paths holds every version 1 controller; see ownPaths.
func (h hierarchy) resolve(m membership) (state.Cgroup, error) {
	path, err := h.main(m)
	if err != nil {
		return state.Cgroup{}, err
	}
	id, err := h.inode(path)
	if err != nil {
		return state.Cgroup{}, fmt.Errorf("stat cgroup %q: %w", path, err)
	}
	cg := state.Cgroup{Version: h.version, Path: path, ID: id}
	if h.version == 1 {
		cg.Paths = make(map[string]string)
		for _, c := range v1Controllers() {
			if p, ok := m.controllers[c]; ok {
				cg.Paths[c] = p
			}
		}
	}
	return cg, nil
}

// containerID returns the id of the container a cgroup belongs to, "" where
// its path does not name one. Engines put 64 hexadecimal digits there, bare or
// as "docker-<id>.scope", "cri-containerd-<id>.scope", "crio-<id>.scope",
// "libpod-<id>.scope".
func containerID(path string) string {
	elems := strings.Split(path, "/")
	for _, elem := range slices.Backward(elems) {
		name := strings.TrimSuffix(elem, ".scope")
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			name = name[i+1:]
		}
		if len(name) == 64 && strings.Trim(name, "0123456789abcdef") == "" {
			return name
		}
	}
	return ""
}

// displayName returns what people call the thing behind a cgroup.
func displayName(path string) string {
	if id := containerID(path); id != "" {
		return id[:12]
	}
	elems := strings.Split(path, "/")
	for _, elem := range slices.Backward(elems) {
		if strings.HasSuffix(elem, ".service") || strings.HasSuffix(elem, ".scope") {
			return elem
		}
	}
	return filepath.Base(path)
}
