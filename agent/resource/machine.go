package resource

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"

	"github.com/mooring-dev/mooring/agent/state"
)

// sectorBytes is the unit of /proc/diskstats, whatever the device's own.
const sectorBytes = 512

// vmCounts are the counters of /proc/vmstat that are kept.
func vmCounts() []string {
	return []string{"pswpin", "pswpout", "pgmajfault", "oom_kill", "allocstall_normal", "allocstall_movable"}
}

// Machine reads the node. With an error it returns what could be read.
func (r *Reader) Machine() (*state.Machine, error) {
	m := &state.Machine{}
	var errs []error
	for _, part := range []struct {
		name string
		read func(*state.Machine) error
	}{
		{"stat", r.cpus}, {"loadavg", r.load}, {"meminfo", r.memory}, {"vmstat", r.vmstat},
		{"diskstats", r.diskstats}, {"softnet_stat", r.softnet}, {"nf_conntrack", r.conntrack}, {"adjtimex", clock},
	} {
		if err := part.read(m); err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", part.name, err))
		}
	}
	var err error
	m.Pressure, err = readPressure(filepath.Join(r.root, "pressure")+"/", "")
	return m, errors.Join(append(errs, err)...)
}

func (r *Reader) cpus(m *state.Machine) error {
	s, err := r.proc.Stat()
	if err != nil {
		return err
	}
	m.ContextSwitches = s.ContextSwitches
	m.Running, m.Blocked = int(s.ProcessesRunning), int(s.ProcessesBlocked)
	m.BootTime = time.Unix(int64(s.BootTime), 0)
	for cpu, c := range s.CPU {
		m.CPUs = append(m.CPUs, state.CPUModes{CPU: int(cpu), Modes: modes(c)})
	}
	slices.SortFunc(m.CPUs, func(a, b state.CPUModes) int { return a.CPU - b.CPU })
	return nil
}

// modes names a CPU's times as node_exporter does. The guest's are part of user
// and nice already, and are left out as they are there.
func modes(c procfs.CPUStat) map[string]time.Duration {
	out := make(map[string]time.Duration, 8)
	for name, s := range map[string]float64{
		"user": c.User, "nice": c.Nice, "system": c.System, "idle": c.Idle, "iowait": c.Iowait,
		"irq": c.IRQ, "softirq": c.SoftIRQ, "steal": c.Steal,
	} {
		out[name] = time.Duration(s * float64(time.Second))
	}
	return out
}

func (r *Reader) load(m *state.Machine) error {
	l, err := r.proc.LoadAvg()
	if err != nil {
		return err
	}
	m.Load = [3]float64{l.Load1, l.Load5, l.Load15}
	return nil
}

func (r *Reader) memory(m *state.Machine) error {
	i, err := r.proc.Meminfo()
	if err != nil {
		return err
	}
	m.Memory = map[string]int64{}
	for name, bytes := range map[string]*uint64{
		"MemTotal": i.MemTotalBytes, "MemFree": i.MemFreeBytes, "MemAvailable": i.MemAvailableBytes,
		"Buffers": i.BuffersBytes, "Cached": i.CachedBytes, "Slab": i.SlabBytes,
		"Dirty": i.DirtyBytes, "Writeback": i.WritebackBytes,
		"SwapTotal": i.SwapTotalBytes, "SwapFree": i.SwapFreeBytes, "Hugetlb": i.HugetlbBytes,
	} {
		if bytes != nil {
			m.Memory[name] = int64(*bytes)
		}
	}
	return nil
}

func (r *Reader) vmstat(m *state.Machine) error {
	m.Counts = map[string]int64{}
	keep := vmCounts()
	return readFlat(filepath.Join(r.root, "vmstat"), func(key []byte, n int64) {
		if slices.Contains(keep, string(key)) {
			m.Counts[string(key)] = n
		}
	})
}

// diskstats reads the devices; those that never did anything, such as the loop
// devices a kernel makes in advance, are left out.
func (r *Reader) diskstats(m *state.Machine) error {
	all, err := r.disks.ProcDiskstats()
	if err != nil {
		return err
	}
	clear(r.devices)
	for _, d := range all {
		r.devices[fmt.Sprintf("%d:%d", d.MajorNumber, d.MinorNumber)] = d.DeviceName
		if d.ReadIOs+d.WriteIOs > 0 {
			m.Disks = append(m.Disks, diskStats(d))
		}
	}
	return nil
}

func diskStats(d blockdevice.Diskstats) state.DiskStats {
	ms := func(n uint64) time.Duration { return time.Duration(n) * time.Millisecond }
	return state.DiskStats{
		Device: d.DeviceName,
		Reads:  d.ReadIOs, ReadBytes: d.ReadSectors * sectorBytes, ReadTime: ms(d.ReadTicks),
		Writes: d.WriteIOs, WrittenBytes: d.WriteSectors * sectorBytes, WriteTime: ms(d.WriteTicks),
		InFlight: d.IOsInProgress, Busy: ms(d.IOsTotalTicks), WeightedBusy: ms(d.WeightedIOTicks),
		Flushes: d.FlushRequestsCompleted, FlushTime: ms(d.TimeSpentFlushing),
		FlushesKnown: d.IoStatsCount >= 20, // Linux 5.5
	}
}

func (r *Reader) softnet(m *state.Machine) error {
	all, err := r.proc.NetSoftnetStat()
	if err != nil {
		return err
	}
	for i, s := range all {
		// The library numbers the lines where the kernel does not (before 5.10).
		cpu := i
		if s.Index > 0 {
			cpu = int(s.Index)
		}
		m.Backlogs = append(m.Backlogs, state.Backlog{CPU: cpu, Dropped: uint64(s.Dropped), Squeezed: uint64(s.TimeSqueezed)})
	}
	return nil
}

// conntrack is nil while the kernel does not track connections.
func (r *Reader) conntrack(m *state.Machine) error {
	at := filepath.Join(r.root, "sys/net/netfilter")
	entries, err := readNumber(filepath.Join(at, "nf_conntrack_count"))
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	limit, err := readNumber(filepath.Join(at, "nf_conntrack_max"))
	if err != nil {
		return err
	}
	m.Conntrack = &state.Conntrack{Entries: entries, Limit: limit}
	return nil
}

// clock asks the kernel's clock discipline, and sets nothing.
func clock(m *state.Machine) error {
	var t unix.Timex
	status, err := unix.Adjtimex(&t)
	if err != nil {
		return err
	}
	unit := time.Microsecond
	if t.Status&unix.STA_NANO != 0 {
		unit = time.Nanosecond
	}
	m.Clock = &state.Clock{
		Offset:       time.Duration(t.Offset) * unit,
		MaxError:     time.Duration(t.Maxerror) * time.Microsecond,
		Synchronised: status != unix.TIME_ERROR,
	}
	return nil
}
