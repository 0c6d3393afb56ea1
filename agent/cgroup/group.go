package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"

	"github.com/mooring-dev/mooring/agent/change"
)

// Group is one existing cgroup. It is immutable; when the cgroup disappears,
// its methods return ErrGone.
type Group struct {
	fs     *FS
	places map[string]place // by controller; "" on version 2
}

// ID returns the inode number of the cgroup's directory, of the memory
// controller's on version 1. On version 2 it is what
// bpf_get_current_cgroup_id returns.
func (g *Group) ID() uint64 { return g.main().id }

// Path returns the path below the hierarchy's root.
func (g *Group) Path() string { return g.main().path }

func (g *Group) main() place {
	if g.fs.version == 2 {
		return g.places[""]
	}
	return g.places["memory"]
}

// Procs returns the processes of the cgroup and of the cgroups below it,
// ascending.
func (g *Group) Procs() ([]int, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	controller := ""
	if g.fs.version == 1 {
		controller = "memory"
	}
	return g.procs(controller)
}

// check says whether the cgroup is still the one that was opened.
func (g *Group) check() error {
	at := g.main()
	id, err := inode(at.dir)
	if err != nil {
		return err
	}
	if id != at.id {
		return fmt.Errorf("%w: another one was made at %s", ErrGone, at.dir)
	}
	return nil
}

func (g *Group) procs(controller string) ([]int, error) {
	var pids []int
	if g.fs.version == 2 {
		m, err := g.manager2()
		if err != nil {
			return nil, err
		}
		procs, err := m.Procs(true)
		if err != nil {
			return nil, fmt.Errorf("read cgroup.procs: %w", gone(err))
		}
		for _, p := range procs {
			pids = append(pids, int(p))
		}
	} else {
		m, err := g.manager1(controller)
		if err != nil {
			return nil, err
		}
		procs, err := m.Processes(cgroup1.Name(controller), true)
		if err != nil {
			return nil, fmt.Errorf("read cgroup.procs for %s: %w", controller, gone(err))
		}
		for _, p := range procs {
			pids = append(pids, p.Pid)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// manager2 opens the cgroup with the library, which reads nothing yet.
func (g *Group) manager2() (*cgroup2.Manager, error) {
	m, err := cgroup2.Load(g.main().path, cgroup2.WithMountpoint(g.fs.tree))
	if err != nil {
		return nil, fmt.Errorf("load cgroup %q: %w", g.main().path, err)
	}
	return m, nil
}

// manager1 opens the directories of some controllers with the library.
func (g *Group) manager1(controllers ...string) (cgroup1.Cgroup, error) {
	hierarchy := func() ([]cgroup1.Subsystem, error) {
		var s []cgroup1.Subsystem
		for _, c := range controllers {
			switch c {
			case "cpu":
				s = append(s, cgroup1.NewCpu(g.fs.root))
			case "cpuacct":
				s = append(s, cgroup1.NewCpuacct(g.fs.root))
			case "cpuset":
				s = append(s, cgroup1.NewCpuset(g.fs.root))
			case "freezer":
				s = append(s, cgroup1.NewFreezer(g.fs.root))
			case "memory":
				s = append(s, cgroup1.NewMemory(g.fs.root, cgroup1.IgnoreModules("memsw", "kmem", "kmem.tcp")))
			}
		}
		return s, nil
	}
	where := func(name cgroup1.Name) (string, error) { return g.places[string(name)].path, nil }
	m, err := cgroup1.Load(where, cgroup1.WithHierarchy(hierarchy))
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("load cgroup %q: %w", g.main().path, err)
	}
	return m, nil
}

// changeable returns the place of a controller if it may be changed: it is not
// the root of its hierarchy and holds no process that is not the instance's.
func (g *Group) changeable(controller string) (place, error) {
	if err := g.check(); err != nil {
		return place{}, err
	}
	if g.fs.version == 2 {
		return g.main(), nil
	}
	at, ok := g.places[controller]
	if !ok {
		return place{}, fmt.Errorf("cgroup %q has no %s controller", g.Path(), controller)
	}
	if at.path == "/" {
		return place{}, fmt.Errorf("the %s cgroup of %q is the root that holds everything on the node: refusing to change it",
			controller, g.Path())
	}
	return at, g.alone(controller, at)
}

// alone refuses a version 1 controller whose cgroup holds other processes than
// the memory controller's does: each hierarchy is a tree of its own, and
// systemd for one puts services together in the trees it does not need.
// Processes come and go, so a difference counts only when it stays.
func (g *Group) alone(controller string, at place) error {
	if controller == "memory" {
		return nil
	}
	var stranger int
	for range 3 {
		theirs, err := g.procs(controller)
		if err != nil {
			return err
		}
		ours, err := g.procs("memory")
		if err != nil {
			return err
		}
		i := slices.IndexFunc(theirs, func(pid int) bool { return !slices.Contains(ours, pid) })
		if i < 0 {
			return nil
		}
		stranger = theirs[i]
	}
	return fmt.Errorf("the %s cgroup %q also holds processes that are not in the memory cgroup %q (pid %d): refusing to change it",
		controller, at.path, g.Path(), stranger)
}

// controllerKey names the hierarchy of a controller in places.
func (g *Group) controllerKey(controller string) string {
	if g.fs.version == 2 {
		return ""
	}
	return controller
}

// ancestors returns the directories above a place, nearest first, the root of
// the hierarchy last. Their inode numbers are filled in.
func (g *Group) ancestors(controller string, at place) ([]place, error) {
	var above []place
	for p := at.path; p != "/"; {
		p = path.Dir(p)
		a, err := g.fs.place(controller, p)
		if err != nil {
			return nil, err
		}
		above = append(above, a)
	}
	return above, nil
}

// file is a change of one control file.
func (p place) file(name, value string) change.FileChange {
	return change.FileChange{Path: filepath.Join(p.dir, name), CgroupID: p.id, New: value}
}

// gone maps the two ways in which the kernel says that a directory went away
// to ErrGone, and leaves other errors alone.
func gone(err error) error {
	if err != nil && (errors.Is(err, fs.ErrNotExist) || isNoDevice(err)) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
