package change

import (
	"errors"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// scenario is the life of one operation on a node where anything may go wrong.
type scenario struct {
	targets []string
	keep    bool
	// retry calls Undo when Apply left the operation open, restart starts
	// the process anew at the end although it did not crash.
	retry, restart bool
	// outcomes are those of the first calls; later ones work.
	outcomes []outcome
}

var fileNames = []string{"/a", "/b", "/c", "/d"}

func drawScenario(t *rapid.T) scenario {
	return scenario{
		targets: rapid.SliceOfNDistinct(rapid.SampledFrom(fileNames), 1, 3, rapid.ID[string]).Draw(t, "targets"),
		keep:    rapid.Bool().Draw(t, "keep"),
		retry:   rapid.Bool().Draw(t, "retry"),
		restart: rapid.Bool().Draw(t, "restart"),
		outcomes: rapid.SliceOfN(rapid.SampledFrom([]outcome{
			works, works, works, works, works, works, works, works, works, works,
			failsBefore, failsAfter, panics, crashesBefore, crashesAfter,
		}), 0, 30).Draw(t, "outcomes"),
	}
}

// step returns the outcomes one after the other. A journal does not panic.
func (s *scenario) step(call string) outcome {
	if len(s.outcomes) == 0 {
		return works
	}
	o := s.outcomes[0]
	s.outcomes = s.outcomes[1:]
	if o == panics && (call[:4] == "appe" || call[:4] == "done") {
		return failsAfter
	}
	return o
}

// play runs the scenario, then lets everything work and settle. It returns the
// executor to go on with.
func (s *scenario) play(t *rapid.T, w *world, e *Executor, op *Operation, before, after map[string]string) *Executor {
	w.step = s.step
	err, crashed := run(func() error { return e.Apply(t.Context(), op, s.keep) })
	done := !crashed && err == nil
	switch {
	case done:
		require.Equal(t, after, w.files, "what was reported as applied is applied")
		require.Equal(t, s.keep, w.records[op.ID] != nil, "it has a record as long as it is to be undone")
	case !crashed && !errors.Is(err, ErrOpen):
		require.Equal(t, before, w.files, "what was reported as undone is undone")
	}
	if !crashed && (done && s.keep || errors.Is(err, ErrOpen) && s.retry) {
		var uerr error
		uerr, crashed = run(func() error { return e.Undo(op) })
		if !crashed && uerr == nil {
			require.Equal(t, before, w.files)
			require.NotContains(t, w.records, op.ID)
		}
	}
	for crashed || s.restart {
		s.restart = false
		e = w.executor()
		_, crashed = run(func() error { _, err := e.Recover(w.open(), boot); return err })
	}
	w.step = func(string) outcome { return works }
	for _, h := range e.held {
		if !h.settled {
			require.NoError(t, e.Undo(h.op))
		}
	}
	e.settle()
	require.Empty(t, w.records)
	require.Empty(t, e.held)
	if done && !s.keep {
		require.Equal(t, after, w.files, "what was reported as done stays")
	}
	if s.keep {
		require.Equal(t, before, w.files, "a fault ends")
	}
	return e
}

// TestNeverHalf runs operations while any call of a handler or the journal may
// fail, panic or be the last one of the process. In the end each operation is
// wholly applied or wholly undone.
func TestNeverHalf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(fileNames...)
		e := w.executor()
		for i := range rapid.IntRange(1, 6).Draw(t, "operations") {
			s := drawScenario(t)
			op := writes(string(rune('k'+i)), s.targets...)
			before, after := maps.Clone(w.files), maps.Clone(w.files)
			for _, c := range op.Changes {
				after[c.File.Path] = c.File.New
			}
			e = s.play(t, w, e, op, before, after)
			if !maps.Equal(w.files, before) {
				require.Equal(t, after, w.files, "operation %q is half applied", op.ID)
			}
		}
	})
}

// TestEveryCrashPoint kills the process before and after each step of one
// operation and recovers.
func TestEveryCrashPoint(t *testing.T) {
	steps := []string{"prepare /a", "prepare /b", "append x", "apply /a", "apply /b", "done x", "revert /b", "revert /a"}
	for _, keep := range []bool{true, false} {
		for _, step := range steps {
			for _, how := range []outcome{crashesBefore, crashesAfter} {
				w := newWorld("/a", "/b")
				before := maps.Clone(w.files)
				w.failAt(map[string]outcome{step: how})
				op := writes("x", "/a", "/b")
				e := w.executor()
				_, crashed := run(func() error {
					if err := e.Apply(t.Context(), op, keep); err != nil {
						return err
					}
					return e.Undo(op)
				})
				require.True(t, crashed, "%s was not reached", step)
				_, err := w.executor().Recover(w.open(), boot)
				require.NoError(t, err)
				require.Empty(t, w.open())
				if step == "done x" && how == crashesAfter && !keep {
					require.Equal(t, map[string]string{"/a": "x /a", "/b": "x /b"}, w.files)
				} else {
					require.Equal(t, before, w.files, "crash at %s", step)
				}
			}
		}
	}
}
