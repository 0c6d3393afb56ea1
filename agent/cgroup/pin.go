package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mooring-dev/mooring/agent/change"
)

// PlanPin returns the writes that tie the cgroup to some CPUs and memory
// nodes, each a kernel list such as "0-3,8". An empty list gives back all that
// the cgroup above has: version 2 writes the empty list, or where processes
// are in the way of that (see Files) the list of the cgroup above, as version
// 1 always does. What is in place already is not written again, so the
// list of changes may be empty.
//
// The memory moves with the pin: version 2 migrates pages whenever
// cpuset.mems changes, and on version 1 cpuset.memory_migrate is set first.
// The kernel does that in the background and holds up changes to other
// cgroups meanwhile; for a large database it takes seconds.
func (g *Group) PlanPin(cpus, mems string) ([]change.FileChange, error) {
	changes, err := g.planPin(cpus, mems)
	if err != nil {
		return nil, fmt.Errorf("pin cgroup %q: %w", g.Path(), err)
	}
	return changes, nil
}

func (g *Group) planPin(cpus, mems string) ([]change.FileChange, error) {
	at, err := g.changeable("cpuset")
	if err != nil {
		return nil, err
	}
	over, err := g.ancestors(g.controllerKey("cpuset"), at)
	if err != nil {
		return nil, err
	}
	allCPUs, allMems, err := g.fs.allowed(over)
	if err != nil {
		return nil, err
	}
	var changes []change.FileChange
	for _, w := range []struct{ file, what, want, allowed string }{
		{"cpuset.cpus", "CPUs", cpus, allCPUs},
		{"cpuset.mems", "memory nodes", mems, allMems},
	} {
		now, err := readValue(filepath.Join(at.dir, w.file))
		if err != nil {
			return nil, cpusetMissing(err)
		}
		value, err := g.pinValue(w.what, w.want, w.allowed, over[0].path)
		if err != nil {
			return nil, err
		}
		// A running instance that was given everything back has the list of
		// the cgroup above where its own was empty: that is in place too.
		inPlace := sameList(now, value) || value == "" && sameList(now, w.allowed)
		if !inPlace {
			changes = append(changes, at.file(w.file, value))
		}
	}
	if g.fs.version == 1 && len(changes) > 0 {
		changes = append([]change.FileChange{at.file("cpuset.memory_migrate", "1")}, changes...)
	}
	return changes, nil
}

// allowed returns what the nearest cgroup above that has a cpuset may use.
func (f *FS) allowed(over []place) (cpus, mems string, err error) {
	for _, p := range over {
		cpus, mems, err = f.effective(p.dir)
		if !errors.Is(err, os.ErrNotExist) {
			return cpus, mems, err
		}
	}
	return "", "", cpusetMissing(err)
}

// pinValue checks a list against what the cgroup above allows: version 2
// would take it and quietly use something else. An empty list is written as
// such on version 2 and means "as above"; version 1 knows no such thing.
func (g *Group) pinValue(what, want, allowed, parent string) (string, error) {
	l, err := parseList(want)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	all, err := parseList(allowed)
	if err != nil {
		return "", fmt.Errorf("%s allowed by %q: %w", what, parent, err)
	}
	if len(l) == 0 {
		if g.fs.version == 1 {
			return all.String(), nil
		}
		return "", nil
	}
	if !l.within(all) {
		return "", fmt.Errorf("%s %q are not all allowed by the cgroup %q above it, which has %q", what, l, parent, all)
	}
	return l.String(), nil
}

func cpusetMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the cpuset controller is not enabled for this cgroup, and switching controllers on is left to its owner: %w", err)
	}
	return err
}
