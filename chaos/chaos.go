package chaos

import (
	"errors"
	"fmt"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
)

// MaxDuration is the longest that any fault may last. A fault meant to last
// longer is better begun again by somebody who still wants it.
const MaxDuration = time.Hour

// Spec is a fault as it was asked for.
type Spec struct {
	// UID names this fault. A second Spec with the same one is the same wish.
	UID string
	// Kind is the Name of a Kind.
	Kind string
	// Instance is the state.Instance.ID of the target.
	Instance string
	// Params are the parameters of the kind, as text.
	Params map[string]string
	// Duration is how long the fault lasts from the moment it is planned.
	Duration time.Duration
}

// Family is what two faults can be in each other's way with: of two of one
// family on one instance the second is refused.
type Family string

// The families.
const (
	// Net is what happens to the packets of an instance.
	Net Family = "net"
	// IO is what happens to its file operations.
	IO Family = "io"
	// Process is what happens to its processes.
	Process Family = "process"
)

// Kind is one kind of fault.
type Kind struct {
	Name string
	// Help is one sentence.
	Help   string
	Family Family
	// Needs is the name of the state.Capability the node must have.
	Needs string
	// MaxDuration is the longest it may last, at most the constant.
	MaxDuration time.Duration
	Params      []Param
	// plan reads the parameters. What is wrong with them it leaves in p, and
	// the function returned is then not called.
	plan func(p *params) build
}

// build makes the changes for a target that was found fit.
type build func(t Target, deadline time.Duration) []change.Change

// Param is one parameter of a kind.
type Param struct {
	Name string
	// Help says what it does, its unit and its range.
	Help string
	// Default is used when it is not given; it is empty when Required.
	Default  string
	Required bool
	// Example is a valid value.
	Example string
}

// Target is the instance to be hit with what a plan must know about it and
// cannot look up, being pure.
type Target struct {
	Instance state.Instance
	// Freezer is the write that freezes the instance's cgroup, as package
	// cgroup plans it: on version 1 it lies in another hierarchy than the
	// rest. Only faults of family Process need it.
	Freezer change.FileChange
	// Others are the instances of the node, with or without Instance itself.
	Others []state.Instance
}

// Validate checks all of spec that can be checked without knowing the node and
// returns what is wrong with it, joined.
func Validate(spec Spec) error {
	_, _, err := read(spec)
	return err
}

// read finds the kind of spec and reads its parameters.
func read(spec Spec) (Kind, build, error) {
	k, err := find(spec.Kind)
	if err != nil {
		return Kind{}, nil, err
	}
	var errs []error
	if spec.UID == "" {
		errs = append(errs, errors.New("the fault has no uid: give it one, so that it can be stopped"))
	}
	if spec.Instance == "" {
		errs = append(errs, errors.New("no instance is named: a fault hits exactly one"))
	}
	switch {
	case spec.Duration <= 0:
		errs = append(errs, fmt.Errorf("duration %v: a fault must have an end, give a duration above 0 and at most %v", spec.Duration, k.MaxDuration))
	case spec.Duration > k.MaxDuration:
		errs = append(errs, fmt.Errorf("duration %v is too long: %s may last at most %v", spec.Duration, k.Name, k.MaxDuration))
	}
	p := newParams(k, spec.Params)
	b := k.plan(p)
	return k, b, errors.Join(append(errs, p.errs...)...)
}

// Plan returns the changes that make spec happen on t. active are the faults on
// the node, caps tells what the node can do, and now is CLOCK_BOOTTIME, from
// which the duration counts. The error says why the fault cannot be, or must
// not be, and what to do.
func Plan(spec Spec, t Target, active []state.Fault, caps func(string) state.Capability, now time.Duration) ([]change.Change, error) {
	k, b, err := read(spec)
	if err != nil {
		return nil, err
	}
	if spec.Instance != t.Instance.ID {
		return nil, fmt.Errorf("the fault is for instance %q and was planned for %q", spec.Instance, t.Instance.ID)
	}
	if c := caps(k.Needs); !c.OK {
		return nil, fmt.Errorf("%s cannot be done on this node (capability %s): %s", k.Name, k.Needs, c.Detail)
	}
	if err := k.fits(t); err != nil {
		return nil, err
	}
	if err := k.conflicts(t.Instance, active); err != nil {
		return nil, err
	}
	return b(t, now+spec.Duration), nil
}

// conflicts refuses a second fault of one family.
func (k Kind) conflicts(in state.Instance, active []state.Fault) error {
	for _, f := range active {
		if f.Instance != in.ID || f.Phase == state.FaultEnded {
			continue
		}
		other, err := find(f.Kind)
		if err == nil && other.Family != k.Family {
			continue
		}
		if f.Phase == state.FaultStuck {
			return fmt.Errorf("instance %q still has fault %q (%s), whose undo could not be verified: look at it first", in.ID, f.UID, f.Kind)
		}
		return fmt.Errorf("instance %q already has fault %q (%s) until %s: wait for its end or stop it first",
			in.ID, f.UID, f.Kind, f.Deadline.UTC().Format(time.RFC3339))
	}
	return nil
}
