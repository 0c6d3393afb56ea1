package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
)

const (
	// freezeTimeout is how long Files waits for a cgroup to become frozen or
	// thawed. A task in uninterruptible sleep delays it.
	freezeTimeout = 2 * time.Second
	freezePoll    = 5 * time.Millisecond
)

// PlanFreeze returns the write that stops all processes of the cgroup and of
// those below it. Version 2 needs Linux 5.2.
func (g *Group) PlanFreeze() (change.FileChange, error) {
	at, err := g.changeable("freezer")
	if err != nil {
		return change.FileChange{}, fmt.Errorf("freeze cgroup %q: %w", g.Path(), err)
	}
	if g.fs.version == 1 {
		return at.file("freezer.state", "FROZEN"), nil
	}
	return at.file("cgroup.freeze", "1"), nil
}

// awaitFreezer waits until the cgroup has come to the state that was written,
// given as the value of the control file. It blocks for up to freezeTimeout.
func awaitFreezer(dir, file, value string) error {
	deadline := time.Now().Add(freezeTimeout)
	for {
		state, done, err := freezerState(dir, file, value)
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is %q after %s and the cgroup still says %q: %s",
				file, value, freezeTimeout, state, freezerHint(file, value))
		}
		time.Sleep(freezePoll)
	}
}

// freezerState reads what the kernel has made of value: on version 2 from
// cgroup.events, on version 1 from the file itself, which reads FREEZING in
// between.
func freezerState(dir, file, value string) (state string, done bool, err error) {
	if file == "freezer.state" {
		state, err = readValue(filepath.Join(dir, file))
		return state, state == value, err
	}
	keys, err := readKeys(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return "", false, err
	}
	frozen, ok := keys["frozen"]
	if !ok {
		return "", false, errors.New("cgroup.events does not say frozen: the freezer needs Linux 5.2")
	}
	state = fmt.Sprintf("frozen %d", frozen)
	return state, state == "frozen "+value, nil
}

func freezerHint(file, value string) string {
	if isFrozenValue(file, value) {
		return "a task does not stop, which disk or NFS waits can cause"
	}
	return "a cgroup above it may be frozen too"
}

func isFrozenValue(file, value string) bool {
	return file == "cgroup.freeze" && value == "1" || file == "freezer.state" && value == "FROZEN"
}

// frozenAlready refuses a freeze of what somebody else has frozen: undoing
// ours would leave it so, and undoing theirs is not ours to do.
func frozenAlready(file, now string) error {
	if file == "freezer.state" && now != "THAWED" || file == "cgroup.freeze" && now != "0" {
		return fmt.Errorf("%s is %q already: somebody else has frozen this cgroup", file, now)
	}
	return nil
}

func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
