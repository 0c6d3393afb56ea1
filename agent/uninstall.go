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
	"strings"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/state"
)

// Uninstall undoes what agents of this node have left in force and removes all
// they keep there: open operations are undone, pins are given back (the memory
// stays where it is), helper cgroups, the socket and the state directory are
// removed. Each step is a line on w. It refuses while an agent runs, and it
// keeps the state directory when something could not be undone, so that it can
// be run again. Sizes stay: they were asked for.
func Uninstall(ctx context.Context, cfg Config, log *slog.Logger, w io.Writer) error {
	if c, err := net.Dial("unix", cfg.Socket); err == nil {
		return errors.Join(fmt.Errorf("an agent answers on %s: stop it first", cfg.Socket), c.Close())
	}
	if _, err := os.Stat(cfg.StateDir); err == nil {
		if err := undoAll(ctx, cfg, log, w); err != nil {
			return err
		}
	}
	return removeTraces(cfg, w)
}

// undoAll lets the recovery of an agent's start do its work, then gives pins back.
func undoAll(ctx context.Context, cfg Config, log *slog.Logger, w io.Writer) error {
	cfg.Kubernetes, cfg.Listen = false, ""
	a, err := New(cfg, log)
	if err != nil {
		return err
	}
	defer a.Close()
	var errs []error
	for _, f := range a.activeSnapshot() {
		errs = append(errs, fmt.Errorf("fault %q on %q is not undone: %s", f.UID, f.Instance, f.Err))
	}
	for _, note := range a.unsettledNotes() {
		errs = append(errs, errors.New(note))
	}
	pins, err := readPins(cfg.StateDir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, p := range pins {
		if err := a.givePinBack(ctx, p, w); err != nil {
			errs = append(errs, fmt.Errorf("give the pin of %q back: %w", p.Instance, err))
		}
	}
	return errors.Join(errs...)
}

// givePinBack lets a cgroup use the whole machine again. One that is gone, or
// was made again since, has nothing of ours.
func (a *Agent) givePinBack(ctx context.Context, p pin, w io.Writer) error {
	in := &state.InstanceStatus{Instance: state.Instance{ID: p.Instance, Cgroup: p.Cgroup}}
	paths := p.Cgroup.Paths
	if p.Cgroup.Version == 2 {
		paths = map[string]string{"": p.Cgroup.Path}
	}
	g, err := a.cgroups.Open(paths)
	if errors.Is(err, cgroup.ErrGone) || err == nil && g.ID() != p.Cgroup.ID {
		return nil
	}
	if err != nil {
		return err
	}
	files, err := g.PlanPin("", "")
	if err != nil {
		return err
	}
	out, err := a.set(ctx, "pin", in, files, false)
	if err != nil {
		return err
	}
	for _, c := range out.Changes {
		fmt.Fprintf(w, "%s: %s\n", p.Instance, c)
	}
	return a.notePin(&in.Instance, false)
}

// removeTraces removes what is ours and empty of others.
func removeTraces(cfg Config, w io.Writer) error {
	var errs []error
	remove := func(path string) {
		err := os.Remove(path)
		switch {
		case err == nil:
			fmt.Fprintf(w, "removed %s\n", path)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("remove: %w", err))
		}
	}
	// In version 2's root, and in that of each hierarchy of version 1.
	for _, pattern := range []string{"mooring.*", "*/mooring.*"} {
		dirs, err := filepath.Glob(filepath.Join(cfg.CgroupRoot, pattern))
		errs = append(errs, err)
		for _, dir := range dirs {
			remove(dir)
		}
	}
	remove(cfg.Socket)
	if ours(filepath.Dir(cfg.Socket)) {
		remove(filepath.Dir(cfg.Socket))
	}
	if !ours(cfg.StateDir) {
		return errors.Join(append(errs, fmt.Errorf("state directory %s is not named mooring: remove it by hand", cfg.StateDir))...)
	}
	if err := os.RemoveAll(cfg.StateDir); err != nil {
		errs = append(errs, fmt.Errorf("remove state directory: %w", err))
	} else {
		fmt.Fprintf(w, "removed %s\n", cfg.StateDir)
	}
	return errors.Join(errs...)
}

// ours says whether a directory bears our name, so that a wrong flag removes
// nobody else's.
func ours(dir string) bool { return strings.Contains(filepath.Base(dir), "mooring") }
