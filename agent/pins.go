package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/numa"
)

// pinsFile names the cgroups that this node's agents have pinned and not given
// back, for Uninstall. What is in force is never derived from it.
const pinsFile = "pins.json"

// maxPins bounds the file.
const maxPins = 1024

// pin is one cgroup that was pinned.
type pin struct {
	Instance string       `json:"instance"`
	Cgroup   state.Cgroup `json:"cgroup"`
	// BootID is that of the boot in which the inode numbers mean something.
	BootID string    `json:"bootId"`
	Since  time.Time `json:"since"`
	Files  []pinFile `json:"files"`
}

// pinFile is one list of a cpuset that was pinned.
type pinFile struct {
	Path     string `json:"path"`
	CgroupID uint64 `json:"cgroupId"`
	// Old was there before the first pin.
	Old string `json:"old"`
	New string `json:"new"`
	// Prior is the list of the pin before, which is still there when writing
	// New failed.
	Prior string `json:"prior,omitempty"`
}

// ours says whether the list that the file holds is one an agent wrote.
func (f *pinFile) ours(now string) bool {
	return sameCPUs(now, f.New) || f.Prior != "" && sameCPUs(now, f.Prior)
}

// exists says whether the cgroup is there still, and not another of its name.
func (f *pinFile) exists() bool {
	fi, err := os.Lstat(filepath.Dir(f.Path))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Ino == f.CgroupID
}

// read returns the list that the file holds.
func (f *pinFile) read() (string, error) {
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return "", fmt.Errorf("read cpuset: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// sameCPUs says whether two kernel lists name the same CPUs or nodes.
func sameCPUs(a, b string) bool {
	l, errA := numa.ParseCPUSet(a)
	m, errB := numa.ParseCPUSet(b)
	return errA == nil && errB == nil && l.Equal(m)
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

func (a *Agent) writePins(pins []pin) error {
	b, err := json.Marshal(pins)
	if err != nil {
		return fmt.Errorf("encode pins: %w", err)
	}
	return writeDurably(filepath.Join(a.cfg.StateDir, pinsFile), b)
}

// notePin records, before they are written, the lists that an instance's cgroup
// is to be pinned to. The caller holds settings.
func (a *Agent) notePin(in *state.Instance, files []change.FileChange) error {
	all, err := readPins(a.cfg.StateDir)
	if err != nil {
		return err
	}
	pins := slices.DeleteFunc(all, func(p pin) bool {
		return p.BootID != a.bootID || !slices.ContainsFunc(p.Files, func(f pinFile) bool { return f.exists() })
	})
	i := slices.IndexFunc(pins, func(p pin) bool { return isPinOf(&p, in) })
	if i < 0 {
		if len(pins) >= maxPins {
			return fmt.Errorf("%s names %d cgroups that are pinned, its most: give some back first", filepath.Join(a.cfg.StateDir, pinsFile), len(pins))
		}
		i, pins = len(pins), append(pins, pin{Instance: in.ID, Cgroup: in.Cgroup, BootID: a.bootID, Since: time.Now()})
	}
	noted := false
	for _, c := range files {
		if name := filepath.Base(c.Path); name != "cpuset.cpus" && name != "cpuset.mems" {
			continue
		}
		if err := pins[i].note(c); err != nil {
			return err
		}
		noted = true
	}
	if !noted {
		return nil
	}
	return a.writePins(pins)
}

// note adds one list to be written. Where the last one of ours is in force, what
// was there before it stays the value to give back.
func (p *pin) note(c change.FileChange) error {
	f := pinFile{Path: c.Path, CgroupID: c.CgroupID, New: c.New}
	now, err := f.read()
	if err != nil {
		return err
	}
	f.Old = now
	i := slices.IndexFunc(p.Files, func(o pinFile) bool { return o.Path == f.Path && o.CgroupID == f.CgroupID })
	if i < 0 {
		p.Files = append(p.Files, f)
		return nil
	}
	if p.Files[i].ours(now) {
		f.Old, f.Prior = p.Files[i].Old, now
	}
	p.Files[i] = f
	return nil
}

// forgetPin drops the record of a cgroup that was given back. The caller holds
// settings.
func (a *Agent) forgetPin(in *state.Instance) error {
	pins, err := readPins(a.cfg.StateDir)
	if err != nil {
		return err
	}
	n := len(pins)
	pins = slices.DeleteFunc(pins, func(p pin) bool { return isPinOf(&p, in) })
	if len(pins) == n {
		return nil
	}
	return a.writePins(pins)
}

func isPinOf(p *pin, in *state.Instance) bool {
	return p.Cgroup.ID == in.Cgroup.ID && p.Cgroup.Path == in.Cgroup.Path
}
