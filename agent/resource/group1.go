package resource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// kinds1 names what version 1's memory.stat has by the names of version 2. All
// are those of the cgroup and the ones below it.
func kinds1() map[string]string {
	return map[string]string{
		"total_rss": "anon", "total_cache": "file", "total_shmem": "shmem", "total_mapped_file": "file_mapped",
		"total_dirty": "file_dirty", "total_writeback": "file_writeback",
	}
}

// group1 reads a cgroup of version 1, whose controllers are in directories of
// their own.
func (r *Reader) group1(dirs Dirs) (*state.GroupUsage, error) {
	g := &state.GroupUsage{MemoryKinds: map[string]int64{}, MemoryEvents: map[string]int64{}}
	var errs []error
	for _, part := range []struct {
		controller string
		read       func(string, *state.GroupUsage) error
	}{{"cpu", cpu1}, {"cpuacct", cpuacct1}, {"memory", memory1}, {"blkio", r.blkio1}, {"pids", pids1}} {
		dir, ok := dirs[part.controller]
		if !ok {
			continue
		}
		if err := part.read(dir, g); err != nil && !absent(err) {
			errs = append(errs, err)
		}
	}
	return g, errors.Join(errs...)
}

func cpu1(dir string, g *state.GroupUsage) error {
	return readFlat(filepath.Join(dir, "cpu.stat"), func(key []byte, n int64) {
		switch string(key) {
		case "nr_periods":
			g.CPU.Periods = n
		case "nr_throttled":
			g.CPU.ThrottledPeriods = n
		case "throttled_time":
			g.CPU.Throttled = time.Duration(n)
		}
	})
}

func cpuacct1(dir string, g *state.GroupUsage) error {
	n, err := readNumber(filepath.Join(dir, "cpuacct.usage"))
	if err != nil {
		return err
	}
	g.CPU.Usage = time.Duration(n)
	return readFlat(filepath.Join(dir, "cpuacct.stat"), func(key []byte, n int64) {
		switch string(key) {
		case "user":
			g.CPU.User = ticks(n)
		case "system":
			g.CPU.System = ticks(n)
		}
	})
}

func memory1(dir string, g *state.GroupUsage) error {
	var err error
	if g.MemoryBytes, err = readNumber(filepath.Join(dir, "memory.usage_in_bytes")); err != nil {
		return err
	}
	kinds := kinds1()
	var inactive int64
	err = readFlat(filepath.Join(dir, "memory.stat"), func(key []byte, n int64) {
		switch k := string(key); k {
		case "total_inactive_file":
			inactive = n
		case "total_pgmajfault":
			g.MajorFaults = n
		case "total_swap":
			g.SwapBytes = n
		default:
			if name, ok := kinds[k]; ok {
				g.MemoryKinds[name] = n
			}
		}
	})
	if err != nil {
		return err
	}
	g.WorkingSetBytes = max(0, g.MemoryBytes-inactive)
	// The counter of meetings with the limit is what version 2 calls "max".
	if g.MemoryEvents["max"], err = readNumber(filepath.Join(dir, "memory.failcnt")); err != nil {
		return err
	}
	// "oom_kill" is there from Linux 4.13 on.
	return readFlat(filepath.Join(dir, "memory.oom_control"), func(key []byte, n int64) {
		if string(key) == "oom_kill" {
			g.MemoryEvents["oom_kill"] = n
		}
	})
}

func pids1(dir string, g *state.GroupUsage) (err error) {
	g.TaskLimit, err = readNumber(filepath.Join(dir, "pids.max"))
	return err
}

// blkio1 reads the counters of the throttling policy, which counts whether it
// throttles or not.
func (r *Reader) blkio1(dir string, g *state.GroupUsage) error {
	disks := map[string]*state.DiskUsage{}
	for _, file := range []struct {
		name   string
		fields func(*state.DiskUsage) (read, write *int64)
	}{
		{"blkio.throttle.io_service_bytes", func(d *state.DiskUsage) (*int64, *int64) { return &d.ReadBytes, &d.WriteBytes }},
		{"blkio.throttle.io_serviced", func(d *state.DiskUsage) (*int64, *int64) { return &d.Reads, &d.Writes }},
	} {
		// The form that counts the cgroups below too came with Linux 5.3.
		data, err := os.ReadFile(filepath.Join(dir, file.name+"_recursive"))
		if absent(err) {
			data, err = os.ReadFile(filepath.Join(dir, file.name))
		}
		if err != nil {
			return err
		}
		if err := parseBlkio(data, disks, &g.Disks, file.fields); err != nil {
			return fmt.Errorf("read %s: %w", file.name, err)
		}
	}
	// Filled by pointer, so the slice is made when all is read.
	for i := range g.Disks {
		g.Disks[i] = *disks[g.Disks[i].Device]
		g.Disks[i].Device = r.device(g.Disks[i].Device)
	}
	return nil
}

// parseBlkio reads "8:0 Read 1", "8:0 Write 2", … and a last line "Total 3". It
// notes each device in order when it first meets it.
func parseBlkio(data []byte, disks map[string]*state.DiskUsage, order *[]state.DiskUsage,
	fields func(*state.DiskUsage) (read, write *int64),
) error {
	return lines(data, func(f [][]byte) error {
		if len(f) != 3 {
			if string(f[0]) == "Total" {
				return nil
			}
			return errors.New("not a device, an operation and a number")
		}
		if !bytes.Contains(f[0], []byte(":")) {
			return errors.New("no device number")
		}
		n, err := number(f[2])
		if err != nil {
			return err
		}
		d := disks[string(f[0])]
		if d == nil {
			d = &state.DiskUsage{Device: string(f[0])}
			disks[d.Device] = d
			*order = append(*order, *d)
		}
		read, write := fields(d)
		switch string(f[1]) {
		case "Read":
			*read = n
		case "Write":
			*write = n
		}
		return nil
	})
}
