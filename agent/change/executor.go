package change

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrOpen is wrapped when an operation could not be brought to an end and its
// record is, or may be, still open in the journal: something may be applied,
// and Undo has to be called again. Recover does so at the next start.
var ErrOpen = errors.New("operation is still open")

// Journal keeps the operations that are not yet undone. Both methods have done
// their work durably when they return nil.
type Journal interface {
	// Append records data under id, replacing what is open under it.
	Append(id string, record []byte) error
	// Done closes the record; an id that is not open is no error.
	Done(id string) error
}

// Executor applies and undoes operations. Use NewExecutor.
type Executor struct {
	handlers map[Class]Handler
	journal  Journal

	mu   sync.Mutex
	held map[string]*holding
}

// holding is an operation whose record is open, as far as is known here.
type holding struct {
	op *Operation
	// rebooted says that op was applied under another boot.
	rebooted bool
	// settled says that the operation is wholly applied or wholly undone as
	// it should be, and that only its record could not be closed, for err.
	settled bool
	err     error
}

// NewExecutor returns an executor with one handler a class. It keeps both
// arguments and calls nothing yet.
func NewExecutor(handlers map[Class]Handler, j Journal) *Executor {
	return &Executor{handlers: handlers, journal: j, held: map[string]*holding{}}
}

// Prepare checks that op can be applied now and fills the pre-images in
// op.Changes. It alters nothing, so printing op.Changes afterwards is a dry
// run. Apply does the same again.
func (e *Executor) Prepare(op *Operation) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.prepare(op)
}

// Apply prepares op, journals it and applies its changes in order, each read
// back by its handler. The pre-images in op.Changes are filled on return. When
// a change fails or ctx ends, what was done is reverted and the error says both
// what failed and what became of the revert; with ErrOpen not everything could
// be reverted.
//
// With keep the record stays open until Undo, and op is undone by Recover if
// this process ends before; without it the record is closed once everything
// was applied. An error that wraps ErrOpen then may also mean that op is
// applied and only its record could not be closed: it stays applied while this
// process lives, and Recover undoes it in the next one unless a later call of
// Apply or Undo got the record closed.
//
// op is not kept.
func (e *Executor) Apply(ctx context.Context, op *Operation, keep bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.prepare(op); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("apply %q, nothing was changed: %w", op.ID, err)
	}
	h := &holding{op: op}
	if err := e.record(h); err != nil {
		return fmt.Errorf("apply %q, nothing was changed: %w", op.ID, err)
	}
	for i := range h.op.Changes {
		err := ctx.Err()
		tried := i
		if err == nil {
			err = e.call("apply", h.op.Changes[i], Handler.Apply)
			tried = i + 1
		}
		if err != nil {
			if rerr := e.revert(h, tried); rerr != nil {
				return fmt.Errorf("apply %q: %w; and then: %w", op.ID, err, rerr)
			}
			return fmt.Errorf("apply %q, all of it was undone: %w", op.ID, err)
		}
	}
	if keep {
		return nil
	}
	return e.close(h)
}

// Undo reverts op in reverse order, each change verified by its handler, and
// closes its record. A change that cannot be reverted does not stop the
// others; the errors are joined and wrap ErrOpen. Undo is idempotent.
//
// For an operation applied with keep, the pre-images noted at Apply are used,
// not those in op. One that is not open here, such as a placement closed long
// ago, is journalled again first, so that a crash leaves no half of it.
func (e *Executor) Undo(op *Operation) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.held[op.ID]
	if h == nil {
		if err := e.check(op); err != nil {
			return err
		}
		h = &holding{op: op}
	} else if !h.settled {
		return e.revert(h, len(h.op.Changes))
	}
	// What is not open, or settled, may have no record.
	if err := e.record(h); err != nil {
		return fmt.Errorf("undo %q, nothing was changed: %w", op.ID, err)
	}
	return e.revert(h, len(h.op.Changes))
}

// prepare fills the pre-images of op. The caller holds mu.
func (e *Executor) prepare(op *Operation) error {
	if err := e.check(op); err != nil {
		return err
	}
	for i := range op.Changes {
		c := &op.Changes[i]
		err := e.call("prepare", *c, func(h Handler, _ Change) error { return h.Prepare(c) })
		if err != nil {
			return fmt.Errorf("prepare %q: %w", op.ID, err)
		}
	}
	return nil
}

// check refuses an operation that is malformed or in the way of another one.
func (e *Executor) check(op *Operation) error {
	if err := op.check(); err != nil {
		return err
	}
	e.settle()
	if e.held[op.ID] != nil {
		return fmt.Errorf("operation %q is open already: undo it first", op.ID)
	}
	taken := map[string]*holding{}
	for _, h := range e.held {
		for _, c := range h.op.Changes {
			taken[c.target()] = h
		}
	}
	for _, c := range op.Changes {
		if e.handlers[c.Class] == nil {
			return fmt.Errorf("operation %q: no handler for class %q", op.ID, c.Class)
		}
		h := taken[c.target()]
		if h == nil {
			continue
		}
		if h.settled {
			return fmt.Errorf("%s: operation %q cannot be closed in the journal: %w", c.target(), h.op.ID, h.err)
		}
		return fmt.Errorf("%s is held by operation %q (%s on %q) until that is undone", c.target(), h.op.ID, h.op.Kind, h.op.Instance)
	}
	return nil
}

// record journals h with a copy of its operation and holds it.
func (e *Executor) record(h *holding) error {
	op, data, err := h.op.clone()
	if err != nil {
		return err
	}
	h.op, h.settled, h.err = op, false, nil
	e.held[op.ID] = h
	if err := e.journal.Append(op.ID, data); err != nil {
		h.settled, h.err = true, err
		return fmt.Errorf("write to journal: %w", err)
	}
	return nil
}

// revert undoes the first n changes of h, last one first, and closes it.
func (e *Executor) revert(h *holding, n int) error {
	var errs []error
	for i := n - 1; i >= 0; i-- {
		if h.rebooted && !h.op.Changes[i].Class.survivesReboot() {
			continue
		}
		if err := e.call("revert", h.op.Changes[i], Handler.Revert); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("undo %q: %w: %w", h.op.ID, ErrOpen, errors.Join(errs...))
	}
	return e.close(h)
}

// close closes the record of an operation that is as it should be.
func (e *Executor) close(h *holding) error {
	h.settled = true
	if h.err = e.journal.Done(h.op.ID); h.err != nil {
		return fmt.Errorf("close %q in journal: %w: %w", h.op.ID, ErrOpen, h.err)
	}
	delete(e.held, h.op.ID)
	return nil
}

// settle tries again to close what could not be closed before.
func (e *Executor) settle() {
	for _, h := range e.held {
		if h.settled {
			// The error is kept in h and told to whom it concerns.
			_ = e.close(h)
		}
	}
}

// call has the handler of c do one step. A panic becomes an error: the
// executor's promise to undo must not depend on the handlers being right.
func (e *Executor) call(step string, c Change, do func(Handler, Change) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
		if err != nil {
			err = fmt.Errorf("%s %s: %w", step, c.target(), err)
		}
	}()
	h := e.handlers[c.Class]
	if h == nil {
		return fmt.Errorf("no handler for class %q", c.Class)
	}
	return do(h, c)
}
