package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/cgroups/v3"
)

// ErrGone says that a cgroup no longer exists, or that another one was made
// under its name.
var ErrGone = errors.New("cgroup is gone")

// FS is one mounted cgroup file system tree.
type FS struct {
	root string
	mode cgroups.CGMode
	// version holds cpu and memory; on version 2, tree is where its root is.
	version int
	tree    string
}

// New finds out what is mounted at root, normally "/sys/fs/cgroup": version 2
// alone (unified), version 1 with a directory for each controller, or both
// side by side with version 2 at "unified" (hybrid). It reads a few files.
func New(root string) (*FS, error) {
	f := &FS{root: filepath.Clean(root)}
	if isFile(filepath.Join(f.root, "cgroup.controllers")) {
		f.mode, f.version, f.tree = cgroups.Unified, 2, f.root
		return f, nil
	}
	f.mode = cgroups.Legacy
	if unified := filepath.Join(f.root, "unified"); isFile(filepath.Join(unified, "cgroup.controllers")) {
		f.mode, f.tree = cgroups.Hybrid, unified
	}
	cpu1, mem1 := f.mounted("cpu"), f.mounted("memory")
	if cpu1 && mem1 {
		f.version = 1
		return f, nil
	}
	if f.mode == cgroups.Legacy && !cpu1 && !mem1 {
		return nil, fmt.Errorf("no cgroup controllers at %q: mount the host's cgroup file system there", root)
	}
	// A controller lives in one hierarchy only, so those that version 1 lacks
	// must be found in version 2, and both in the same.
	if f.mode == cgroups.Hybrid && !cpu1 && !mem1 {
		have, err := readWords(filepath.Join(f.tree, "cgroup.controllers"))
		if err != nil {
			return nil, err
		}
		if slices.Contains(have, "cpu") && slices.Contains(have, "memory") {
			f.version = 2
			return f, nil
		}
	}
	return nil, fmt.Errorf("cgroup controllers cpu and memory are not both in one version at %q", root)
}

// Version returns which hierarchy holds the cpu and memory controllers: 1 or 2.
func (f *FS) Version() int { return f.version }

// Mode returns how the hierarchies are mounted, in words.
func (f *FS) Mode() string {
	switch f.mode {
	case cgroups.Unified:
		return "unified"
	case cgroups.Hybrid:
		return "hybrid"
	default:
		return "legacy"
	}
}

// mounted says whether a version 1 controller is mounted under its own name,
// as all distributions do (with a symbolic link where several share a mount).
func (f *FS) mounted(controller string) bool {
	return isFile(filepath.Join(f.root, controller, "cgroup.procs"))
}

// hierarchy returns the root directory of the hierarchy of a controller.
func (f *FS) hierarchy(controller string) string {
	if f.version == 2 {
		return f.tree
	}
	return filepath.Join(f.root, controller)
}

// Open returns the existing cgroup at the given paths, which are those of
// /proc/PID/cgroup: by controller on version 1 (cpu and memory are required),
// and under the key "" on version 2. The root of a hierarchy holds everything
// on the node and is refused, except that cpuset, freezer and the like may be
// there on version 1: then they can be read but not changed.
func (f *FS) Open(paths map[string]string) (*Group, error) {
	required := []string{"memory", "cpu"}
	if f.version == 2 {
		required = []string{""}
	}
	g := &Group{fs: f, places: make(map[string]place, len(paths))}
	for _, controller := range required {
		p, ok := paths[controller]
		if !ok {
			return nil, fmt.Errorf("open cgroup: no path %sgiven", forController(controller))
		}
		if p == "/" {
			return nil, fmt.Errorf("open cgroup: the path %sis %q, the root that holds everything on the node: refusing",
				forController(controller), p)
		}
	}
	for controller, p := range paths {
		if !f.uses(controller) {
			continue
		}
		at, err := f.place(controller, p)
		if err != nil {
			return nil, fmt.Errorf("open cgroup %q %s: %w", p, strings.TrimSpace(forController(controller)), err)
		}
		g.places[controller] = at
	}
	f.findUsage(g)
	return g, nil
}

// uses says whether paths of Open under this key concern us: on a hybrid
// system some are of the other version, and many controllers are of no use.
func (f *FS) uses(controller string) bool {
	if f.version == 2 {
		return controller == ""
	}
	switch controller {
	case "cpu", "cpuacct", "cpuset", "memory", "freezer":
		return true
	}
	return false
}

// findUsage looks for cpuacct where no path was given for it: whoever makes a
// cgroup for cpu makes one of the same name for cpuacct, mostly in the same
// mount. Without it a Stat lacks the CPU time and nothing else.
func (f *FS) findUsage(g *Group) {
	if _, ok := g.places["cpuacct"]; ok || f.version == 2 {
		return
	}
	if at, err := f.place("cpuacct", g.places["cpu"].path); err == nil {
		g.places["cpuacct"] = at
	}
}

func forController(controller string) string {
	if controller == "" {
		return ""
	}
	return "for " + controller + " "
}

// Dirs returns the directories of a cgroup whose paths are those of Open, by the
// same keys. Nothing is read: whether they are there, and still the same, is not
// known.
func (f *FS) Dirs(paths map[string]string) map[string]string {
	dirs := make(map[string]string, len(paths))
	for controller, p := range paths {
		if path.IsAbs(p) && path.Clean(p) == p && (f.version == 1 || controller == "") {
			dirs[controller] = filepath.Join(f.hierarchy(controller), p)
		}
	}
	return dirs
}

// place is one directory of a cgroup file system.
type place struct {
	dir  string // absolute
	path string // below the hierarchy's root, beginning with "/"
	id   uint64 // inode number
}

func (f *FS) place(controller, p string) (place, error) {
	if slices.Contains(strings.Split(p, "/"), "..") {
		return place{}, errors.New(`path contains "..": it lies outside the agent's cgroup namespace; run the agent in the host's`)
	}
	if !path.IsAbs(p) || path.Clean(p) != p {
		return place{}, errors.New("path is not absolute and clean")
	}
	at := place{dir: filepath.Join(f.hierarchy(controller), p), path: p}
	id, err := inode(at.dir)
	if err != nil {
		return place{}, err
	}
	at.id = id
	return at, nil
}

// inode returns the inode number of a directory, which is its cgroup id.
func inode(dir string) (uint64, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s", ErrGone, dir)
	}
	if err != nil {
		return 0, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return 0, fmt.Errorf("%s is not a directory", dir)
	}
	return st.Ino, nil
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}
