package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mooring-dev/mooring/agent/change"
)

const (
	// defaultPeriod is the kernel's CFS period in microseconds.
	defaultPeriod = 100_000
	// minQuota is the smallest CFS quota in microseconds the kernel accepts
	// (min_cfs_quota_period in kernel/sched/core.c).
	minQuota = 1000
)

// Size is a wish for new limits. A nil member stays as it is; 0 takes the
// limit away, and what the cgroup above allows then holds.
type Size struct {
	CPUMillicores *int64
	MemoryBytes   *int64
	// Parents says that the cgroup above belongs to the instance as well, as
	// a pod's does, and may be raised first and lowered last. It is raised
	// only where it would hold the instance to less, keeping what it had
	// beyond the instance's old limit for the containers beside it, and
	// lowered only if its limit was the instance's own. Cgroups further up
	// are never changed.
	Parents bool
}

// PlanResize returns the writes that change the limits from cur (from Stat) to
// want, in order: what grows before what shrinks. The list is empty when
// nothing has to change. Growth beyond what a cgroup above allows is an error
// that names it.
//
// On version 2 cpu.max keeps its period and swap limits are not touched; on
// version 1 the limit on memory and swap together, where there is one, moves
// by as much as the memory limit does, because it may never be the smaller.
// Whether a smaller memory limit is survivable is asked of CheckMemory.
func (g *Group) PlanResize(cur Stat, want Size) ([]change.FileChange, error) {
	var ups, downs []change.FileChange
	wishes := []struct {
		limit limit
		from  int64
		to    *int64
	}{
		{limit{"cpu", "CPU", g.fs.cpuOf, g.fs.setCPU, millicoresText}, cur.CPUMillicores, want.CPUMillicores},
		{limit{"memory", "memory", g.fs.readMemoryLimit, g.fs.setMemory, sizeText}, cur.MemoryLimitBytes, want.MemoryBytes},
	}
	for _, w := range wishes {
		if w.to == nil || *w.to == w.from {
			continue
		}
		changes, err := g.planLimit(w.limit, w.from, *w.to, want.Parents)
		if err != nil {
			return nil, fmt.Errorf("resize cgroup %q: %w", g.Path(), err)
		}
		if above(*w.to, w.from) {
			ups = append(ups, changes...)
		} else {
			downs = append(downs, changes...)
		}
	}
	return append(ups, downs...), nil
}

// limit is what PlanResize has to know of one resource. Values are millicores
// or bytes; 0 is no limit.
type limit struct {
	controller string
	name       string
	read       func(dir string) (int64, error)
	set        func(at place, from, to int64) ([]change.FileChange, error)
	text       func(int64) string
}

// above says whether limit a allows more than b.
func above(a, b int64) bool {
	if a == 0 || b == 0 {
		return a == 0 && b != 0
	}
	return a > b
}

// planLimit plans one resource of the cgroup and, if it may, of the one above.
func (g *Group) planLimit(l limit, from, to int64, parents bool) ([]change.FileChange, error) {
	if to < 0 {
		return nil, fmt.Errorf("%s limit %d is negative", l.name, to)
	}
	at, err := g.changeable(l.controller)
	if err != nil {
		return nil, err
	}
	changes, err := l.set(at, from, to)
	if err != nil {
		return nil, err
	}
	over, err := g.ancestors(g.controllerKey(l.controller), at)
	if err != nil {
		return nil, err
	}
	if above(to, from) {
		raise, err := planParents(l, over, from, to, parents)
		return append(raise, changes...), err
	}
	if parent := over[0]; parents && from > 0 && parent.path != "/" {
		have, err := l.read(parent.dir)
		if err != nil {
			return nil, err
		}
		if have == from {
			lower, err := l.set(parent, from, to)
			return append(changes, lower...), err
		}
	}
	return changes, nil
}

// planParents returns what must be raised above a cgroup before it can grow
// to a limit. To have no limit of its own needs nothing of those above.
func planParents(l limit, over []place, from, to int64, parents bool) ([]change.FileChange, error) {
	if to == 0 {
		return nil, nil
	}
	var raise []change.FileChange
	need := to
	for i, p := range over {
		have, err := l.read(p.dir)
		if err != nil {
			return nil, err
		}
		if !above(need, have) {
			continue
		}
		if i > 0 || !parents || p.path == "/" {
			return nil, fmt.Errorf("%s limit %s is above the %s that the cgroup %q over it allows: raise that first or ask for less",
				l.name, l.text(need), l.text(have), p.path)
		}
		if beside := have - from; from > 0 && beside > 0 {
			if need > math.MaxInt64-beside {
				return nil, fmt.Errorf("%s limit %d is out of range", l.name, to)
			}
			need += beside
		}
		if raise, err = l.set(p, have, need); err != nil {
			return nil, err
		}
	}
	return raise, nil
}

func (f *FS) cpuOf(dir string) (int64, error) {
	l, err := f.readCPULimit(dir)
	return l.millicores(), err
}

// setCPU writes a CPU limit and keeps the period.
func (f *FS) setCPU(at place, _, to int64) ([]change.FileChange, error) {
	now, err := f.readCPULimit(at.dir)
	if err != nil {
		return nil, err
	}
	quota := int64(-1)
	if to > 0 {
		if to > maxQuota*1000/now.period {
			return nil, fmt.Errorf("CPU limit %s is out of range", millicoresText(to))
		}
		if quota = to * now.period / 1000; quota < minQuota {
			least := (minQuota*1000 + now.period - 1) / now.period
			return nil, fmt.Errorf("CPU limit %s is below %s, the least the kernel accepts with a period of %d µs",
				millicoresText(to), millicoresText(least), now.period)
		}
	}
	if f.version == 1 {
		return []change.FileChange{at.file("cpu.cfs_quota_us", strconv.FormatInt(quota, 10))}, nil
	}
	text := "max"
	if quota > 0 {
		text = strconv.FormatInt(quota, 10)
	}
	return []change.FileChange{at.file("cpu.max", text+" "+strconv.FormatInt(now.period, 10))}, nil
}

// setMemory writes a memory limit. On version 1 memory.memsw.limit_in_bytes
// is raised before it and lowered after it.
func (f *FS) setMemory(at place, from, to int64) ([]change.FileChange, error) {
	if f.version == 2 {
		return []change.FileChange{at.file("memory.max", bytesOr(to, "max"))}, nil
	}
	memory := at.file("memory.limit_in_bytes", bytesOr(to, "-1"))
	both, err := readBytes(filepath.Join(at.dir, "memory.memsw.limit_in_bytes"))
	if errors.Is(err, os.ErrNotExist) || err == nil && both == 0 {
		return []change.FileChange{memory}, nil // no swap accounting, or no limit
	}
	if err != nil {
		return nil, err
	}
	// Both limits have a value here: no memory limit with one on memory and
	// swap together cannot be set.
	var swap int64
	if from > 0 {
		swap = max(0, both-from)
	}
	target := int64(0)
	if to > 0 {
		if to > math.MaxInt64-swap {
			return nil, fmt.Errorf("memory limit %d is out of range", to)
		}
		target = to + swap
	}
	withSwap := at.file("memory.memsw.limit_in_bytes", bytesOr(target, "-1"))
	if above(to, from) {
		return []change.FileChange{withSwap, memory}, nil
	}
	return []change.FileChange{memory, withSwap}, nil
}

func bytesOr(n int64, none string) string {
	if n == 0 {
		return none
	}
	return strconv.FormatInt(n, 10)
}

func millicoresText(n int64) string {
	if n == 0 {
		return "none"
	}
	return strconv.FormatInt(n, 10) + "m"
}
