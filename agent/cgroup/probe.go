package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// probeName is the name of our own cgroup, in which nothing ever runs.
const probeName = "mooring.probe"

// ProbeLimits finds out by doing it whether CPU and memory limits can be
// written, read back and undone here, in a cgroup of our own that is made for
// it and removed again. It returns what was tried, or why it cannot be done.
// Probes must not run at the same time.
func (f *FS) ProbeLimits() (detail string, err error) {
	cpu := probeWrite{change.File, "cpu.max", "50000 100000"}
	memory := probeWrite{change.File, "memory.max", "67108864"}
	if f.version == 1 {
		cpu = probeWrite{change.File, "cpu.cfs_quota_us", "50000"}
		memory = probeWrite{change.File, "memory.limit_in_bytes", "67108864"}
	}
	return f.probe([]string{"cpu", "memory"}, func(controller string) ([]probeWrite, error) {
		if controller == "cpu" {
			return []probeWrite{cpu}, nil
		}
		return []probeWrite{memory}, nil
	})
}

// ProbeCpuset is ProbeLimits for pinning: to the first CPU and memory node.
func (f *FS) ProbeCpuset() (detail string, err error) {
	return f.probe([]string{"cpuset"}, func(string) ([]probeWrite, error) {
		cpus, mems, err := f.effective(f.hierarchy("cpuset"))
		if err != nil {
			return nil, err
		}
		cpu, err := firstOf(cpus)
		if err != nil {
			return nil, err
		}
		node, err := firstOf(mems)
		if err != nil {
			return nil, err
		}
		return []probeWrite{{change.File, "cpuset.cpus", cpu}, {change.File, "cpuset.mems", node}}, nil
	})
}

// ProbeFreeze is ProbeLimits for the freezer. The cgroup is empty on purpose:
// no process of anybody's is stopped. The kernel reports an empty one frozen
// all the same.
func (f *FS) ProbeFreeze() (detail string, err error) {
	w := probeWrite{change.Freeze, "cgroup.freeze", "1"}
	if f.version == 1 {
		w = probeWrite{change.Freeze, "freezer.state", "FROZEN"}
	}
	return f.probe([]string{"freezer"}, func(string) ([]probeWrite, error) { return []probeWrite{w}, nil })
}

// probeWrite is one write that a probe tries.
type probeWrite struct {
	class       change.Class
	file, value string
}

// probe makes our cgroup in each hierarchy that is concerned, tries the writes
// there, undoes them and removes the cgroup. Every step is cleaned up after.
func (f *FS) probe(controllers []string, writes func(controller string) ([]probeWrite, error)) (string, error) {
	var done []string
	for _, c := range controllers {
		if err := f.delegated(c); err != nil {
			return "", err
		}
		w, err := writes(c)
		if err != nil {
			return "", fmt.Errorf("probe %s: %w", c, err)
		}
		files, err := probeIn(filepath.Join(f.hierarchy(c), probeName), w)
		if err != nil {
			return "", fmt.Errorf("probe %s: %w", c, err)
		}
		done = append(done, files...)
	}
	slices.Sort(done)
	return fmt.Sprintf("cgroup v%d: %s written, read back and undone", f.version, strings.Join(done, ", ")), nil
}

// delegated says whether a cgroup directly below the root has a controller. On
// version 2 that is for whoever runs the machine to decide, normally systemd.
func (f *FS) delegated(controller string) error {
	if f.version == 1 {
		if !f.mounted(controller) {
			return fmt.Errorf("the %s controller is not mounted at %s", controller, f.hierarchy(controller))
		}
		return nil
	}
	if controller == "freezer" {
		return nil // part of every cgroup on version 2
	}
	file := filepath.Join(f.tree, "cgroup.subtree_control")
	have, err := readWords(file)
	if err != nil {
		return err
	}
	if !slices.Contains(have, controller) {
		return fmt.Errorf("the %s controller is not enabled for cgroups below the root (%s is %q)",
			controller, file, strings.Join(have, " "))
	}
	return nil
}

func probeIn(dir string, writes []probeWrite) (files []string, err error) {
	if err := makeProbe(dir); err != nil {
		return nil, err
	}
	defer func() {
		if rmErr := unix.Rmdir(dir); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", dir, rmErr))
		}
	}()
	id, err := inode(dir)
	if err != nil {
		return nil, err
	}
	var h Files
	for _, w := range writes {
		c := change.Change{Class: w.class, File: &change.FileChange{
			Path: filepath.Join(dir, w.file), CgroupID: id, New: w.value,
		}}
		if err := h.Prepare(&c); err != nil {
			return nil, err
		}
		applied := h.Apply(c)
		if err := errors.Join(applied, h.Revert(c)); err != nil {
			return nil, err
		}
		files = append(files, w.file)
	}
	return files, nil
}

// makeProbe makes our cgroup. One left by an agent that was killed while
// probing is removed first; it is ours by its name and empty.
func makeProbe(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrExist) {
		if rmErr := unix.Rmdir(dir); rmErr != nil {
			return fmt.Errorf("remove what an earlier probe left at %s: %w", dir, rmErr)
		}
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		return explain("", err)
	}
	return nil
}

// firstOf returns the first number of a kernel list.
func firstOf(s string) (string, error) {
	l, err := parseList(s)
	if err != nil {
		return "", err
	}
	if len(l) == 0 {
		return "", errors.New("the root cpuset is empty")
	}
	return list{{l[0].first, l[0].first}}.String(), nil
}
