package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// pinsFile names the cgroups that this node's agents have pinned and not given
// back, for Uninstall. What is in force is never derived from it.
const pinsFile = "pins.json"

// maxPins bounds the file: containers that are gone leave their records behind
// until then.
const maxPins = 1024

// pin is one cgroup that was pinned.
type pin struct {
	Instance string       `json:"instance"`
	Cgroup   state.Cgroup `json:"cgroup"`
	Since    time.Time    `json:"since"`
}

// readPins returns the records of a state directory, the oldest first.
func readPins(dir string) ([]pin, error) {
	b, err := os.ReadFile(filepath.Join(dir, pinsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	var pins []pin
	if err := json.Unmarshal(b, &pins); err != nil {
		return nil, fmt.Errorf("decode %s: %w; remove it, and pins older than now are not given back by uninstall", filepath.Join(dir, pinsFile), err)
	}
	return pins, nil
}

// notePin records before the write that an instance's cgroup is to be pinned,
// or after it that it was given back. The caller holds settings.
func (a *Agent) notePin(in *state.Instance, pinned bool) error {
	pins, err := readPins(a.cfg.StateDir)
	if err != nil {
		return err
	}
	kept := pins[:0]
	for _, p := range pins {
		if p.Cgroup.ID != in.Cgroup.ID || p.Cgroup.Path != in.Cgroup.Path {
			kept = append(kept, p)
		} else if pinned {
			return nil
		}
	}
	if !pinned && len(kept) == len(pins) {
		return nil
	}
	if pinned {
		kept = append(kept, pin{in.ID, in.Cgroup, time.Now()})
	}
	b, err := json.Marshal(kept[max(0, len(kept)-maxPins):])
	if err != nil {
		return fmt.Errorf("encode pins: %w", err)
	}
	return writeDurably(filepath.Join(a.cfg.StateDir, pinsFile), b)
}
