package change

import (
	"context"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestApply(t *testing.T) {
	t.Run("prepares all, journals, applies in order and closes", func(t *testing.T) {
		w := newWorld("/a", "/b")
		op := writes("x", "/a", "/b")
		require.NoError(t, w.executor().Apply(t.Context(), op, false))
		require.Equal(t, []string{"prepare /a", "prepare /b", "append x", "apply /a", "apply /b", "done x"}, w.log)
		require.Equal(t, map[string]string{"/a": "x /a", "/b": "x /b"}, w.files)
		require.Equal(t, "original /a", op.Changes[0].File.Old, "the caller can print the pre-image")
	})
	t.Run("with keep the record stays open and holds the pre-images", func(t *testing.T) {
		w := newWorld("/a")
		require.NoError(t, w.executor().Apply(t.Context(), writes("x", "/a"), true))
		require.Len(t, w.open(), 1)
		op, err := Decode(w.open()[0])
		require.NoError(t, err)
		require.Equal(t, "original /a", op.Changes[0].File.Old)
	})
}

func TestApplyThatFails(t *testing.T) {
	t.Run("a change that fails is reverted with those before it, last one first", func(t *testing.T) {
		for _, how := range []outcome{failsBefore, failsAfter, panics} {
			w := newWorld("/a", "/b", "/c")
			before := maps.Clone(w.files)
			w.failAt(map[string]outcome{"apply /b": how})
			err := w.executor().Apply(t.Context(), writes("x", "/a", "/b", "/c"), true)
			require.ErrorContains(t, err, `apply "x", all of it was undone: apply /b: `)
			require.NotErrorIs(t, err, ErrOpen)
			require.Equal(t, before, w.files)
			require.Empty(t, w.open())
			require.Equal(t, []string{"apply /a", "apply /b", "revert /b", "revert /a", "done x"}, w.log[4:])
		}
	})
	t.Run("a revert that fails too is told, and the record stays", func(t *testing.T) {
		w := newWorld("/a", "/b")
		w.failAt(map[string]outcome{"apply /b": failsAfter, "revert /b": failsBefore})
		e := w.executor()
		op := writes("x", "/a", "/b")
		err := e.Apply(t.Context(), op, false)
		require.EqualError(t, err, `apply "x": apply /b: broken; and then: undo "x": operation is still open: revert /b: broken`)
		require.ErrorIs(t, err, ErrOpen)
		require.Equal(t, map[string]string{"/a": "original /a", "/b": "x /b"}, w.files)
		require.Len(t, w.open(), 1)
		require.NoError(t, e.Undo(op))
		require.Equal(t, "original /b", w.files["/b"])
		require.Empty(t, w.open())
	})
	t.Run("nothing is done when the journal refuses", func(t *testing.T) {
		w := newWorld("/a")
		w.failAt(map[string]outcome{"append x": failsBefore})
		err := w.executor().Apply(t.Context(), writes("x", "/a"), true)
		require.EqualError(t, err, `apply "x", nothing was changed: write to journal: broken`)
		require.Equal(t, []string{"prepare /a", "append x"}, w.log)
	})
	t.Run("nothing is journalled when a change cannot be prepared", func(t *testing.T) {
		for _, how := range []outcome{failsBefore, panics} {
			w := newWorld("/a", "/b")
			w.failAt(map[string]outcome{"prepare /b": how})
			require.ErrorContains(t, w.executor().Apply(t.Context(), writes("x", "/a", "/b"), true), `prepare "x": prepare /b: `)
			require.Empty(t, w.open())
		}
	})
	t.Run("a context that ends half way ends in a revert", func(t *testing.T) {
		w := newWorld("/a", "/b")
		ctx, cancel := context.WithCancel(t.Context())
		w.step = func(call string) outcome {
			if call == "apply /a" {
				cancel()
			}
			return works
		}
		err := w.executor().Apply(ctx, writes("x", "/a", "/b"), false)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, "original /a", w.files["/a"])
		require.NotContains(t, w.log, "revert /b", "what was not tried is not reverted")
		require.ErrorContains(t, w.executor().Apply(ctx, writes("y", "/a"), false), "nothing was changed")
	})
}

func TestRefusals(t *testing.T) {
	with := func(edit func(*Operation)) *Operation {
		op := writes("x", "/a")
		edit(op)
		return op
	}
	for name, tt := range map[string]struct {
		op   *Operation
		want string
	}{
		"no id":            {with(func(op *Operation) { op.ID = "" }), "operation without id"},
		"no boot id":       {with(func(op *Operation) { op.BootID = "" }), "operation without boot id"},
		"no changes":       {with(func(op *Operation) { op.Changes = nil }), "operation without changes"},
		"unknown class":    {with(func(op *Operation) { op.Changes[0].Class = "odd" }), `unknown class "odd"`},
		"no data":          {with(func(op *Operation) { op.Changes[0].File = nil }), "data of another class, or with none"},
		"other data":       {with(func(op *Operation) { op.Changes[0].Class = Net }), "data of another class, or with none"},
		"relative path":    {with(func(op *Operation) { op.Changes[0].File.Path = "a" }), `path "a" is not absolute`},
		"no handler":       {with(func(op *Operation) { op.Changes[0] = Change{Class: Net, Net: &NetRule{}} }), `no handler for class "net"`},
		"value not utf-8":  {with(func(op *Operation) { op.Changes[0].File.New = "\xff" }), "cannot be encoded without loss"},
		"meta is not json": {with(func(op *Operation) { op.Meta = []byte("{") }), `encode operation "x"`},
	} {
		t.Run(name+" is refused before anything is done", func(t *testing.T) {
			w := newWorld("/a")
			require.ErrorContains(t, w.executor().Apply(t.Context(), tt.op, true), tt.want)
			require.Empty(t, w.open())
			require.Equal(t, "original /a", w.files["/a"])
		})
	}
	t.Run("an operation that is open is not applied again over its own effect", func(t *testing.T) {
		w := newWorld("/a")
		e := w.executor()
		require.NoError(t, e.Apply(t.Context(), writes("x", "/a"), true))
		require.ErrorContains(t, e.Apply(t.Context(), writes("x", "/a"), true), `operation "x" is open already`)
		require.NoError(t, e.Undo(writes("x", "/a")))
		require.Equal(t, "original /a", w.files["/a"])
	})
	t.Run("a target held by an open operation is refused until it is undone", func(t *testing.T) {
		w := newWorld("/a", "/b")
		e := w.executor()
		held := writes("x", "/a")
		require.NoError(t, e.Apply(t.Context(), held, true))
		err := e.Apply(t.Context(), writes("y", "/b", "/a"), false)
		require.EqualError(t, err, `/a is held by operation "x" (resize on "db") until that is undone`)
		require.NoError(t, e.Apply(t.Context(), writes("z", "/b"), false))
		require.NoError(t, e.Undo(held))
		require.NoError(t, e.Apply(t.Context(), writes("y", "/b", "/a"), false))
	})
	t.Run("a dry run alters nothing and writes nothing", func(t *testing.T) {
		w := newWorld("/a")
		op := writes("x", "/a")
		require.NoError(t, w.executor().Prepare(op))
		require.Equal(t, []string{"prepare /a"}, w.log)
		require.Equal(t, `write /a: "original /a" -> "x /a"`, op.Changes[0].String())
	})
}

func TestUndo(t *testing.T) {
	t.Run("the pre-images noted at apply are used, not the caller's", func(t *testing.T) {
		w := newWorld("/a")
		e := w.executor()
		op := writes("x", "/a")
		require.NoError(t, e.Apply(t.Context(), op, true))
		op.Changes[0].File.Old = "rubbish"
		require.NoError(t, e.Undo(op))
		require.Equal(t, "original /a", w.files["/a"])
	})
	t.Run("every change is tried and the record stays until all succeeded", func(t *testing.T) {
		w := newWorld("/a", "/b", "/c")
		e := w.executor()
		op := writes("x", "/a", "/b", "/c")
		require.NoError(t, e.Apply(t.Context(), op, true))
		w.failAt(map[string]outcome{"revert /c": failsBefore, "revert /b": panics})
		err := e.Undo(op)
		require.ErrorIs(t, err, ErrOpen)
		require.ErrorContains(t, err, "revert /c: broken")
		require.ErrorContains(t, err, "revert /b: panic: broken handler")
		require.Equal(t, "original /a", w.files["/a"])
		require.Len(t, w.open(), 1)
		require.NoError(t, e.Undo(op))
		require.NoError(t, e.Undo(op), "undo is idempotent")
		require.Empty(t, w.open())
		require.Equal(t, "original /c", w.files["/c"])
	})
	t.Run("an operation closed before is journalled again before it is undone", func(t *testing.T) {
		w := newWorld("/a")
		e := w.executor()
		op := writes("x", "/a")
		require.NoError(t, e.Apply(t.Context(), op, false))
		w.log = nil
		require.NoError(t, e.Undo(op))
		require.Equal(t, []string{"append x", "revert /a", "done x"}, w.log)
		require.Equal(t, "original /a", w.files["/a"])
	})
	t.Run("a record that could not be closed is closed by the next operation", func(t *testing.T) {
		w := newWorld("/a")
		e := w.executor()
		w.failAt(map[string]outcome{"done x": failsBefore})
		require.ErrorIs(t, e.Apply(t.Context(), writes("x", "/a"), false), ErrOpen)
		require.Equal(t, "x /a", w.files["/a"], "what was applied and verified stays")
		require.NoError(t, e.Apply(t.Context(), writes("y", "/a"), false))
		require.Empty(t, w.open())
	})
	t.Run("while a record cannot be closed its targets are refused", func(t *testing.T) {
		w := newWorld("/a")
		e := w.executor()
		w.step = func(call string) outcome {
			if call == "done x" {
				return failsBefore
			}
			return works
		}
		require.Error(t, e.Apply(t.Context(), writes("x", "/a"), false))
		err := e.Apply(t.Context(), writes("y", "/a"), false)
		require.EqualError(t, err, `/a: operation "x" cannot be closed in the journal: broken`)
	})
}

func TestRecover(t *testing.T) {
	crashed := func(t *testing.T) *world {
		w := newWorld("/a", "/b")
		require.NoError(t, w.executor().Apply(t.Context(), writes("x", "/a", "/b"), true))
		require.NoError(t, w.executor().Apply(t.Context(), writes("y", "/a"), true))
		w.log = nil
		return w
	}
	t.Run("undoes the newest operation first", func(t *testing.T) {
		w := crashed(t)
		undone, err := w.executor().Recover(w.open(), boot)
		require.NoError(t, err)
		require.Equal(t, []string{"revert /a", "done y", "revert /b", "revert /a", "done x"}, w.log)
		require.Equal(t, map[string]string{"/a": "original /a", "/b": "original /b"}, w.files)
		require.Len(t, undone, 2)
		require.Equal(t, "y", undone[0].ID)
	})
	t.Run("leaves what a reboot has undone alone", func(t *testing.T) {
		w := crashed(t)
		undone, err := w.executor().Recover(w.open(), "boot-2")
		require.NoError(t, err)
		require.Equal(t, []string{"done y", "done x"}, w.log)
		require.Len(t, undone, 2)
	})
	t.Run("keeps what it could not undo, and Undo finishes it", func(t *testing.T) {
		w := crashed(t)
		w.failAt(map[string]outcome{"revert /b": failsBefore})
		e := w.executor()
		undone, err := e.Recover(w.open(), boot)
		require.ErrorIs(t, err, ErrOpen)
		require.Len(t, undone, 1)
		require.Len(t, w.open(), 1)
		require.Error(t, e.Apply(t.Context(), writes("z", "/b"), true), "the target is still held")
		require.NoError(t, e.Undo(writes("x", "/a", "/b")))
		require.Equal(t, "original /b", w.files["/b"])
		require.Empty(t, w.open())
	})
	t.Run("an operation of another boot whose record stays can be closed by Undo", func(t *testing.T) {
		w := crashed(t)
		w.failAt(map[string]outcome{"done x": failsBefore})
		e := w.executor()
		undone, err := e.Recover(w.open(), "boot-2")
		require.ErrorIs(t, err, ErrOpen)
		require.Len(t, undone, 2, "nothing of it is left on the node")
		require.NoError(t, e.Undo(writes("x", "/a", "/b")))
		require.Empty(t, w.open())
		require.NotContains(t, w.log, "revert /a")
	})
	t.Run("a record it cannot read is named and left, the others are undone", func(t *testing.T) {
		w := crashed(t)
		undone, err := w.executor().Recover(append([][]byte{[]byte("{")}, w.open()...), boot)
		require.ErrorContains(t, err, "record 0 of the journal, left alone: decode operation")
		require.Len(t, undone, 2)
	})
}
