package change

import (
	"errors"
	"runtime"
	"slices"
)

// world is a node made of files, a journal on which an executor can work, and
// a switch that lets any step fail.
type world struct {
	files   map[string]string
	ids     []string
	records map[string][]byte
	log     []string
	// step is asked before every call; see the constants.
	step func(call string) outcome
}

// outcome is what becomes of one call.
type outcome int

const (
	works outcome = iota
	failsBefore
	failsAfter
	panics
	crashesBefore
	crashesAfter
)

var errBroken = errors.New("broken")

func newWorld(names ...string) *world {
	w := &world{files: map[string]string{}, records: map[string][]byte{}, step: func(string) outcome { return works }}
	for _, n := range names {
		w.files[n] = "original " + n
	}
	return w
}

// do runs effect as the outcome of the step has it. A crash ends the goroutine:
// nothing after it runs, as when the process is killed.
func (w *world) do(call string, effect func()) error {
	w.log = append(w.log, call)
	switch w.step(call) {
	case failsBefore:
		return errBroken
	case failsAfter:
		effect()
		return errBroken
	case panics:
		effect()
		panic("broken handler")
	case crashesBefore:
		runtime.Goexit()
	case crashesAfter:
		effect()
		runtime.Goexit()
	}
	effect()
	return nil
}

func (w *world) Prepare(c *Change) error {
	return w.do("prepare "+c.File.Path, func() { c.File.Old = w.files[c.File.Path] })
}

func (w *world) Apply(c Change) error {
	return w.do("apply "+c.File.Path, func() { w.files[c.File.Path] = c.File.New })
}

func (w *world) Revert(c Change) error {
	return w.do("revert "+c.File.Path, func() { w.files[c.File.Path] = c.File.Old })
}

// book is the world's journal.
type book struct{ w *world }

func (b book) Append(id string, record []byte) error {
	return b.w.do("append "+id, func() {
		if b.w.records[id] == nil {
			b.w.ids = append(b.w.ids, id)
		}
		b.w.records[id] = record
	})
}

func (b book) Done(id string) error {
	return b.w.do("done "+id, func() {
		delete(b.w.records, id)
		b.w.ids = slices.DeleteFunc(b.w.ids, func(other string) bool { return other == id })
	})
}

func (w *world) open() [][]byte {
	var out [][]byte
	for _, id := range w.ids {
		out = append(out, w.records[id])
	}
	return out
}

func (w *world) executor() *Executor {
	return NewExecutor(map[Class]Handler{File: w, Freeze: w}, book{w})
}

// failAt lets the calls named come out as they are mapped, once each.
func (w *world) failAt(outcomes map[string]outcome) {
	w.step = func(call string) outcome {
		o := outcomes[call]
		delete(outcomes, call)
		return o
	}
}

// run calls f and returns its error, and true when f did not return.
func run(f func() error) (err error, crashed bool) {
	done := make(chan struct{})
	crashed = true
	go func() {
		defer close(done)
		err = f()
		crashed = false
	}()
	<-done
	return err, crashed
}

const boot = "boot-1"

func writes(id string, names ...string) *Operation {
	op := &Operation{ID: id, Kind: "resize", Instance: "db", BootID: boot}
	for _, n := range names {
		op.Changes = append(op.Changes, Change{Class: File, File: &FileChange{Path: n, New: id + " " + n}})
	}
	return op
}
