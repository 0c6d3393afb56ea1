package change

import (
	"errors"
	"fmt"
	"slices"
)

// Recover undoes the operations that records hold, newest first, as an earlier
// process left them. It is to be called once, with the open records of the
// journal in order, before anything else is applied. bootID is that of the
// running kernel: of an operation of another boot only what survives a reboot
// is reverted.
//
// It returns the operations of which nothing is left, and the errors of the
// others joined. Those stay open in the journal and here, and Undo may be
// called for them again. A record that cannot be read is left alone.
func (e *Executor) Recover(records [][]byte, bootID string) (undone []*Operation, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for i, data := range slices.Backward(records) {
		op, err := Decode(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("record %d of the journal, left alone: %w", i, err))
			continue
		}
		h := &holding{op: op, rebooted: op.BootID != bootID}
		e.held[op.ID] = h
		if err := e.revert(h, len(h.op.Changes)); err != nil {
			errs = append(errs, err)
		}
		if h.settled {
			undone = append(undone, op)
		}
	}
	return undone, errors.Join(errs...)
}
