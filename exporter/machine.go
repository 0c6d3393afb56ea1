package exporter

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mooring-dev/mooring/agent/state"
)

// machine is the node as a whole, by the names and labels of node_exporter.
func machine() family {
	columns := append(append(machineCPU(), machineMemory()...), machinePressure()...)
	columns = append(append(columns, machineNetwork()...), machineClock()...)
	disks := diskColumns()
	return family{
		name:    "machine",
		metrics: append(declared(columns), declared(disks)...),
		collect: func(s *scrape) {
			m := s.snap.Machine
			if m == nil {
				return
			}
			send(s, columns, m, nil)
			for i := range m.Disks {
				send(s, disks, &m.Disks[i], []string{m.Disks[i].Device})
			}
		},
	}
}

// untyped is a counter whose name, which is another's, does not say so.
func untyped(name, help string, labels ...string) *metric {
	return declare("untyped", prometheus.UntypedValue, name, help, labels)
}

func machineCPU() []column[*state.Machine] {
	type node = *state.Machine
	load := func(name, minutes string, i int) column[node] {
		return one(gauge(name, "Mean number of tasks that ran or waited, over "+minutes+" (loadavg)."),
			func(m node) float64 { return m.Load[i] })
	}
	return []column[node]{
		{counter("node_cpu_seconds_total", "Time each CPU spent in each mode (/proc/stat).", "cpu", "mode"),
			func(m node, put func(float64, ...string)) {
				for _, c := range m.CPUs {
					for mode, d := range c.Modes {
						put(d.Seconds(), strconv.Itoa(c.CPU), mode)
					}
				}
			}},
		load("node_load1", "one minute", 0), load("node_load5", "five minutes", 1), load("node_load15", "fifteen minutes", 2),
		one(counter("node_context_switches_total", "Context switches (ctxt of /proc/stat)."),
			func(m node) float64 { return float64(m.ContextSwitches) }),
		one(gauge("node_procs_running", "Tasks that run or wait for a CPU."), func(m node) float64 { return float64(m.Running) }),
		one(gauge("node_procs_blocked", "Tasks that wait for a disk."), func(m node) float64 { return float64(m.Blocked) }),
		sinceEpoch(gauge("node_boot_time_seconds", "When the node was booted, in seconds since the epoch."),
			func(m node) time.Time { return m.BootTime }),
	}
}

func machineMemory() []column[*state.Machine] {
	type node = *state.Machine
	var out []column[node]
	for _, name := range []string{"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Slab", "Dirty", "Writeback", "SwapTotal", "SwapFree", "Hugetlb"} {
		out = append(out, column[node]{gauge("node_memory_"+name+"_bytes", name+" of /proc/meminfo."),
			func(m node, put func(float64, ...string)) {
				if n, ok := m.Memory[name]; ok {
					put(float64(n))
				}
			}})
	}
	for _, name := range []string{"pswpin", "pswpout", "pgmajfault", "oom_kill", "allocstall_normal", "allocstall_movable"} {
		out = append(out, column[node]{untyped("node_vmstat_"+name, name+" of /proc/vmstat."),
			func(m node, put func(float64, ...string)) {
				if n, ok := m.Counts[name]; ok {
					put(float64(n))
				}
			}})
	}
	return out
}

func machinePressure() []column[*state.Machine] {
	type node = *state.Machine
	stall := func(name, help string, of func(*state.Pressure) time.Duration) column[node] {
		return column[node]{counter("node_pressure_"+name+"_seconds_total", help), func(m node, put func(float64, ...string)) {
			if m.Pressure != nil {
				put(of(m.Pressure).Seconds())
			}
		}}
	}
	return []column[node]{
		stall("cpu_waiting", "Time in which some task waited for a CPU (/proc/pressure/cpu).", func(p *state.Pressure) time.Duration { return p.CPU.Some }),
		stall("memory_waiting", "Time in which some task waited for memory.", func(p *state.Pressure) time.Duration { return p.Memory.Some }),
		stall("memory_stalled", "Time in which all tasks waited for memory.", func(p *state.Pressure) time.Duration { return p.Memory.Full }),
		stall("io_waiting", "Time in which some task waited for a disk.", func(p *state.Pressure) time.Duration { return p.IO.Some }),
		stall("io_stalled", "Time in which all tasks waited for a disk.", func(p *state.Pressure) time.Duration { return p.IO.Full }),
	}
}

func machineNetwork() []column[*state.Machine] {
	type node = *state.Machine
	backlog := func(name, help string, of func(state.Backlog) uint64) column[node] {
		return column[node]{counter(name, help, "cpu"), func(m node, put func(float64, ...string)) {
			for _, b := range m.Backlogs {
				put(float64(of(b)), strconv.Itoa(b.CPU))
			}
		}}
	}
	tracked := func(name, help string, of func(*state.Conntrack) int64) column[node] {
		return column[node]{gauge(name, help), func(m node, put func(float64, ...string)) {
			if m.Conntrack != nil {
				put(float64(of(m.Conntrack)))
			}
		}}
	}
	return []column[node]{
		backlog("node_softnet_dropped_total", "Received packets dropped because a CPU's queue was full (softnet_stat).",
			func(b state.Backlog) uint64 { return b.Dropped }),
		backlog("node_softnet_times_squeezed_total", "Times a CPU's work on received packets was cut short (softnet_stat).",
			func(b state.Backlog) uint64 { return b.Squeezed }),
		tracked("node_nf_conntrack_entries", "Connections tracked; absent while the kernel tracks none.",
			func(c *state.Conntrack) int64 { return c.Entries }),
		tracked("node_nf_conntrack_entries_limit", "Connections that can be tracked.",
			func(c *state.Conntrack) int64 { return c.Limit }),
	}
}

func machineClock() []column[*state.Machine] {
	type node = *state.Machine
	clock := func(name, help string, of func(*state.Clock) float64) column[node] {
		return column[node]{gauge(name, help), func(m node, put func(float64, ...string)) {
			if m.Clock != nil {
				put(of(m.Clock))
			}
		}}
	}
	return []column[node]{
		clock("node_timex_offset_seconds", "What the clock is still to be moved by (adjtimex).",
			func(c *state.Clock) float64 { return c.Offset.Seconds() }),
		clock("node_timex_maxerror_seconds", "Largest error of the clock (adjtimex).",
			func(c *state.Clock) float64 { return c.MaxError.Seconds() }),
		clock("node_timex_sync_status", "1 when something keeps the clock right, else 0 (adjtimex).",
			func(c *state.Clock) float64 { return boolean(c.Synchronised) }),
	}
}

func diskColumns() []column[*state.DiskStats] {
	type disk = *state.DiskStats
	n := func(name, help string, of func(disk) uint64) column[disk] {
		return one(counter("node_disk_"+name+"_total", help, "device"), func(d disk) float64 { return float64(of(d)) })
	}
	t := func(name, help string, of func(disk) time.Duration) column[disk] {
		return duration(counter("node_disk_"+name+"_seconds_total", help, "device"), of)
	}
	flush := func(m *metric, of func(disk) float64) column[disk] {
		return column[disk]{m, func(d disk, put func(float64, ...string)) {
			if d.FlushesKnown {
				put(of(d))
			}
		}}
	}
	return []column[disk]{
		n("reads_completed", "Reads that ended (diskstats); devices that never did anything are left out.", func(d disk) uint64 { return d.Reads }),
		n("read_bytes", "Bytes read.", func(d disk) uint64 { return d.ReadBytes }),
		t("read_time", "Time spent on all reads.", func(d disk) time.Duration { return d.ReadTime }),
		n("writes_completed", "Writes that ended.", func(d disk) uint64 { return d.Writes }),
		n("written_bytes", "Bytes written.", func(d disk) uint64 { return d.WrittenBytes }),
		t("write_time", "Time spent on all writes.", func(d disk) time.Duration { return d.WriteTime }),
		t("io_time", "Time in which something was under way.", func(d disk) time.Duration { return d.Busy }),
		t("io_time_weighted", "Time spent on everything under way, added up.", func(d disk) time.Duration { return d.WeightedBusy }),
		flush(counter("node_disk_flush_requests_total", "Flushes that ended; from Linux 5.5 on.", "device"),
			func(d disk) float64 { return float64(d.Flushes) }),
		flush(counter("node_disk_flush_requests_time_seconds_total", "Time spent on all flushes.", "device"),
			func(d disk) float64 { return d.FlushTime.Seconds() }),
		one(gauge("node_disk_io_now", "Requests under way.", "device"), func(d disk) float64 { return float64(d.InFlight) }),
	}
}
