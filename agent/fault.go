package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/keeper"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
	"github.com/mooring-dev/mooring/chaos"
)

const (
	// keepEnded is how many ended faults stay in the snapshot.
	keepEnded = 64
	// keepWithdrawn is how many withdrawals of unknown faults are remembered.
	keepWithdrawn = 256
	// startFailed is the reason of a fault that never came into force.
	startFailed = "start failed"
	// retryUndo is how long an undo that failed waits for its next attempt.
	retryUndo = 5 * time.Second
)

// fault is a fault with what is needed to end it.
type fault struct {
	state.Fault
	asked asked
	// op is nil for one that had ended before this process began.
	op *change.Operation
	// before is what op may touch, as it was.
	before baseline
	// leaseUntil is CLOCK_BOOTTIME; 0 where asked.Lease is.
	leaseUntil time.Duration
	// timer has the fault looked at next; nil when it has ended.
	timer *time.Timer
}

// FaultOptions is how a fault is to be begun.
type FaultOptions struct {
	// NotAfter is the wall clock time at which it is over in any case, so that
	// a request that was held up begins nothing old. Zero is none.
	NotAfter time.Time
	// Lease ends the fault when StartFault was not called again for so long; 0
	// lets it go on to its deadline.
	Lease time.Duration
	// DryRun plans and checks everything and changes nothing.
	DryRun bool
	// PodUID, where it is not empty, must be that of the instance's pod.
	PodUID string
}

// StartFault begins a fault, or returns what came of it when this uid is known;
// asking again for one that is active renews its lease. It blocks until the
// fault was read back.
func (a *Agent) StartFault(ctx context.Context, spec chaos.Spec, o FaultOptions) (*state.Fault, []string, error) {
	if err := errors.Join(validUID(spec.UID), validLease(o.Lease)); err != nil {
		return nil, nil, invalid(err)
	}
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	if a.closing {
		return nil, nil, errClosing
	}
	ctx, err := begun(ctx)
	if err != nil {
		return nil, nil, err
	}
	if slices.Contains(a.withdrawn, spec.UID) {
		return nil, nil, refused(fmt.Errorf("fault %q was withdrawn before it began", spec.UID))
	}
	if f, ok := a.faults[spec.UID]; ok {
		return a.known(f, spec, o)
	}
	if err := chaos.Validate(spec); err != nil {
		return nil, nil, invalid(err)
	}
	f, err := a.plan(spec, o)
	if err != nil {
		return nil, nil, err
	}
	if err := a.breaker.Prepare(f.op); err != nil {
		return nil, nil, refused(fmt.Errorf("prepare %s on %q: %w", f.Kind, f.Instance, err))
	}
	if !o.DryRun {
		if err := a.begin(ctx, f); err != nil {
			return nil, nil, err
		}
	}
	out := f.Fault
	return &out, lines(f.op.Changes), nil
}

// plan resolves the target and says what the fault comes down to there. The
// caller holds faultMu.
func (a *Agent) plan(spec chaos.Spec, o FaultOptions) (*fault, error) {
	asked := asked{Instance: spec.Instance, Duration: spec.Duration, NotAfter: o.NotAfter, Lease: o.Lease}
	snap, in, err := a.target(spec.Instance, o.PodUID)
	if err != nil {
		return nil, err
	}
	spec.Instance = in.ID
	now := time.Now()
	if !o.NotAfter.IsZero() {
		if left := o.NotAfter.Sub(now); left <= 0 {
			return nil, refused(fmt.Errorf("fault %q was to be over by %s, which has passed", spec.UID, o.NotAfter.Format(time.RFC3339)))
		} else if left < spec.Duration {
			spec.Duration = left
		}
	}
	boot := a.boot()
	changes, err := chaos.Plan(spec, a.aim(snap, in), a.activeFaults(), snap.Capability, boot)
	if err != nil {
		return nil, refused(err)
	}
	f := &fault{asked: asked, Fault: state.Fault{
		UID: spec.UID, Kind: spec.Kind, Instance: in.ID, Params: maps.Clone(spec.Params),
		Started: now, Deadline: now.Add(spec.Duration), Phase: state.FaultActive,
	}}
	f.op = &change.Operation{
		ID: spec.UID, Kind: "fault/" + spec.Kind, Instance: in.ID,
		Changes: changes, Deadline: boot + spec.Duration, BootID: a.bootID,
	}
	return f, nil
}

// aim is what a plan has to know of its target. Where the freezer cannot be
// told, it stays empty and only a freeze is refused.
func (a *Agent) aim(snap *state.Snapshot, in *state.InstanceStatus) chaos.Target {
	t := chaos.Target{Instance: in.Instance}
	if g, err := a.open(&in.Instance); err == nil {
		if f, err := g.PlanFreeze(); err == nil {
			t.Freezer = f
		}
	}
	for i := range snap.Instances {
		if o := &snap.Instances[i].Instance; o.ID != in.ID {
			t.Others = append(t.Others, *o)
		}
	}
	return t
}

// known answers a request whose uid is already there: the same again is
// idempotent and renews the lease, anything else is a mistake. The caller holds
// faultMu.
func (a *Agent) known(f *fault, spec chaos.Spec, o FaultOptions) (*state.Fault, []string, error) {
	same := f.Kind == spec.Kind && (f.Instance == spec.Instance || f.asked.Instance == spec.Instance) && maps.Equal(f.Params, spec.Params)
	if !same || !f.asked.lasts(spec.Duration, o.NotAfter) {
		return nil, nil, invalid(fmt.Errorf("uid %q is taken by %s on %q; choose another", f.UID, f.Kind, f.Instance))
	}
	if !o.DryRun {
		if err := a.renew(f, o.Lease); err != nil {
			return nil, nil, err
		}
	}
	if f.Phase == state.FaultStuck || f.Reason == startFailed {
		return nil, nil, fmt.Errorf("fault %q is %s (%s): %s", f.UID, f.Phase, f.Reason, f.Err)
	}
	out := f.Fault
	if f.op == nil {
		return &out, nil, nil
	}
	return &out, lines(f.op.Changes), nil
}

// begin notes how the target is, arms the undo, then the fault. The caller
// holds faultMu.
func (a *Agent) begin(ctx context.Context, f *fault) error {
	if err := a.note(f); err != nil {
		return err
	}
	a.lease(f, f.asked.Lease)
	var err error
	if f.op.Meta, err = f.meta(); err != nil {
		return fmt.Errorf("encode fault: %w", err)
	}
	if err := a.arm(f); err != nil {
		return err
	}
	a.keepHistory(f)
	uid := f.UID
	// The executor looks at ctx before each change: past the deadline, when
	// the undo may already have been and gone, nothing is applied.
	ctx, cancel := context.WithTimeout(ctx, f.op.Deadline-a.boot())
	defer cancel()
	if err := a.breaker.Apply(ctx, f.op, true); err != nil {
		err = fmt.Errorf("start %s on %q: %w", f.Kind, f.Instance, err)
		if errors.Is(err, change.ErrOpen) {
			// Part of it may be in force: keep the keeper and try again.
			f.Phase, f.Err = state.FaultStuck, err.Error()
			a.faults[uid] = f
			f.timer = time.AfterFunc(retryUndo, func() { a.end(uid, startFailed) })
			return err
		}
		a.keepHistory()
		return errors.Join(err, keeper.Disarm(a.keeperDir(), uid))
	}
	a.faults[uid] = f
	a.schedule(f)
	for _, l := range lines(f.op.Changes) {
		a.log.Info("fault applied", "component", "chaos", "uid", f.UID, "kind", f.Kind, "instance", f.Instance, "change", l, "duration", time.Until(f.Deadline), "lease", f.asked.Lease)
	}
	a.forget()
	return nil
}

// arm starts a keeper for each change that nothing in the kernel ends.
func (a *Agent) arm(f *fault) error {
	for _, c := range f.op.Changes {
		if c.Class != change.Freeze {
			continue
		}
		duty := keeper.Duty{File: c.File.Path, CgroupID: c.File.CgroupID, Old: c.File.Old, Deadline: f.keeperDeadline()}
		if err := keeper.Arm(a.keeperDir(), a.cfg.CgroupRoot, f.UID, duty); err != nil {
			return fmt.Errorf("arm the undo of %s on %q, nothing was changed: %w", f.Kind, f.Instance, err)
		}
	}
	return nil
}

func (a *Agent) keeperDir() string { return filepath.Join(a.cfg.StateDir, "keepers") }

// StopFault ends an active fault now. A fault that has ended is left as it is.
func (a *Agent) StopFault(uid string) (*state.Fault, error) {
	a.faultMu.Lock()
	f, ok := a.faults[uid]
	if !ok && !slices.Contains(a.withdrawn, uid) {
		// Its request may still be under way, and is not to begin it any more.
		a.withdrawn = append(a.withdrawn, uid)
		a.withdrawn = a.withdrawn[max(0, len(a.withdrawn)-keepWithdrawn):]
	}
	a.faultMu.Unlock()
	if !ok {
		return nil, invalid(fmt.Errorf("unknown fault %q; `mooringctl fault list` shows them", uid))
	}
	a.end(uid, "stopped")
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	out := f.Fault
	if out.Phase != state.FaultEnded {
		return &out, fmt.Errorf("fault %q could not be undone and will be tried again every %v: %s", uid, retryUndo, out.Err)
	}
	return &out, nil
}

// end undoes a fault and verifies it. An undo that fails is tried again until
// it succeeds; the kernel has let go of what it can by itself long before.
func (a *Agent) end(uid, reason string) {
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	if f, ok := a.faults[uid]; ok {
		a.finish(f, reason)
	}
}

// finish is end for one who holds faultMu.
func (a *Agent) finish(f *fault, reason string) {
	if f.Phase == state.FaultEnded {
		return
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	if hits, err := a.hits(f); err == nil {
		f.Hits = hits
	}
	uid := f.UID
	if err := a.breaker.Undo(f.op); err != nil {
		f.Phase, f.Err = state.FaultStuck, err.Error()
		f.timer = time.AfterFunc(retryUndo, func() { a.end(uid, reason) })
		a.log.Error("fault not undone", "component", "chaos", "uid", uid, "kind", f.Kind, "instance", f.Instance, "err", err)
		return
	}
	f.Phase, f.Reason, f.Ended, f.Err, f.timer = state.FaultEnded, reason, time.Now(), "", nil
	if err := keeper.Disarm(a.keeperDir(), uid); err != nil {
		a.log.Warn("keeper not disarmed", "component", "chaos", "uid", uid, "err", err)
	}
	a.verify(f)
	a.log.Info("fault ended", "component", "chaos", "uid", uid, "kind", f.Kind, "instance", f.Instance, "reason", reason, "hits", f.Hits,
		"verified", f.Verified, "residue", f.Residue)
	a.keepHistory()
}

// endAll ends every active fault.
func (a *Agent) endAll(reason string) {
	for _, f := range a.activeSnapshot() {
		a.end(f.UID, reason)
	}
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	for _, f := range a.faults {
		if f.timer != nil {
			f.timer.Stop()
		}
	}
}

func (a *Agent) activeSnapshot() []state.Fault {
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	return a.activeFaults()
}

// activeFaults lists what has not ended, by uid. The caller holds faultMu.
func (a *Agent) activeFaults() []state.Fault {
	var out []state.Fault
	for _, uid := range slices.Sorted(maps.Keys(a.faults)) {
		if f := a.faults[uid]; f.Phase != state.FaultEnded {
			out = append(out, f.Fault)
		}
	}
	return out
}

// readFaults copies all faults into the snapshot, newest first, with how often
// the kernel applied them.
func (a *Agent) readFaults(next *state.Snapshot) error {
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	var errs []error
	for _, f := range a.faults {
		if f.Phase == state.FaultActive {
			hits, err := a.hits(f)
			if err != nil {
				errs = append(errs, fmt.Errorf("read hits of %q: %w", f.UID, err))
			} else {
				f.Hits = hits
			}
		}
		next.Faults = append(next.Faults, f.Fault)
	}
	slices.SortFunc(next.Faults, func(x, y state.Fault) int {
		return y.Started.Compare(x.Started)
	})
	return errors.Join(errs...)
}

// hits asks the kernel how often a fault was applied.
func (a *Agent) hits(f *fault) (uint64, error) {
	var sum uint64
	for _, c := range f.op.Changes {
		var n uint64
		var err error
		switch c.Class {
		case change.Net:
			n, err = a.net.Hits(c)
		case change.IO:
			n, err = a.io.Hits(c)
		case change.Freeze:
			// A freeze hits every process of the instance once.
			n = 1
		}
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// renewLeases keeps the kernel applying what one handler armed for as long as
// this process lives and is not stuck.
func (a *Agent) renewLeases(ctx context.Context, renew func() error) {
	t := time.NewTicker(bpf.Lease / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := renew(); err != nil {
			a.log.Warn("lease not renewed", "component", "chaos", "err", err)
		}
	}
}

func lines(changes []change.Change) []string {
	var out []string
	for _, c := range changes {
		out = append(out, c.String())
	}
	return out
}

// validUID accepts what can also name a file: the keeper's marker bears it.
func validUID(uid string) error {
	if uid == "" || len(uid) > 128 || uid[0] == '.' || uid[0] == '-' {
		return fmt.Errorf("uid %q must have 1 to 128 characters and begin with a letter or digit", uid)
	}
	for _, r := range uid {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
		if !ok {
			return fmt.Errorf("uid %q may hold letters, digits, '-', '_' and '.' only", uid)
		}
	}
	return nil
}
