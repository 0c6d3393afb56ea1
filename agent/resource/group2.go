package resource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mooring-dev/mooring/agent/state"
)

// memoryKinds are the parts of memory.stat that are kept, by its names.
func memoryKinds() []string {
	return []string{
		"anon", "file", "shmem", "file_mapped", "file_dirty", "file_writeback",
		"slab_reclaimable", "slab_unreclaimable", "kernel", "sock",
	}
}

// memoryEvents are the lines of memory.events that are kept.
func memoryEvents() []string { return []string{"low", "high", "max", "oom", "oom_kill"} }

// group2 reads a cgroup of version 2.
func (r *Reader) group2(dir string) (*state.GroupUsage, error) {
	g := &state.GroupUsage{MemoryKinds: map[string]int64{}, MemoryEvents: map[string]int64{}}
	var errs []error
	note := func(err error) {
		if err != nil && !absent(err) { // a controller that is not enabled
			errs = append(errs, err)
		}
	}
	note(readFlat(filepath.Join(dir, "cpu.stat"), func(key []byte, n int64) { cpuKey(&g.CPU, key, n) }))
	note(memory2(dir, g))
	var err error
	g.Pressure, err = readPressure(dir+"/", ".pressure")
	note(err)
	data, err := os.ReadFile(filepath.Join(dir, "io.stat"))
	note(err)
	g.Disks, err = parseIOStat(data, r.device)
	note(err)
	g.TaskLimit, err = readNumber(filepath.Join(dir, "pids.max"))
	note(err)
	return g, errors.Join(errs...)
}

// cpuKey takes one line of version 2's cpu.stat.
func cpuKey(c *state.CPUUsage, key []byte, n int64) {
	switch string(key) {
	case "usage_usec":
		c.Usage = microseconds(n)
	case "user_usec":
		c.User = microseconds(n)
	case "system_usec":
		c.System = microseconds(n)
	case "nr_periods":
		c.Periods = n
	case "nr_throttled":
		c.ThrottledPeriods = n
	case "throttled_usec":
		c.Throttled = microseconds(n)
	}
}

func memory2(dir string, g *state.GroupUsage) error {
	var err error
	if g.MemoryBytes, err = readNumber(filepath.Join(dir, "memory.current")); err != nil {
		return err
	}
	var inactive int64
	kinds := memoryKinds()
	err = readFlat(filepath.Join(dir, "memory.stat"), func(key []byte, n int64) {
		switch k := string(key); {
		case k == "inactive_file":
			inactive = n
		case k == "pgmajfault":
			g.MajorFaults = n
		case slices.Contains(kinds, k):
			g.MemoryKinds[k] = n
		}
	})
	if err != nil {
		return err
	}
	// The kubelet and cAdvisor have the same notion of a working set.
	g.WorkingSetBytes = max(0, g.MemoryBytes-inactive)
	events := memoryEvents()
	err = readFlat(filepath.Join(dir, "memory.events"), func(key []byte, n int64) {
		if slices.Contains(events, string(key)) {
			g.MemoryEvents[string(key)] = n
		}
	})
	if err != nil {
		return err
	}
	g.SwapBytes, err = readNumber(filepath.Join(dir, "memory.swap.current"))
	return err
}

// parseIOStat reads "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0". A
// device on which nothing was done may stand there with no figures
// (block/blk-cgroup.c), and further items may follow.
func parseIOStat(data []byte, device func(number string) string) ([]state.DiskUsage, error) {
	var disks []state.DiskUsage
	err := lines(data, func(f [][]byte) error {
		d := state.DiskUsage{Device: string(f[0])}
		if len(f) == 1 {
			return nil
		}
		if !bytes.Contains(f[0], []byte(":")) {
			return errors.New("no device number")
		}
		for _, item := range f[1:] {
			key, value, _ := bytes.Cut(item, []byte("="))
			var into *int64
			switch string(key) {
			case "rbytes":
				into = &d.ReadBytes
			case "wbytes":
				into = &d.WriteBytes
			case "rios":
				into = &d.Reads
			case "wios":
				into = &d.Writes
			default:
				continue
			}
			n, err := number(value)
			if err != nil {
				return err
			}
			*into = n
		}
		d.Device = device(d.Device)
		disks = append(disks, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read io.stat: %w", err)
	}
	return disks, nil
}
