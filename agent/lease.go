package agent

import (
	"fmt"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/keeper"
	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// minLease leaves room for a request that comes a second late, maxLease
	// is as long as a controller may be away for nothing.
	minLease, maxLease = 3 * time.Second, 10 * time.Minute
	// keeperGrace is how long after the end of a lease the keeper waits for
	// the agent, which ends the fault at once when it lives.
	keeperGrace = 2 * time.Second
	// lookAgain bounds a wait: Go's timers stand still while the machine
	// sleeps, and deadlines do not.
	lookAgain = time.Second
)

// asked is the part of a request that tells whether another one is the same.
type asked struct {
	Instance string        `json:"instance"`
	Duration time.Duration `json:"duration"`
	NotAfter time.Time     `json:"notAfter,omitzero"`
	Lease    time.Duration `json:"lease,omitempty"`
}

// lasts says whether a repeated request means the same end: the same duration,
// or the same moment, with a duration that says what is left.
func (a asked) lasts(d time.Duration, notAfter time.Time) bool {
	return a.Duration == 0 || a.Duration == d || !notAfter.IsZero() && a.NotAfter.Equal(notAfter)
}

func validLease(d time.Duration) error {
	if d != 0 && (d < minLease || d > maxLease) {
		return fmt.Errorf("lease %v is not between %v and %v", d, minLease, maxLease)
	}
	return nil
}

// lease makes the lease of f last from now; 0 leaves it as it is. The caller
// holds faultMu.
func (a *Agent) lease(f *fault, d time.Duration) {
	if d == 0 {
		return
	}
	f.asked.Lease = d
	f.leaseUntil = a.boot() + d
	f.LeaseUntil = time.Now().Add(d)
}

// renew extends the lease of an active fault. One that has run out is not
// renewed: the fault is over then, whether or not the timer has noticed. The
// caller holds faultMu.
func (a *Agent) renew(f *fault, d time.Duration) error {
	if f.Phase != state.FaultActive {
		return nil
	}
	if reason := a.expired(f); reason != "" {
		a.finish(f, reason)
		return nil
	}
	if d == 0 {
		return nil
	}
	a.lease(f, d)
	f.timer.Stop()
	a.schedule(f)
	for _, c := range f.op.Changes {
		if c.Class != change.Freeze {
			continue
		}
		if err := keeper.Extend(a.keeperDir(), f.UID, f.keeperDeadline()); err != nil {
			// The keeper will thaw too early, and the agent must not go on
			// to say that the fault is active.
			a.finish(f, "lease")
			return fmt.Errorf("renew the lease of fault %q, which was ended: %w", f.UID, err)
		}
	}
	return nil
}

// keeperDeadline is when the keeper steps in: an agent that died cannot watch
// the lease.
func (f *fault) keeperDeadline() time.Duration {
	if f.leaseUntil == 0 {
		return f.op.Deadline
	}
	return min(f.op.Deadline, f.leaseUntil+keeperGrace)
}

// expired returns the reason for which f is over by now, "" while it is not.
func (a *Agent) expired(f *fault) string {
	now := a.boot()
	switch {
	case now >= f.op.Deadline:
		return "deadline"
	case f.leaseUntil != 0 && now >= f.leaseUntil:
		return "lease"
	}
	return ""
}

// schedule has f looked at when its deadline or its lease comes. The caller
// holds faultMu.
func (a *Agent) schedule(f *fault) {
	left := f.op.Deadline - a.boot()
	if f.leaseUntil != 0 {
		left = min(left, f.leaseUntil-a.boot())
	}
	uid := f.UID
	f.timer = time.AfterFunc(min(max(left, 0), lookAgain), func() { a.look(uid) })
}

// look ends a fault that is over and comes back to one that is not.
func (a *Agent) look(uid string) {
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	f, ok := a.faults[uid]
	if !ok || f.Phase != state.FaultActive {
		return
	}
	if reason := a.expired(f); reason != "" {
		a.finish(f, reason)
		return
	}
	a.schedule(f)
}
