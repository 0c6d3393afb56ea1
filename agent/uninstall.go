package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
)

// Uninstall undoes what agents of this node have left in force and removes all
// they keep there: open operations are undone, cpusets that still hold a pin get
// back what they had before, helper cgroups, the socket and the state directory
// are removed. Each step is a line on w. It refuses while an agent runs, and it
// keeps the state directory when something could not be undone, so that it can
// be run again. Sizes stay: they were asked for.
func Uninstall(ctx context.Context, cfg Config, log *slog.Logger, w io.Writer) error {
	if c, err := net.Dial("unix", cfg.Socket); err == nil {
		return errors.Join(fmt.Errorf("an agent answers on %s: stop it first", cfg.Socket), c.Close())
	}
	if _, err := os.Stat(cfg.StateDir); err == nil {
		cfg.Kubernetes, cfg.Listen = false, ""
		a, err := New(cfg, log)
		if err != nil {
			return err
		}
		// Until all is removed it holds the journal's lock, so that an agent
		// that starts meanwhile does not lose its journal.
		defer a.Close()
		if err := a.undoAll(ctx, w); err != nil {
			return err
		}
	}
	return errors.Join(removeCgroups(ctx, cfg.CgroupRoot, w), removeSocket(cfg.Socket, w), removeState(cfg.StateDir, w))
}

// undoAll says what New could not undo, and gives pins back.
func (a *Agent) undoAll(ctx context.Context, w io.Writer) error {
	errs := []error{a.recoverErr, a.damaged()}
	for _, f := range a.activeSnapshot() {
		errs = append(errs, fmt.Errorf("fault %q on %q is not undone: %s", f.UID, f.Instance, f.Err))
	}
	for _, note := range a.unsettledNotes() {
		errs = append(errs, errors.New(note))
	}
	a.settings.Lock()
	defer a.settings.Unlock()
	pins, err := readPins(a.cfg.StateDir)
	errs = append(errs, err)
	for _, p := range pins {
		if err := a.givePinBack(ctx, p, w); err != nil {
			errs = append(errs, fmt.Errorf("give the pin of %q back: %w", p.Instance, err))
		}
	}
	return errors.Join(errs...)
}

// damaged is an error while a damaged journal may name what is not undone. The
// file set aside stands for the damage that an earlier start found.
func (a *Agent) damaged() error {
	aside, err := filepath.Glob(filepath.Join(a.cfg.StateDir, "journal.damaged-*"))
	if err != nil {
		return fmt.Errorf("list damaged journals: %w", err)
	}
	if len(aside) == 0 {
		if a.damage == "" {
			return nil
		}
		return fmt.Errorf("operations may be left that nobody knows of, run uninstall again when you have looked: %s", a.damage)
	}
	return fmt.Errorf("a damaged journal may name operations that are not undone: look at %s, remove it and run uninstall again", strings.Join(aside, ", "))
}

// givePinBack puts back what a cgroup's cpuset held before it was pinned. One
// that is gone, or was made again since, has nothing of ours, and one that
// somebody else has set since is theirs.
func (a *Agent) givePinBack(ctx context.Context, p pin, w io.Writer) error {
	in := &state.InstanceStatus{Instance: state.Instance{ID: p.Instance, Cgroup: p.Cgroup}}
	if p.BootID != a.bootID {
		return a.forgetPin(&in.Instance)
	}
	var back []pinFile
	for _, f := range p.Files {
		if !f.exists() {
			return a.forgetPin(&in.Instance)
		}
		now, err := f.read()
		switch {
		case err != nil:
			return err
		case sameCPUs(now, f.Old): // the write failed, or it was given back
		case f.ours(now):
			back = append(back, f)
		default:
			fmt.Fprintf(w, "%s: left alone, %s holds %q and not the pinned %q\n", p.Instance, f.Path, now, f.New)
			return a.forgetPin(&in.Instance)
		}
	}
	files, err := a.planBack(&in.Instance, back)
	if errors.Is(err, cgroup.ErrGone) {
		return a.forgetPin(&in.Instance)
	}
	if err != nil {
		return err
	}
	if len(files) > 0 {
		out, err := a.set(ctx, "pin", in, files, false)
		if errors.Is(err, cgroup.ErrGone) {
			return a.forgetPin(&in.Instance)
		}
		if err != nil {
			return err
		}
		for _, c := range out.Changes {
			fmt.Fprintf(w, "%s: %s\n", p.Instance, c)
		}
	}
	return a.forgetPin(&in.Instance)
}

// planBack returns the writes that put old lists back. Where there was none,
// which a cgroup with processes cannot be given, it is that of the cgroup above.
func (a *Agent) planBack(in *state.Instance, back []pinFile) ([]change.FileChange, error) {
	var files, all []change.FileChange
	for _, f := range back {
		if f.Old != "" {
			files = append(files, change.FileChange{Path: f.Path, CgroupID: f.CgroupID, New: f.Old})
			continue
		}
		if all == nil {
			g, err := a.open(in)
			if err != nil {
				return nil, err
			}
			if all, err = g.PlanPin("", ""); err != nil {
				return nil, err
			}
		}
		for _, c := range all {
			if c.Path == f.Path {
				files = append(files, c)
			}
		}
	}
	return files, nil
}

// removeCgroups removes the cgroups that agents make for themselves: at the
// root of version 2, or at that of each hierarchy below it.
func removeCgroups(ctx context.Context, root string, w io.Writer) error {
	tree, err := cgroup.New(root)
	if err != nil {
		return fmt.Errorf("open cgroup file system: %w", err)
	}
	roots := []string{root}
	if tree.Mode() != "unified" {
		roots = nil
		entries, err := os.ReadDir(root)
		if err != nil {
			return fmt.Errorf("list cgroup hierarchies: %w", err)
		}
		for _, e := range entries {
			// A link names a hierarchy that is there under its full name too.
			if e.IsDir() {
				roots = append(roots, filepath.Join(root, e.Name()))
			}
		}
	}
	var errs []error
	for _, r := range roots {
		for _, name := range []string{"mooring.keeper", "mooring.probe"} {
			errs = append(errs, removeBusy(ctx, filepath.Join(r, name), w))
		}
	}
	return errors.Join(errs...)
}

// removeBusy removes a cgroup. A keeper that was disarmed goes on living in it
// for up to a second.
func removeBusy(ctx context.Context, dir string, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for {
		err := removeOne(dir, w)
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func removeSocket(socket string, w io.Writer) error {
	err := removeOne(socket, w)
	if dir := filepath.Dir(socket); strings.Contains(filepath.Base(dir), "mooring") {
		err = errors.Join(err, removeOne(dir, w))
	}
	return err
}

// removeState removes the files that agents keep, and the directory when
// nothing else is in it. The lock goes last.
func removeState(dir string, w io.Writer) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list state directory: %w", err)
	}
	var left []string
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch name := strings.TrimSuffix(e.Name(), ".new"); {
		case name == "keepers" && e.IsDir():
			errs = append(errs, removeKeepers(path, w))
		case !e.Type().IsRegular() || !slices.Contains([]string{"journal", "policy.json", "seen.json", "faults.json", refusedFile, pinsFile, "epoch", "lock"}, name):
			left = append(left, path)
		case e.Name() != "lock":
			errs = append(errs, removeOne(path, w))
		}
	}
	errs = append(errs, removeOne(filepath.Join(dir, "lock"), w))
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("state directory kept: it holds what is not Mooring's, move it away and run again: %s", strings.Join(left, ", ")))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return removeOne(dir, w)
}

// removeKeepers removes the keepers' markers and their directory.
func removeKeepers(dir string, w io.Writer) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list keepers: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Type().IsRegular() {
			errs = append(errs, removeOne(filepath.Join(dir, e.Name()), w))
		}
	}
	return errors.Join(append(errs, removeOne(dir, w))...)
}

// removeOne removes a file or an empty directory, if it is there.
func removeOne(path string, w io.Writer) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	fmt.Fprintf(w, "removed %s\n", path)
	return nil
}
