package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/chaos"
)

// nothing carries out changes without a kernel.
type nothing struct{ applied, reverted int }

func (*nothing) Prepare(*change.Change) error { return nil }
func (n *nothing) Apply(change.Change) error  { n.applied++; return nil }
func (n *nothing) Revert(change.Change) error { n.reverted++; return nil }

// leased is an agent whose file faults do nothing, on a clock of the test.
func leased(t *testing.T, f *fixture) (*Agent, *nothing) {
	t.Helper()
	a := f.agent(t)
	h := &nothing{}
	a.breaker = change.NewExecutor(map[change.Class]change.Handler{change.IO: h}, a.journal)
	begun := time.Now()
	a.boot = func() time.Duration { return time.Hour + time.Since(begun) }
	return a, h
}

func ioFault(uid string, d time.Duration) chaos.Spec {
	return chaos.Spec{UID: uid, Kind: "io-error", Instance: "orders", Duration: d}
}

// fault is what the agent says of it.
func (a *Agent) faultNamed(t *testing.T, uid string) state.Fault {
	t.Helper()
	var s state.Snapshot
	require.NoError(t, a.readFaults(&s))
	for _, f := range s.Faults {
		if f.UID == uid {
			return f
		}
	}
	require.Fail(t, "no fault", uid)
	return state.Fault{}
}

func TestALeasedFaultLivesAsLongAsItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.instance(t, "/db/orders", "orders")
		a, h := leased(t, f)
		end := time.Now().Add(time.Minute)
		begun := time.Now()
		for range 5 {
			// What is left is shorter each time, the end the same.
			got, _, err := a.StartFault(t.Context(), ioFault("f1", time.Until(end)), FaultOptions{NotAfter: end, Lease: 15 * time.Second})
			require.NoError(t, err)
			require.Equal(t, state.FaultActive, got.Phase)
			require.Equal(t, begun, got.Started)
			require.Equal(t, time.Now().Add(15*time.Second), got.LeaseUntil)
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, 1, h.applied)
		time.Sleep(9 * time.Second)
		require.Equal(t, state.FaultActive, a.faultNamed(t, "f1").Phase)
		time.Sleep(1001 * time.Millisecond)
		got := a.faultNamed(t, "f1")
		require.Equal(t, state.FaultEnded, got.Phase)
		require.Equal(t, "lease", got.Reason)
		require.Equal(t, begun.Add(35*time.Second), got.Ended, "fifteen seconds after it was last asked for")
		require.True(t, got.Verified)
		require.Empty(t, got.Residue)
		require.Equal(t, 1, h.reverted)

		again, _, err := a.StartFault(t.Context(), ioFault("f1", time.Until(end)), FaultOptions{NotAfter: end, Lease: 15 * time.Second})
		require.NoError(t, err)
		require.Equal(t, state.FaultEnded, again.Phase, "asking again does not begin it again")
		require.Equal(t, 1, h.applied)
	})
}

func TestALeaseEndsAtTheDeadlineAtTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.instance(t, "/db/orders", "orders")
		a, _ := leased(t, f)
		begun := time.Now()
		o := FaultOptions{Lease: 10 * time.Second}
		for range 4 {
			_, _, err := a.StartFault(t.Context(), ioFault("f1", 30*time.Second), o)
			require.NoError(t, err)
			time.Sleep(8 * time.Second)
		}
		got := a.faultNamed(t, "f1")
		require.Equal(t, "deadline", got.Reason)
		require.Equal(t, begun.Add(30*time.Second), got.Ended)
	})
}

func TestARepeatWithoutALeaseChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.instance(t, "/db/orders", "orders")
		a, _ := leased(t, f)
		first, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{Lease: 5 * time.Second})
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		second, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{})
		require.NoError(t, err)
		require.Equal(t, first.LeaseUntil, second.LeaseUntil)
		_, _, err = a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{Lease: 5 * time.Second, DryRun: true})
		require.NoError(t, err)
		time.Sleep(2001 * time.Millisecond)
		require.Equal(t, "lease", a.faultNamed(t, "f1").Reason)
	})
}

func TestALeaseThatHasRunOutIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.instance(t, "/db/orders", "orders")
		a, _ := leased(t, f)
		_, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{Lease: 5 * time.Second})
		require.NoError(t, err)
		// The machine slept: timers stood still, the boot clock did not.
		clock := a.boot
		a.boot = func() time.Duration { return clock() + 10*time.Second }
		got, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{Lease: 5 * time.Second})
		require.NoError(t, err)
		require.Equal(t, state.FaultEnded, got.Phase)
		require.Equal(t, "lease", got.Reason)
	})
}

func TestASleepOfTheMachineIsNoticedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.instance(t, "/db/orders", "orders")
		a, _ := leased(t, f)
		_, _, err := a.StartFault(t.Context(), ioFault("f1", 10*time.Minute), FaultOptions{})
		require.NoError(t, err)
		a.faultMu.Lock()
		clock := a.boot
		a.boot = func() time.Duration { return clock() + 20*time.Minute }
		a.faultMu.Unlock()
		time.Sleep(1001 * time.Millisecond)
		require.Equal(t, "deadline", a.faultNamed(t, "f1").Reason)
	})
}

func TestLeasesAndRepeatsThatAreRefused(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a, h := leased(t, f)
	for _, d := range []time.Duration{-time.Second, time.Second, 2999 * time.Millisecond, 10*time.Minute + 1} {
		_, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{Lease: d})
		require.ErrorIs(t, err, ErrInvalid, d)
		require.ErrorContains(t, err, "between 3s and 10m0s")
	}
	require.Zero(t, h.applied)
	end := time.Now().Add(time.Minute)
	_, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), FaultOptions{NotAfter: end})
	require.NoError(t, err)
	for name, c := range map[string]struct {
		spec chaos.Spec
		o    FaultOptions
	}{
		"another end":       {ioFault("f1", 50*time.Second), FaultOptions{NotAfter: end.Add(time.Second)}},
		"no end":            {ioFault("f1", 50*time.Second), FaultOptions{}},
		"another kind":      {chaos.Spec{UID: "f1", Kind: "freeze", Instance: "orders", Duration: time.Minute}, FaultOptions{NotAfter: end}},
		"another instance":  {chaos.Spec{UID: "f1", Kind: "io-error", Instance: "ledger", Duration: time.Minute}, FaultOptions{NotAfter: end}},
		"another parameter": {chaos.Spec{UID: "f1", Kind: "io-error", Instance: "orders", Duration: time.Minute, Params: map[string]string{"percent": "1"}}, FaultOptions{NotAfter: end}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := a.StartFault(t.Context(), c.spec, c.o)
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, "is taken by")
		})
	}
}

func TestAFaultThatEndedIsNotBegunAgainByTheNextAgent(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a, _ := leased(t, f)
	end := time.Now().Add(time.Minute)
	o := FaultOptions{NotAfter: end, Lease: 15 * time.Second}
	_, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), o)
	require.NoError(t, err)
	a.Close()
	require.Equal(t, "agent stopped", a.faultNamed(t, "f1").Reason)

	b, h := leased(t, f)
	got, lines, err := b.StartFault(t.Context(), ioFault("f1", 50*time.Second), o)
	require.NoError(t, err)
	require.Equal(t, state.FaultEnded, got.Phase)
	require.Equal(t, "agent stopped", got.Reason)
	require.True(t, got.Verified)
	require.Empty(t, lines)
	require.Zero(t, h.applied)
	_, _, err = b.StartFault(t.Context(), ioFault("f1", 50*time.Second), FaultOptions{})
	require.ErrorIs(t, err, ErrInvalid, "it is still another fault")
	b.Close()

	require.NoError(t, os.WriteFile(filepath.Join(f.root, "state", "faults.json"), []byte("{"), 0o600))
	log := &logText{}
	c, err := New(b.cfg, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err, "a damaged record of the past stops nobody")
	c.Close()
	require.Contains(t, log.String(), "read ended faults")
}

func TestAFaultWhoseEndWasNotWrittenDownIsNotBegunAgain(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a, _ := leased(t, f)
	o := FaultOptions{NotAfter: time.Now().Add(time.Minute)}
	_, _, err := a.StartFault(t.Context(), ioFault("f1", time.Minute), o)
	require.NoError(t, err)
	file := filepath.Join(f.root, "state", "faults.json")
	then, err := os.ReadFile(file)
	require.NoError(t, err)
	a.Close()
	// As a process leaves it that is killed once the journal has let go of the fault.
	require.NoError(t, os.WriteFile(file, then, 0o600))

	b, h := leased(t, f)
	got, _, err := b.StartFault(t.Context(), ioFault("f1", time.Minute), o)
	require.NoError(t, err)
	require.Equal(t, state.FaultEnded, got.Phase)
	require.Equal(t, "recovered", got.Reason)
	require.False(t, got.Verified)
	require.Contains(t, got.Err, "killed")
	require.Zero(t, h.applied)
}

func TestOnlySoManyEndedFaultsAreKept(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a, _ := leased(t, f)
	for i := range keepEnded + 5 {
		uid := "f" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		_, _, err := a.StartFault(t.Context(), ioFault(uid, time.Minute), FaultOptions{})
		require.NoError(t, err)
		_, err = a.StopFault(uid)
		require.NoError(t, err)
	}
	require.Len(t, a.faults, keepEnded)
	a.Close()
	b, _ := leased(t, f)
	require.Len(t, b.faults, keepEnded)
	require.NotContains(t, b.faults, "faa")
}
