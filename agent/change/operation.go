package change

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
)

// Operation is a list of changes that is applied and undone as one.
type Operation struct {
	// ID is unique among operations that are open, on this node and in the
	// journal.
	ID string `json:"id"`
	// Kind and Instance say in messages and logs what is done to whom.
	Kind     string `json:"kind"`
	Instance string `json:"instance"`
	// Changes are applied in this order and reverted in the reverse one.
	Changes []Change `json:"changes"`
	// Deadline is CLOCK_BOOTTIME at which the caller will undo the
	// operation; 0 means that there is none. The executor has no clock.
	Deadline time.Duration `json:"deadline,omitempty"`
	// BootID is the kernel's /proc/sys/kernel/random/boot_id at Apply.
	BootID string `json:"bootId"`
	// Meta belongs to the caller.
	Meta json.RawMessage `json:"meta,omitempty"`
}

// Encode returns the operation in the form in which it is journalled.
func (op *Operation) Encode() ([]byte, error) {
	b, err := json.Marshal(op)
	if err != nil {
		return nil, fmt.Errorf("encode operation %q: %w", op.ID, err)
	}
	return b, nil
}

// Decode reads what Encode wrote. A record that could not have been applied by
// this version is an error: it is better left for a person than half undone.
func Decode(data []byte) (*Operation, error) {
	op := new(Operation)
	if err := json.Unmarshal(data, op); err != nil {
		return nil, fmt.Errorf("decode operation: %w", err)
	}
	if err := op.check(); err != nil {
		return nil, fmt.Errorf("decode operation %q: %w", op.ID, err)
	}
	return op, nil
}

// check returns what is wrong with the form of the operation.
func (op *Operation) check() error {
	if op.ID == "" {
		return errors.New("operation without id")
	}
	if op.BootID == "" {
		return errors.New("operation without boot id: it could not be told from one of another boot")
	}
	if len(op.Changes) == 0 {
		return errors.New("operation without changes")
	}
	for i, c := range op.Changes {
		if err := c.check(); err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
	}
	return nil
}

// clone returns a copy that shares nothing with op, and its encoded form. It is
// an error when the form does not hold the changes exactly, as with a value that
// is not UTF-8: such a record would put back something else.
func (op *Operation) clone() (*Operation, []byte, error) {
	b, err := op.Encode()
	if err != nil {
		return nil, nil, err
	}
	c, err := Decode(b)
	if err != nil {
		return nil, nil, err
	}
	if c.ID != op.ID || !reflect.DeepEqual(c.Changes, op.Changes) {
		return nil, nil, fmt.Errorf("operation %q cannot be encoded without loss", op.ID)
	}
	return c, b, nil
}

// survivesReboot says whether what a change of this class did is still there
// after a reboot. Control files of cgroups, frozen processes, qdiscs and BPF
// maps are state of the running kernel; an unknown class is not given up.
func (c Class) survivesReboot() bool {
	switch c {
	case File, Freeze, Net, IO:
		return false
	}
	return true
}
