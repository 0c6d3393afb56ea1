package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/keeper"
	"github.com/mooring-dev/mooring/agent/state"
)

// meta is what the agent keeps of a fault in the journal beside its changes.
type meta struct {
	Fault  state.Fault `json:"fault"`
	Asked  asked       `json:"asked,omitzero"`
	Before baseline    `json:"before,omitempty"`
}

func (f *fault) meta() (json.RawMessage, error) {
	return json.Marshal(meta{Fault: f.Fault, Asked: f.asked, Before: f.before})
}

// isFault tells a fault's operation from a placement or size.
func isFault(op *change.Operation) bool {
	var m meta
	return json.Unmarshal(op.Meta, &m) == nil && m.Fault.UID != ""
}

// remember puts a fault that was undone at start into the snapshot. The caller
// holds faultMu.
func (a *Agent) remember(op *change.Operation, reason string, err error) {
	var m meta
	if json.Unmarshal(op.Meta, &m) != nil {
		return // recover has asked isFault
	}
	f := &fault{Fault: m.Fault, asked: m.Asked, before: m.Before, op: op}
	f.Reason = reason
	a.faults[op.ID] = f
	if err != nil {
		f.Phase, f.Err = state.FaultStuck, err.Error()
		f.timer = time.AfterFunc(retryUndo, func() { a.end(op.ID, reason) })
		return
	}
	f.Phase, f.Ended = state.FaultEnded, time.Now()
	if err := keeper.Disarm(a.keeperDir(), op.ID); err != nil {
		a.log.Warn("keeper not disarmed", "component", "chaos", "uid", op.ID, "err", err)
	}
	a.verify(f)
}

// rememberAll puts what recovery undid of the records, and what it could not,
// into the snapshot and the history. It takes faultMu: the retries of what came
// before may already be under way.
func (a *Agent) rememberAll(records [][]byte, undone []*change.Operation) {
	if len(records) == 0 {
		return
	}
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	for _, op := range undone {
		a.logUndone(op)
		a.remember(op, "recovered", nil)
	}
	a.rememberStuck(records, undone)
	a.keepHistory()
}

// rememberStuck keeps trying to undo what recovery could not. The caller holds
// faultMu.
func (a *Agent) rememberStuck(records [][]byte, undone []*change.Operation) {
	for _, r := range records {
		op, err := change.Decode(r)
		if err != nil {
			a.log.Error("journal record not understood", "component", "journal", "err", err)
			continue
		}
		if !slices.ContainsFunc(undone, func(u *change.Operation) bool { return u.ID == op.ID }) {
			a.remember(op, "recovered", errors.New("undo at start did not succeed"))
		}
	}
}

// forget drops the oldest ended faults beyond keepEnded. The caller holds
// faultMu.
func (a *Agent) forget() {
	ended := a.ended()
	for i := 0; i+keepEnded < len(ended); i++ {
		delete(a.faults, ended[i].UID)
	}
}

// ended lists the faults that are over, in the order in which they ended. The
// caller holds faultMu.
func (a *Agent) ended() []*fault {
	var ended []*fault
	for _, f := range a.faults {
		if f.Phase == state.FaultEnded {
			ended = append(ended, f)
		}
	}
	slices.SortFunc(ended, func(x, y *fault) int { return x.Ended.Compare(y.Ended) })
	return ended
}

// past is a fault that is over, as it is kept across restarts.
type past struct {
	Fault state.Fault `json:"fault"`
	Asked asked       `json:"asked,omitzero"`
}

func (a *Agent) historyFile() string { return filepath.Join(a.cfg.StateDir, "faults.json") }

// keepHistory writes down which faults are over, and which are not. The next
// agent must know: a controller that repeats a request would otherwise begin a
// fault again that ended with this one. Those in force are listed from their
// beginning on, since this process may be killed between the end of one, when the
// journal lets go of it, and the writing down of that. The caller holds faultMu.
func (a *Agent) keepHistory(beginning ...*fault) {
	a.forget()
	var all []past
	for _, f := range a.ended() {
		all = append(all, past{f.Fault, f.asked})
	}
	for _, uid := range slices.Sorted(maps.Keys(a.faults)) {
		if f := a.faults[uid]; f.Phase != state.FaultEnded {
			beginning = append(beginning, f)
		}
	}
	for _, f := range beginning {
		all = append(all, past{f.Fault, f.asked})
	}
	data, err := json.Marshal(all)
	if err == nil {
		err = writeDurably(a.historyFile(), data)
	}
	if err != nil {
		a.log.Warn("ended faults not kept for the next agent", "component", "chaos", "err", err)
	}
}

// loadHistory is for New, before anything is recovered. A file that cannot be
// read costs the record of what was, and nothing else.
func (a *Agent) loadHistory() error {
	data, err := os.ReadFile(a.historyFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var all []past
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return fmt.Errorf("read ended faults: %w", err)
	}
	for _, p := range all {
		f := &fault{Fault: p.Fault, asked: p.Asked}
		if f.Phase != state.FaultEnded {
			// What the journal still has of it takes its place.
			f.Phase, f.Reason, f.Ended, f.Verified = state.FaultEnded, "recovered", time.Now(), false
			f.Err = "the agent was killed while this fault began or ended: it is over, and nobody compared how everything reads since"
		}
		if validUID(f.UID) == nil {
			a.faults[f.UID] = f
		}
	}
	return nil
}
