package resource

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

func reader(t testing.TB) *Reader {
	t.Helper()
	r, err := New("testdata/proc", "testdata/sys")
	require.NoError(t, err)
	return r
}

func instance(version int) *state.Instance {
	return &state.Instance{ID: "db", Cgroup: state.Cgroup{Version: version}, MainPID: 100, PIDs: []int{100, 101}}
}

func dirs1() Dirs {
	d := Dirs{}
	for _, c := range []string{"cpu", "cpuacct", "memory", "blkio", "pids"} {
		d[c] = "testdata/v1/" + c + "/db"
	}
	return d
}

func TestBothVersionsSayTheSame(t *testing.T) {
	r := reader(t)
	_, err := r.Machine() // names the devices
	if err != nil {
		require.ErrorContains(t, err, "adjtimex") // a sandbox may refuse to tell the clock
	}
	want := &state.GroupUsage{
		CPU: state.CPUUsage{Usage: 5 * time.Second, User: 4 * time.Second, System: time.Second,
			Periods: 300, ThrottledPeriods: 12, Throttled: 250 * time.Millisecond},
		MemoryBytes: 1 << 30, WorkingSetBytes: 1000000000, SwapBytes: 4096, MajorFaults: 7,
		MemoryKinds: map[string]int64{"anon": 419430400, "file": 524288000, "shmem": 104857600,
			"file_mapped": 8192, "file_dirty": 4096, "file_writeback": 0},
		MemoryEvents: map[string]int64{"max": 12, "oom_kill": 1},
		Disks: []state.DiskUsage{
			{Device: "/dev/vda", ReadBytes: 4096, WriteBytes: 8192, Reads: 1, Writes: 2},
			{Device: "9:9", ReadBytes: 1, Reads: 1},
		},
		TaskLimit: 4096,
	}
	u, err := r.Instance(instance(1), dirs1())
	require.NoError(t, err)
	require.Equal(t, want, u.Group)

	want.TaskLimit = 0
	for k, n := range map[string]int64{"sock": 4096, "kernel": 20971520, "slab_reclaimable": 10485760, "slab_unreclaimable": 5242880} {
		want.MemoryKinds[k] = n
	}
	want.MemoryEvents = map[string]int64{"low": 0, "high": 3, "max": 12, "oom": 2, "oom_kill": 1}
	stall := state.Stall{Some: 2 * time.Second, Full: time.Second}
	want.Pressure = &state.Pressure{CPU: stall, Memory: stall, IO: stall}
	u, err = r.Instance(instance(2), Dirs{"": "testdata/v2/db"})
	require.NoError(t, err)
	require.Equal(t, want, u.Group)
	require.Equal(t, &state.NetworkUsage{SentSegments: 1000, RetransmittedSegments: 6, SentResets: 7, ReceivedResets: 4,
		ListenOverflows: 8, ListenDrops: 9}, u.Network)
	require.Equal(t, state.TaskUsage{Processes: 2, Threads: 3, Uninterruptible: 1}, u.Tasks,
		"what its threads waited before they were first seen is not of our time")
}

func TestSharedGroupAndHostNetworkAreNotRead(t *testing.T) {
	in := instance(2)
	in.HostNetwork = true
	in.PIDs = []int{102}
	u, err := reader(t).Instance(in, nil)
	require.NoError(t, err)
	require.Nil(t, u.Group)
	require.Nil(t, u.Network)
	require.Equal(t, 1, u.Tasks.Threads)
}

func TestOneBadFileLeavesTheOthers(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("testdata/v2/db")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "memory.stat"), []byte("anon many\n"), 0o600))
	u, err := reader(t).Instance(instance(2), Dirs{"": dir})
	require.ErrorContains(t, err, "memory.stat")
	require.Equal(t, 5*time.Second, u.Group.CPU.Usage)
	require.Equal(t, 3, u.Tasks.Threads)
}

func TestControllersThatAreNotEnabledAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte("usage_usec 7\n"), 0o600))
	u, err := reader(t).Instance(instance(2), Dirs{"": dir})
	require.NoError(t, err)
	require.Equal(t, 7*time.Microsecond, u.Group.CPU.Usage)
	require.Nil(t, u.Group.Pressure)
	require.Equal(t, 3, u.Tasks.Threads, "from the processes, which have two and one in the fixture")
}

// fakeThreads is a procfs of threads and a list of them.
type fakeThreads struct {
	t    *testing.T
	root string
}

func (f fakeThreads) set(id int, delay time.Duration, letter string) {
	dir := filepath.Join(f.root, strconv.Itoa(id))
	require.NoError(f.t, os.MkdirAll(filepath.Join(dir, "task", strconv.Itoa(id)), 0o700))
	require.NoError(f.t, os.WriteFile(filepath.Join(dir, "schedstat"), []byte("1 "+strconv.FormatInt(int64(delay), 10)+" 1\n"), 0o600))
	require.NoError(f.t, os.WriteFile(filepath.Join(dir, "task", strconv.Itoa(id), "stat"), []byte("1 (x) "+letter+" 1\n"), 0o600))
}

func (f fakeThreads) list(ids ...int) {
	var text string
	for _, id := range ids {
		text += strconv.Itoa(id) + "\n"
	}
	require.NoError(f.t, os.WriteFile(filepath.Join(f.root, "cgroup.threads"), []byte(text), 0o600))
}

func TestRunDelayNeverFallsAsThreadsComeAndGo(t *testing.T) {
	f := fakeThreads{t, t.TempDir()}
	r := reader(t)
	r.root = f.root
	in := &state.Instance{ID: "db", Cgroup: state.Cgroup{Version: 2}, HostNetwork: true}
	read := func() state.TaskUsage {
		u, err := r.Instance(in, Dirs{"": f.root})
		require.NoError(t, err)
		return u.Tasks
	}
	f.set(1, 100, "S")
	f.set(2, 50, "D")
	f.list(1, 2)
	require.Equal(t, state.TaskUsage{Threads: 2, Uninterruptible: 1}, read(), "the waits of their whole lives are not of this moment")
	f.set(1, 130, "S")
	f.list(1)
	require.Equal(t, state.TaskUsage{Threads: 1, RunDelay: 30}, read())
	f.set(2, 7, "S")
	f.list(1, 2)
	require.Equal(t, state.TaskUsage{Threads: 2, RunDelay: 37}, read(), "one that came later waited all its life in our time")
	f.set(1, 20, "S")
	require.Equal(t, state.TaskUsage{Threads: 2, RunDelay: 57}, read(), "a number that went to another thread between two looks")
	f.list(1, 2, 3)
	require.Equal(t, state.TaskUsage{Threads: 3, RunDelay: 57}, read(), "one that ended since it was listed")
	f.list(1)
	require.Equal(t, state.TaskUsage{Threads: 1, RunDelay: 57}, read(), "what ended threads waited stays")
}

func TestThreadsAreLookedAtInTurn(t *testing.T) {
	f := fakeThreads{t, t.TempDir()}
	r := reader(t)
	r.root = f.root
	in := state.Instance{ID: "db", Cgroup: state.Cgroup{Version: 2}, HostNetwork: true}
	others := make([]state.Instance, 255)
	for i := range others {
		others[i].ID = strconv.Itoa(i)
	}
	r.Begin(append(others, in)) // two looks each
	for id := 1; id <= 5; id++ {
		f.set(id, 10, "S")
	}
	f.list(5, 4, 3, 2, 1)
	read := func() time.Duration {
		u, err := r.Instance(&in, Dirs{"": f.root})
		require.NoError(t, err)
		return u.Tasks.RunDelay
	}
	for range 3 {
		require.Zero(t, read(), "each is looked at for the first time")
	}
	for id := 1; id <= 5; id++ {
		f.set(id, 20, "S")
	}
	// The third look was at 5 and again at 1, so it goes on with 2.
	for _, want := range []time.Duration{20, 40, 50, 50} {
		require.Equal(t, want, read())
	}
	r.Begin(nil)
	require.Empty(t, r.tasks)
}

func TestMachine(t *testing.T) {
	m, err := reader(t).Machine()
	if err != nil {
		require.ErrorContains(t, err, "adjtimex")
	}
	require.Len(t, m.CPUs, 2)
	require.Equal(t, 6*time.Second, m.CPUs[0].Modes["user"])
	require.Equal(t, 25*time.Second, m.CPUs[0].Modes["idle"])
	require.Equal(t, [3]float64{1.5, 1.25, 1}, m.Load)
	require.Equal(t, uint64(12345), m.ContextSwitches)
	require.Equal(t, int64(512<<10), m.Memory["MemAvailable"])
	require.NotContains(t, m.Memory, "Hugetlb")
	require.Equal(t, map[string]int64{"pswpin": 11, "pswpout": 22, "pgmajfault": 33, "oom_kill": 1}, m.Counts)
	require.Equal(t, state.Stall{Some: 7 * time.Second}, m.Pressure.CPU)
	require.Equal(t, []state.DiskStats{{Device: "vda", Reads: 10, ReadBytes: 40960, ReadTime: time.Second, Writes: 20, WrittenBytes: 81920,
		WriteTime: 2 * time.Second, InFlight: 1, Busy: 1500 * time.Millisecond, WeightedBusy: 3 * time.Second,
		Flushes: 5, FlushTime: 500 * time.Millisecond, FlushesKnown: true}}, m.Disks)
	require.Equal(t, []state.Backlog{{CPU: 0, Dropped: 1, Squeezed: 2}, {CPU: 1, Dropped: 3, Squeezed: 4}}, m.Backlogs)
	require.Equal(t, &state.Conntrack{Entries: 100, Limit: 65536}, m.Conntrack)
}

func TestMachineOfThisHost(t *testing.T) {
	r, err := New("/proc", "/sys")
	require.NoError(t, err)
	m, err := r.Machine()
	if err != nil {
		require.NotErrorIs(t, err, errBadLine, "what this kernel writes is understood")
	}
	require.NotEmpty(t, m.CPUs)
	require.Positive(t, m.Memory["MemTotal"])
}

func FuzzParsers(f *testing.F) {
	for _, s := range []string{
		"usage_usec 5\n", "some avg10=0.00 total=5\nfull avg10=0.00 total=1\n", "253:0 rbytes=1 wbytes=2 rios=3 wios=4\n7:1 \n",
		"253:0 Read 1\n253:0 Write 2\nTotal 3\n", "1 2 3\n", "1 (a) b) D 1\n", "99999999999999999999 18446744073709551615\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parseFlat(data, func(_ []byte, n int64) { require.GreaterOrEqual(t, n, int64(0)) })
		if s, err := parseStall(data); err == nil {
			require.GreaterOrEqual(t, s.Some, time.Duration(0))
			require.GreaterOrEqual(t, s.Full, time.Duration(0))
		}
		_, _ = parseIOStat(data, func(n string) string { return n })
		disks := map[string]*state.DiskUsage{}
		var order []state.DiskUsage
		_ = parseBlkio(data, disks, &order, func(d *state.DiskUsage) (*int64, *int64) { return &d.Reads, &d.Writes })
		require.Len(t, order, len(disks))
		_, _ = parseSchedstat(data)
		_, _ = parseState(data)
		if ids, err := parseIDs(data); err == nil {
			for _, id := range ids {
				require.Positive(t, id)
			}
		}
		_, _ = parseSocket(data)
	})
}

// BenchmarkFiftyInstances reads fifty copies of the fixture whose threads are one
// of this process, so that procfs is the kernel's.
func BenchmarkFiftyInstances(b *testing.B) {
	r, err := New("/proc", "/sys")
	require.NoError(b, err)
	var list string
	names, err := os.ReadDir("/proc/self/task")
	require.NoError(b, err)
	for _, n := range names {
		list += n.Name() + "\n"
	}
	var all []state.Instance
	var dirs []Dirs
	for i := range 50 {
		dir := b.TempDir()
		require.NoError(b, os.CopyFS(dir, os.DirFS("testdata/v2/db")))
		require.NoError(b, os.WriteFile(filepath.Join(dir, "cgroup.threads"), []byte(list), 0o600))
		all = append(all, state.Instance{ID: strconv.Itoa(i), Cgroup: state.Cgroup{Version: 2}, MainPID: os.Getpid(), PIDs: []int{os.Getpid()}})
		dirs = append(dirs, Dirs{"": dir})
	}
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		r.Begin(all)
		for i := range all {
			_, err := r.Instance(&all[i], dirs[i])
			require.NoError(b, err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
}

// cpuTime is what this process has used so far: on a busy machine the time that
// passes says little.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
