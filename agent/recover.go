package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/keeper"
)

// recover undoes the operations an earlier process left open: first what
// stopped an instance, since somebody is waiting, then other faults, then
// placements and sizes. What cannot be undone stays in the journal, shows in
// the status and is tried again until it can.
func (a *Agent) recover() error {
	records, err := a.journal.Records()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	var frozen, faults, settings [][]byte
	open := map[string]bool{}
	var errs []error
	if err := a.loadHistory(); err != nil {
		errs = append(errs, fmt.Errorf("%w; remove %s, it names nothing that is in force", err, a.historyFile()))
	}
	for _, r := range records {
		open[r.ID] = true
		op, err := change.Decode(r.Data)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("record %q of the journal, left alone: %w", r.ID, err))
		case !isFault(op):
			settings = append(settings, r.Data)
		case slices.ContainsFunc(op.Changes, func(c change.Change) bool { return c.Class == change.Freeze }):
			frozen = append(frozen, r.Data)
		default:
			faults = append(faults, r.Data)
		}
	}
	for _, group := range [][][]byte{frozen, faults} {
		undone, err := a.breaker.Recover(group, a.bootID)
		a.rememberAll(group, undone)
		errs = append(errs, err)
	}
	errs = append(errs, keeper.Sweep(a.keeperDir(), func(uid string) bool { return open[uid] && a.stuck(uid) }), a.recoverSettings(settings))
	return errors.Join(errs...)
}

func (a *Agent) logUndone(op *change.Operation) {
	a.log.Info("operation undone", "component", "agent", "uid", op.ID, "kind", op.Kind, "instance", op.Instance, "reason", "recovered")
}

// stuck says whether a fault is still to be undone.
func (a *Agent) stuck(uid string) bool {
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	f, ok := a.faults[uid]
	return ok && f.Phase != "ended"
}

// recoverSettings undoes interrupted placements and sizes. One that had been
// carried out to its end, so that only its record was still open, is in use by
// now and stays.
func (a *Agent) recoverSettings(records [][]byte) error {
	var halves [][]byte
	var errs []error
	for _, r := range records {
		op, err := change.Decode(r)
		if err != nil {
			return err // recover has decoded it before
		}
		if op.BootID == a.bootID && complete(op) {
			a.log.Info("operation was complete", "component", "agent", "uid", op.ID, "kind", op.Kind, "instance", op.Instance)
			errs = append(errs, a.journal.Done(op.ID))
			continue
		}
		halves = append(halves, r)
	}
	undone, err := a.settle.Recover(halves, a.bootID)
	for _, op := range undone {
		a.logUndone(op)
	}
	for _, r := range halves {
		op, derr := change.Decode(r)
		if derr == nil && !slices.ContainsFunc(undone, func(u *change.Operation) bool { return u.ID == op.ID }) {
			a.retrySettings(op, err)
		}
	}
	return errors.Join(append(errs, err)...)
}

// complete says whether every file of op reads as it was to be written.
func complete(op *change.Operation) bool {
	for _, c := range op.Changes {
		if c.File == nil {
			return false
		}
		b, err := os.ReadFile(c.File.Path)
		if err != nil || strings.TrimSpace(string(b)) != strings.TrimSpace(c.File.New) {
			return false
		}
	}
	return true
}

// retrySettings notes why an interrupted placement or size could not be undone
// and tries again later.
func (a *Agent) retrySettings(op *change.Operation, why error) {
	a.unsettledMu.Lock()
	defer a.unsettledMu.Unlock()
	a.unsettled[op.ID] = fmt.Sprintf("interrupted %s of %q is not undone yet: %s", op.Kind, op.Instance, oneLine(why))
	time.AfterFunc(retryUndo, func() {
		a.settings.Lock()
		defer a.settings.Unlock()
		if a.settled {
			return
		}
		if err := a.settle.Undo(op); err != nil {
			a.retrySettings(op, err)
			return
		}
		a.logUndone(op)
		a.unsettledMu.Lock()
		defer a.unsettledMu.Unlock()
		delete(a.unsettled, op.ID)
	})
}

// unsettledNotes lists what retrySettings is still at.
func (a *Agent) unsettledNotes() []string {
	a.unsettledMu.Lock()
	defer a.unsettledMu.Unlock()
	return slices.Sorted(maps.Values(a.unsettled))
}
