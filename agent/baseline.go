package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/bpf"
)

// baseline is what a fault may touch, as it was before: lines by what they are
// of. Only that is compared afterwards. What else a cgroup or an interface holds
// has other writers, the kubelet and placements for two, and a difference there
// would not be the fault's.
type baseline map[string][]string

// errTargetGone says that there is nothing left that could differ.
var errTargetGone = errors.New("it is gone")

// note reads the baseline of f, before anything is done. A tree that an agent
// left on the interface, and that its journal does not know, is not how the
// interface was: it is taken away first. The caller holds faultMu.
func (a *Agent) note(f *fault) error {
	f.before = baseline{}
	for _, c := range f.op.Changes {
		if c.Class == change.Net {
			if err := a.net.Revert(c); err != nil {
				return fmt.Errorf("clear interface before %s on %q: %w", f.Kind, f.Instance, err)
			}
		}
		subject, now, err := a.observe(c)
		if err != nil {
			return refused(fmt.Errorf("read %s before %s on %q: %w", subject, f.Kind, f.Instance, err))
		}
		f.before[subject] = now
	}
	return nil
}

// verify reads again what f may have touched and notes what differs. The caller
// holds faultMu.
func (a *Agent) verify(f *fault) {
	f.Verified, f.Residue = false, nil
	if f.op.BootID != a.bootID {
		// None of it survives the kernel, see change.Class.
		f.Verified, f.Err = true, "the node was rebooted meanwhile"
		return
	}
	var problems []string
	after := baseline{}
	seen := map[string]bool{}
	for _, c := range f.op.Changes {
		subject, now, err := a.observe(c)
		switch {
		case errors.Is(err, errTargetGone):
			seen[subject] = true
			f.Err = fmt.Sprintf("%s went away before the fault ended, and all that was done to it", subject)
		case err != nil:
			problems = append(problems, fmt.Sprintf("read %s after the undo: %v", subject, err))
		default:
			seen[subject], after[subject] = true, now
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(f.before)) {
		if now, ok := after[subject]; ok {
			f.Residue = append(f.Residue, difference(subject, f.before[subject], now)...)
		}
	}
	f.Verified = len(problems) == 0 && len(f.before) == len(seen)
	if len(problems) > 0 {
		f.Err = strings.Join(problems, "; ")
	} else if !f.Verified {
		f.Err = "how it was before the fault is not on record"
	}
	if len(f.Residue) > 0 {
		a.log.Error("fault left something behind", "component", "chaos", "uid", f.UID, "kind", f.Kind, "instance", f.Instance, "residue", f.Residue)
	}
}

// difference says in at most one line how what is differs from what was.
func difference(subject string, was, is []string) []string {
	if slices.Equal(was, is) {
		return nil
	}
	text := func(lines []string) string {
		if len(lines) == 0 {
			return "nothing"
		}
		return strings.Join(lines, "; ")
	}
	return []string{fmt.Sprintf("%s: was %s, is %s", subject, text(was), text(is))}
}

// observe reads what one change alters, in lines. The error wraps errTargetGone
// where that no longer exists.
func (a *Agent) observe(c change.Change) (subject string, lines []string, err error) {
	switch c.Class {
	case change.Net:
		lines, err = bpf.LinkDisciplines(c.Net.Link, c.Net.Name)
		if errors.Is(err, bpf.ErrNoLink) {
			err = fmt.Errorf("%w: %w", errTargetGone, err)
		}
		return "interface " + c.Net.Name, lines, err
	case change.IO:
		lines, err = a.io.Rules(c.IO.CgroupID)
		return fmt.Sprintf("file faults of cgroup %d", c.IO.CgroupID), lines, err
	case change.File, change.Freeze:
		value, err := readControl(c.File)
		return filepath.Base(c.File.Path), []string{value}, err
	}
	return string(c.Class), nil, fmt.Errorf("no way to read changes of class %q", c.Class)
}

// readControl reads a control file, if the cgroup is still the same.
func readControl(c *change.FileChange) (string, error) {
	fi, err := os.Stat(filepath.Dir(c.Path))
	if errors.Is(err, os.ErrNotExist) {
		return "", errTargetGone
	}
	if err != nil {
		return "", err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Ino != c.CgroupID {
		return "", errTargetGone
	}
	b, err := os.ReadFile(c.Path)
	if errors.Is(err, syscall.ENODEV) {
		return "", errTargetGone
	}
	return strings.TrimSpace(string(b)), err
}
