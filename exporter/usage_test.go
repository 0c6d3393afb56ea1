package exporter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// used is an instance's usage in which every metric occurs.
func used() *state.Usage {
	return &state.Usage{
		Group: &state.GroupUsage{
			CPU: state.CPUUsage{Usage: 90 * time.Second, User: 60 * time.Second, System: 30 * time.Second,
				Periods: 1000, ThrottledPeriods: 15, Throttled: 1500 * time.Millisecond},
			MemoryBytes: 3 << 30, WorkingSetBytes: 2 << 30, SwapBytes: 1 << 20,
			MemoryKinds:  map[string]int64{"anon": 1 << 29, "file": 1 << 30, "slab_reclaimable": 1 << 24},
			MemoryEvents: map[string]int64{"max": 12, "oom_kill": 1}, MajorFaults: 77,
			Pressure: &state.Pressure{CPU: state.Stall{Some: time.Second, Full: time.Millisecond},
				Memory: state.Stall{Some: 2 * time.Second, Full: time.Second}, IO: state.Stall{Some: 3 * time.Second, Full: 2 * time.Second}},
			Disks:     []state.DiskUsage{{Device: "/dev/vda", ReadBytes: 4096, WriteBytes: 8192, Reads: 1, Writes: 2}},
			TaskLimit: 4096,
		},
		Tasks:   state.TaskUsage{Processes: 7, Threads: 9, Uninterruptible: 1, RunDelay: 250 * time.Millisecond},
		Network: &state.NetworkUsage{SentSegments: 1000, RetransmittedSegments: 3, SentResets: 2, ReceivedResets: 1, ListenOverflows: 4, ListenDrops: 5},
		Survey: &state.Survey{
			Time: taken().Add(-3 * time.Second), DeletedOpenBytes: 1 << 24, Descriptors: 300,
			Fullest: state.DescriptorUsage{Open: 90, Limit: 1024}, Complete: true,
			Directories: []state.Directory{{Name: "data", Path: "/data", SizeBytes: 100 << 30, UsedBytes: 40 << 30, AvailableBytes: 55 << 30, Inodes: 1000, FreeInodes: 900}},
			Connections: &state.Connections{Count: 2, MeanRoundTrip: time.Millisecond, MaxRoundTrip: 2 * time.Millisecond, Unacknowledged: 1, Retransmissions: 6},
		},
		IO: []state.Operation{
			{Name: "read", Count: 1, Sum: time.Millisecond, Classic: []uint64{0, 1, 0, 0, 0}, Native: map[int]uint64{-79: 1}},
			{Name: "fsync", Count: 2, Sum: 2 * time.Millisecond, Classic: []uint64{0, 2, 0, 0, 0}, Native: map[int]uint64{-79: 2}},
		},
	}
}

// node is a machine in which every metric occurs.
func node() *state.Machine {
	m := &state.Machine{
		CPUs: []state.CPUModes{{CPU: 0, Modes: map[string]time.Duration{"user": 10 * time.Second, "idle": 90 * time.Second}}},
		Load: [3]float64{1.5, 1.25, 1}, ContextSwitches: 12345, Running: 2, Blocked: 1, BootTime: taken().Add(-time.Hour),
		Memory: map[string]int64{}, Counts: map[string]int64{},
		Pressure: &state.Pressure{CPU: state.Stall{Some: time.Second}, Memory: state.Stall{Some: 2 * time.Second, Full: time.Second},
			IO: state.Stall{Some: 4 * time.Second, Full: 3 * time.Second}},
		Disks: []state.DiskStats{{Device: "vda", Reads: 10, ReadBytes: 40960, ReadTime: time.Second, Writes: 20, WrittenBytes: 81920,
			WriteTime: 2 * time.Second, InFlight: 1, Busy: time.Second, WeightedBusy: 3 * time.Second, Flushes: 5, FlushTime: time.Second, FlushesKnown: true}},
		Backlogs:  []state.Backlog{{CPU: 0, Dropped: 1, Squeezed: 2}},
		Clock:     &state.Clock{Offset: -time.Millisecond, MaxError: 10 * time.Millisecond, Synchronised: true},
		Conntrack: &state.Conntrack{Entries: 100, Limit: 65536},
		IOProbes: []state.IOProbe{{Name: "block", Mode: "off", Detail: "this kernel does not charge block requests to cgroups"},
			{Name: "fsync", Mode: "fentry", Detail: "attached and seen to fire"}},
		IOLost: map[string]uint64{"requests_full": 1},
	}
	for i, name := range []string{"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "Slab", "Dirty", "Writeback", "SwapTotal", "SwapFree", "Hugetlb"} {
		m.Memory[name] = int64(i+1) << 20
	}
	for i, name := range []string{"pswpin", "pswpout", "pgmajfault", "oom_kill", "allocstall_normal", "allocstall_movable"} {
		m.Counts[name] = int64(i + 1)
	}
	return m
}

func TestWhatTheKernelDoesNotTellIsAbsent(t *testing.T) {
	in := postgres()
	in.Usage = &state.Usage{
		Group:  &state.GroupUsage{MemoryEvents: map[string]int64{"max": 1}},
		Survey: &state.Survey{Connections: &state.Connections{}, Directories: []state.Directory{{Name: "data"}}},
	}
	all := text(t, gather(t, New(hold(&state.Snapshot{Instances: []state.InstanceStatus{in}, Machine: &state.Machine{Disks: []state.DiskStats{{Device: "sda"}}}}), bounds())))
	for _, absent := range []string{
		"container_pressure_", "container_threads_max", "container_oom_events_total", "container_memory_rss", "container_fs_",
		"tcp_sent_segments", "tcp_round_trip", "directory_inodes", "descriptors_limit",
		"node_pressure_", "node_memory_", "node_vmstat", "node_disk_flush", "node_timex", "node_nf_conntrack",
	} {
		require.NotContains(t, all, absent)
	}
	require.Contains(t, all, `mooring_instance_memory_events_total{container="postgres",event="max",instance="db/pg-0/postgres",namespace="db",pod="pg-0"} 1`)
}
