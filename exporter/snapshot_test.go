package exporter

import (
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

func taken() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// clock is two seconds after the fixed snapshot was taken.
func clock() time.Time { return taken().Add(2 * time.Second) }

func bounds() []time.Duration {
	return []time.Duration{100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, time.Second}
}

func fixed() *Exporter { return New(hold(snapshot()), bounds(), WithClock(clock), WithProtocol(2)) }

// snapshot returns a new copy of a snapshot in which every metric occurs.
func snapshot() *state.Snapshot {
	return &state.Snapshot{
		Time:             taken(),
		NodeName:         "node-a",
		Version:          "1.2.3",
		Instances:        []state.InstanceStatus{postgres(), mysql(), redis(), neighbour()},
		Missing:          []state.Declared{{Namespace: "db", Pod: "pg-1", Container: "postgres", Engine: state.PostgreSQL, Policy: "db/postgres"}},
		UnknownListeners: 2,
		Unresolved:       []string{"pod db/pg-1: its container is not running"},
		PolicyDigest:     "c0ffee",
		Epoch:            1772366400 << 20,
		LimitsWriter:     "kubelet",
		Faults: []state.Fault{
			{UID: "a", Kind: "net-delay", Instance: "db/pg-0/postgres", Phase: state.FaultActive, Hits: 70, Deadline: taken().Add(time.Minute)},
			{UID: "b", Kind: "net-delay", Instance: "db/pg-0/postgres", Phase: state.FaultActive, Hits: 7, Deadline: taken().Add(30 * time.Second)},
			{UID: "c", Kind: "memory-squeeze", Instance: "db/my-0/mysqld", Phase: state.FaultStuck},
			{UID: "d", Kind: "process-pause", Instance: "db/gone-0/postgres", Phase: state.FaultEnded, Hits: 1, Reason: "deadline"},
		},
		Capabilities: []state.Capability{
			{Name: "net-delay", OK: true, Detail: "tc"},
			{Name: "io-error", Detail: "this kernel has no bpf_override_return"},
		},
		Collectors: []state.Collector{
			{Name: "instances", Duration: 3 * time.Millisecond},
			{Name: "statements", Duration: 450 * time.Microsecond, Err: "read map: permission denied"},
			{Name: state.CollectorAPIServer, Duration: 2 * time.Millisecond},
			{Name: state.CollectorPods},
		},
		Nodes: []state.Node{
			{ID: 0, CPUs: "0-3", TotalBytes: 16 << 30, FreeBytes: 5 << 30},
			{ID: 1, CPUs: "4-7", TotalBytes: 16 << 30, FreeBytes: 6 << 30},
		},
		Machine:     node(),
		Records:     recorded(),
		DigestTable: digestTable(),
		Probe: state.Probe{
			Mode: "fentry", Lost: map[string]uint64{"operations_full": 0, "connections_full": 4},
			Events: map[string]uint64{"text": 31, "record": 5}, Maps: map[string]state.MapFill{"digests": {Entries: 40, Capacity: 16384}},
			RunTime: map[string]time.Duration{"on_tcp_recvd": 1500 * time.Millisecond},
		},
	}
}

func postgres() state.InstanceStatus {
	return state.InstanceStatus{
		Instance: state.Instance{
			ID: "db/pg-0/postgres", Name: "pg-0", Namespace: "db", Pod: "pg-0", Container: "postgres",
			Engine: state.PostgreSQL, Source: "kubernetes", Cgroup: state.Cgroup{Version: 2, ID: 4711},
			Declared: &state.Declared{Cluster: "pg", Role: "primary", Policy: "db/postgres", NUMA: state.NUMASingleNode},
		},
		Resources: state.Resources{
			CPUMillicores: 2500, CPUUsage: 90 * time.Second, CPUThrottled: 1500 * time.Millisecond,
			MemoryLimitBytes: 4 << 30, MemoryUsageBytes: 3 << 30, MemoryInUseBytes: 1 << 30, OOMKills: 1, PodOOMKills: new(int64(3)),
			CPUs: "0-3", MemoryNodes: "0", NodeBytes: map[int]int64{0: 3 << 28, 1: 1 << 28},
		},
		Placement: &state.Placement{Policy: "pack", Node: 0},
		Active:    probedReplica(),
		Usage:     used(),
		Operations: []state.Operation{
			{Name: "select", Count: 10, Sum: 21 * time.Millisecond, Classic: []uint64{4, 3, 2, 1, 0},
				Native: map[int]uint64{-109: 4, -84: 2, -83: 1, -60: 2, -20: 1}},
			{Name: "insert", Count: 1, Sum: 2 * time.Second, Classic: []uint64{0, 0, 0, 0, 1}, Native: map[int]uint64{8: 1}},
			{Name: "select", Error: true, Count: 2, Sum: time.Millisecond, Classic: []uint64{0, 2, 0, 0, 0}, Native: map[int]uint64{-88: 2},
				FirstByte: state.Distribution{Count: 2, Sum: time.Millisecond, Native: map[int]uint64{-22: 2}}, Rows: 1, RequestBytes: 80},
		},
		Statements: statementsOf(),
	}
}

// statementsOf is what is known of the statements of an instance.
func statementsOf() *state.Statements {
	few := state.Distribution{Count: 3, Sum: 30 * time.Millisecond, Native: map[int]uint64{-16: 1, -13: 2}}
	return &state.Statements{
		Traffic: state.Traffic{
			Requests: 13, Statements: 14, RequestBytes: 900, ResponseBytes: 9000, StreamInBytes: 7, StreamOutBytes: 70000,
			Blocked: 3 * time.Second, SeenBytes: 990, SocketBytes: 1000,
		},
		Transactions:     []state.Transaction{{Outcome: state.TransactionCommit, Duration: few}},
		OpenTransactions: 2, OldestTransaction: time.Minute, InFlight: 1, OldestInFlight: 5 * time.Second, Connections: 8,
		Errors: []state.ErrorCount{{Code: "23505", Count: 1}, {Code: "other", Count: 1}},
		Digests: []state.Digest{
			{ID: "00c0ffee00c0ffee", Operation: "select", Text: "SELECT a FROM \"t\" WHERE b = ?", Since: taken(), Errors: 1, Rows: 9, Duration: few},
			{ID: state.DigestOther, Errors: 1, Duration: few}, {ID: state.DigestUnsampled}, {ID: state.DigestTLS},
			{ID: state.DigestNone, Duration: few},
		},
		Slow: 4, Threshold: 100 * time.Millisecond,
	}
}

func mysql() state.InstanceStatus {
	return state.InstanceStatus{
		Instance: state.Instance{
			ID: "db/my-0/mysqld", Name: "my-0", Namespace: "db", Pod: "my-0", Container: "mysqld",
			Engine: state.MySQL, Source: "kubernetes", Cgroup: state.Cgroup{Version: 2, ID: 4712},
			Declared: &state.Declared{Cluster: "my", Policy: "db/mysql", NUMA: state.NUMASingleNode},
		},
		Active: &state.Active{
			Stopped: "the login was refused twice",
			Probes:  []state.ActiveProbe{{Kind: state.ProbeRead, Took: 2 * time.Millisecond, Err: "auth: error 1045", Failures: map[string]uint64{"auth": 3, "gone": 1}}},
		},
		PlacementErr: "node 0 has 2 of 4 CPUs free",
		Resources: state.Resources{
			CPUUsage: 5 * time.Second, MemoryUsageBytes: 1 << 30, MemoryInUseBytes: 1 << 29,
			CPUs: "0-7", MemoryNodes: "0-1", NodeBytes: map[int]int64{0: 1 << 29, 1: 1 << 29},
		},
		Placement: &state.Placement{Policy: "spread", Node: -1},
		Operations: []state.Operation{
			// No native counts: this probe mode has none.
			{Name: "select", Count: 3, Sum: 3 * time.Millisecond, Classic: []uint64{1, 1, 1, 0, 0}},
		},
	}
}

func redis() state.InstanceStatus {
	return state.InstanceStatus{
		Instance: state.Instance{
			ID: "/system.slice/redis.service", Name: "redis.service", Engine: state.Redis, Source: "standalone",
			Cgroup: state.Cgroup{Version: 1, Shared: "12 other processes live in it"},
		},
		Err: "read memory.stat: permission denied",
		Operations: []state.Operation{
			{Name: "read", Classic: make([]uint64, 5), Native: map[int]uint64{}},
		},
	}
}

// neighbour shares its cgroup, so that nothing was read of it, and nothing failed.
func neighbour() state.InstanceStatus {
	return state.InstanceStatus{
		Instance: state.Instance{
			ID: "/system.slice/mongod.service", Name: "mongod.service", Engine: state.MongoDB, Source: "standalone",
			Cgroup: state.Cgroup{Version: 2, ID: 4713, Shared: "2 database servers live in it"},
		},
	}
}

// probedReplica is what active probes find of a replica that is behind.
func probedReplica() *state.Active {
	yes, lag, bytes, age := true, 1500*time.Millisecond, int64(8192), 12*time.Second
	return &state.Active{
		Up: &yes, Role: state.RoleReplica, ReadOnly: &yes, Lag: &lag, LagBytes: &bytes, HeartbeatAge: &age, HeartbeatPeriod: 10 * time.Second,
		Probes: []state.ActiveProbe{{Kind: state.ProbeConnect, Took: time.Millisecond}, {Kind: state.ProbeRead, Took: 3 * time.Millisecond}},
	}
}
