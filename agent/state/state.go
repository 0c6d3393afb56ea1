package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Cgroup says where an instance's processes are accounted.
type Cgroup struct {
	// Version is 1 or 2: the hierarchy that holds the cpu and memory
	// controllers of the instance.
	Version int `json:"version"`
	// Path is the path below the hierarchy's root, beginning with "/".
	Path string `json:"path"`
	// Paths holds, on version 1 only, the path in each controller's hierarchy.
	Paths map[string]string `json:"paths,omitempty"`
	// ID is the inode number of the directory (of the memory controller's on
	// version 1). On version 2 it is what bpf_get_current_cgroup_id returns.
	// A cgroup made again under the same path has another ID.
	ID uint64 `json:"id"`
	// Shared holds why the cgroup is not this instance's alone (it is the
	// root, or other processes live in it); empty when it is. Nothing is
	// changed on an instance whose cgroup is shared.
	Shared string `json:"shared,omitempty"`
}

// Device is a block device or an anonymous file system device.
type Device struct {
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// String returns the device as the kernel writes it, "major:minor".
func (d Device) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// Instance is one database server: a process tree in one container or service
// on this node.
type Instance struct {
	// ID is unique on the node: "namespace/pod/container" from Kubernetes,
	// otherwise the cgroup path, with ":port" added where one cgroup holds
	// several servers.
	ID string `json:"id"`
	// Name is what people call it: the pod, container or unit name, or the
	// last element of the cgroup path. Two instances may share a name.
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`
	Engine    Engine `json:"engine"`
	// Source is "kubernetes" or "standalone".
	Source string `json:"source"`
	Cgroup Cgroup `json:"cgroup"`
	// MainPID is the server's first process, in the agent's pid namespace.
	MainPID int `json:"mainPid"`
	// PIDs are all processes of the instance, ascending.
	PIDs []int `json:"pids"`
	// Ports are the TCP ports the server listens on, ascending.
	Ports []uint16 `json:"ports"`
	// DataDir is the server's working directory as seen inside its mount
	// namespace; all engines known here work in their data directory.
	DataDir string `json:"dataDir,omitempty"`
	// DataDevice is the device that holds DataDir.
	DataDevice Device `json:"dataDevice"`
	// NetNS is the inode number of the network namespace.
	NetNS uint64 `json:"netns"`
	// HostNetwork says that NetNS is the agent's own.
	HostNetwork bool `json:"hostNetwork"`
	// HostLink is the index in the host of the interface whose peer is the
	// instance's own (a veth); 0 where there is none.
	HostLink int `json:"hostLink,omitempty"`
	// PodUID and ContainerID are Kubernetes' own, empty elsewhere.
	PodUID      string `json:"podUid,omitempty"`
	ContainerID string `json:"containerId,omitempty"`
	// Declared is what a policy says of the instance; nil where none does.
	Declared *Declared `json:"declared,omitempty"`
}

// Placements a policy may want.
const (
	NUMANone       = "none"
	NUMASingleNode = "single-node"
)

// Declared is one pod that a policy declares to be an instance.
type Declared struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	PodUID    string `json:"podUid"`
	// Container runs the server; found by its listening server when empty.
	Container string `json:"container,omitempty"`
	Engine    Engine `json:"engine"`
	// Cluster is the database cluster, Role "primary", "replica" or empty.
	Cluster string `json:"cluster,omitempty"`
	Role    string `json:"role,omitempty"`
	// Policy is the resource that declares it, "namespace/name".
	Policy string `json:"policy"`
	// NUMA is where it is to be: NUMANone or NUMASingleNode.
	NUMA string `json:"numa"`
	// Probe is how it may be asked by active probes; zero where it may not.
	Probe ProbeSpec `json:"probe,omitzero"`
	// Statements says how its statements are watched; the zero value is for the
	// agent's defaults.
	Statements StatementsPolicy `json:"statements,omitzero"`
}

// Resources is what an instance may use and uses, read from the kernel.
type Resources struct {
	// CPUMillicores is the CPU limit; 0 means none.
	CPUMillicores int64 `json:"cpuMillicores"`
	// CPUUsage is the CPU time used since the cgroup was made.
	CPUUsage time.Duration `json:"cpuUsage"`
	// CPUThrottled is the time the cgroup was held back by its limit.
	CPUThrottled time.Duration `json:"cpuThrottled"`
	// MemoryLimitBytes is the memory limit; 0 means none.
	MemoryLimitBytes int64 `json:"memoryLimitBytes"`
	// MemoryUsageBytes includes page cache.
	MemoryUsageBytes int64 `json:"memoryUsageBytes"`
	// MemoryInUseBytes is what reclaim cannot take back without swapping:
	// anonymous memory, shared memory and kernel memory that is not
	// reclaimable slab. A limit below it kills the database.
	MemoryInUseBytes int64 `json:"memoryInUseBytes"`
	// OOMKills counts processes killed in the cgroup for lack of memory.
	OOMKills int64 `json:"oomKills"`
	// PodOOMKills counts those of all containers of its pod since the pod was
	// made, also of containers that are gone; nil where the kernel does not tell,
	// and outside Kubernetes.
	PodOOMKills *int64 `json:"podOomKills,omitempty"`
	// CPUs and MemoryNodes are the effective cpuset, as kernel lists.
	CPUs        string `json:"cpus"`
	MemoryNodes string `json:"memoryNodes"`
	// NodeBytes is the instance's memory on each NUMA node, by node number:
	// anonymous and shared memory on cgroup version 2, page cache as well on
	// version 1, which does not tell them apart.
	NodeBytes map[int]int64 `json:"nodeBytes,omitempty"`
}

// Operation is the latency distribution of one kind of statement.
type Operation struct {
	// Name is the operation: "select", "insert", …, see package bpf.
	Name string `json:"name"`
	// Error says that the server answered with an error.
	Error bool `json:"error"`
	// Count is the number of statements; it equals the sum of Classic.
	Count uint64 `json:"count"`
	// Sum is the time spent on all of them.
	Sum time.Duration `json:"sum"`
	// Classic counts statements by fixed bounds: Classic[i] were at most
	// ClassicBounds[i] (and above the bound before); the last element, one
	// past the bounds, counts the rest.
	Classic []uint64 `json:"-"`
	// Native counts statements by the exponential bounds of a Prometheus
	// native histogram of schema 3: the key i stands for durations in
	// (2^((i-1)/8), 2^(i/8)] seconds.
	Native map[int]uint64 `json:"-"`
	// FirstByte is the time from the first byte of the request to the first byte
	// of its reply.
	FirstByte Distribution `json:"firstByte"`
	// Blocked is the time the server waited for clients to take these replies.
	Blocked time.Duration `json:"blocked"`
	// RequestBytes, ResponseBytes and Rows (returned or affected, where the
	// protocol says so) are those of these statements.
	RequestBytes  uint64 `json:"requestBytes"`
	ResponseBytes uint64 `json:"responseBytes"`
	Rows          uint64 `json:"rows"`
}

// Placement is where an instance was asked to be, and what came of it.
type Placement struct {
	Policy string `json:"policy"`
	// Node is the NUMA node, or -1 for all of them.
	Node int `json:"node"`
}

// InstanceStatus is an instance with what is known of it at one moment.
type InstanceStatus struct {
	Instance
	Resources  Resources   `json:"resources"`
	Placement  *Placement  `json:"placement,omitempty"`
	Operations []Operation `json:"operations,omitempty"`
	// Statements is nil while the statement probe is off.
	Statements *Statements `json:"statements,omitempty"`
	// Active is nil where no active probe is asked for.
	Active *Active `json:"active,omitempty"`
	// Usage is nil where nothing of it could be read.
	Usage *Usage `json:"usage,omitempty"`
	// PlacementErr says why it is not where its policy wants it; empty when it
	// is, and where no policy wants anything.
	PlacementErr string `json:"placementError,omitempty"`
	// Err says why Resources could not be read; empty when they were.
	Err string `json:"error,omitempty"`
}

// LocalShare returns the share (0 to 1) of the instance's memory that lies on
// the NUMA node it was placed on, and false when it is not placed on one node
// or nothing was read.
func (s *InstanceStatus) LocalShare() (float64, bool) {
	if s.Placement == nil || s.Placement.Node < 0 {
		return 0, false
	}
	var sum int64
	for _, b := range s.Resources.NodeBytes {
		sum += b
	}
	if sum == 0 {
		return 0, false
	}
	return float64(s.Resources.NodeBytes[s.Placement.Node]) / float64(sum), true
}

// Phase is where a fault stands.
type Phase string

// The phases of a fault. Ended faults stay in the snapshot for a while, so
// that what happened can be read afterwards.
const (
	FaultActive Phase = "active"
	FaultEnded  Phase = "ended"
	// FaultStuck means that the undo could not be verified: a person must look.
	FaultStuck Phase = "stuck"
)

// Fault is one fault on one instance.
type Fault struct {
	UID      string            `json:"uid"`
	Kind     string            `json:"kind"`
	Instance string            `json:"instance"`
	Params   map[string]string `json:"params,omitempty"`
	Started  time.Time         `json:"started"`
	Deadline time.Time         `json:"deadline"`
	Phase    Phase             `json:"phase"`
	// Ended is when the undo was verified.
	Ended time.Time `json:"ended,omitzero"`
	// Reason says why it ended: "deadline", "stopped", "lease", "recovered",
	// "agent stopped".
	Reason string `json:"reason,omitempty"`
	// Hits is how often the kernel applied the fault (packets, calls).
	Hits uint64 `json:"hits"`
	// Err is the last thing that went wrong.
	Err string `json:"error,omitempty"`
	// LeaseUntil is when the fault ends unless whoever asked for it asks again;
	// zero for one that goes on to its deadline.
	LeaseUntil time.Time `json:"leaseUntil,omitzero"`
	// Verified says that after the end everything was read again, and Residue
	// lists what still differed from before the fault.
	Verified bool     `json:"verified,omitempty"`
	Residue  []string `json:"residue,omitempty"`
}

// Capability is one thing this node can or cannot do, found by firing it.
type Capability struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says how it is done, or why it cannot be.
	Detail string `json:"detail"`
}

// Collector is how one source of the snapshot fared in the last tick.
type Collector struct {
	Name     string        `json:"name"`
	Duration time.Duration `json:"duration"`
	Err      string        `json:"error,omitempty"`
}

// Node is what the snapshot says of a NUMA node.
type Node struct {
	ID         int    `json:"id"`
	CPUs       string `json:"cpus"`
	TotalBytes int64  `json:"totalBytes"`
	FreeBytes  int64  `json:"freeBytes"`
	Distances  []int  `json:"distances"`
}

// Probe is how statements are being timed.
type Probe struct {
	// Mode is "fentry", "tracepoint" or "off".
	Mode string `json:"mode"`
	// Detail says why this mode was chosen.
	Detail string `json:"detail,omitempty"`
	// Lost counts what the probe could not count as it should, by the reasons of
	// package bpf: a statement or connection that is missing everywhere, or one that
	// was counted without its text, record or error code.
	Lost map[string]uint64 `json:"lost,omitempty"`
	// Events counts what the kernel told one by one, by kind.
	Events map[string]uint64 `json:"events,omitempty"`
	// Maps is how full the kernel's maps are, by name.
	Maps map[string]MapFill `json:"maps,omitempty"`
	// RunTime is the time spent in each program, while the kernel measures it.
	RunTime map[string]time.Duration `json:"runTime,omitempty"`
}

// MapFill is how many of its entries a map of the kernel has.
type MapFill struct {
	Entries  int `json:"entries"`
	Capacity int `json:"capacity"`
}

// Snapshot is everything the agent knows at one moment.
type Snapshot struct {
	Time      time.Time        `json:"time"`
	NodeName  string           `json:"nodeName"`
	Version   string           `json:"version"`
	Instances []InstanceStatus `json:"instances"`
	// Missing are the declared pods that run here and in which no server was
	// found; see pods.Result.
	Missing []Declared `json:"missing,omitempty"`
	// UnknownListeners counts listening processes that matched no known
	// engine and were left alone.
	UnknownListeners int `json:"unknownListeners"`
	// Unresolved lists what looked like an instance and could not be resolved
	// exactly, each with its reason; nothing is done to it.
	Unresolved []string `json:"unresolved,omitempty"`
	// PolicyDigest names the declarations in force, with "+partial" behind it where
	// some had to be left out, which Unresolved names; empty before the first.
	PolicyDigest string `json:"policyDigest,omitempty"`
	// Epoch is the highest fencing epoch seen of a controller.
	Epoch uint64 `json:"epoch,omitempty"`
	// LimitsWriter is who writes the limits of pods: "kubelet" or "agent"; empty
	// while that is not known.
	LimitsWriter string       `json:"limitsWriter,omitempty"`
	Faults       []Fault      `json:"faults,omitempty"`
	Capabilities []Capability `json:"capabilities"`
	Collectors   []Collector  `json:"collectors"`
	Nodes        []Node       `json:"nodes"`
	// Machine is the node as a whole.
	Machine *Machine `json:"machine,omitempty"`
	Probe   Probe    `json:"probe"`
	// Records is what became of records.
	Records Records `json:"records"`
	// DigestTable is how full the table of digests is; nil while the statement
	// probe is off.
	DigestTable *DigestTable `json:"digestTable,omitempty"`
	// Journal reports a damaged journal that was set aside at start.
	Journal string `json:"journal,omitempty"`
}

// ErrUnknownInstance is returned by Find when no instance fits.
var ErrUnknownInstance = errors.New("unknown instance")

// ErrAmbiguous is returned by Find when several instances fit.
var ErrAmbiguous = errors.New("ambiguous instance")

// Find returns the instance whose ID is ref, or the only one whose Name is
// ref. It never guesses: with several of that name the error wraps
// ErrAmbiguous and lists their IDs.
func (s *Snapshot) Find(ref string) (*InstanceStatus, error) {
	var found []*InstanceStatus
	var known []string
	for i := range s.Instances {
		in := &s.Instances[i]
		if in.ID == ref {
			return in, nil
		}
		if in.Name == ref {
			found = append(found, in)
		}
		known = append(known, in.ID)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if len(known) == 0 {
			return nil, fmt.Errorf("%w %q: no instance was found on this node", ErrUnknownInstance, ref)
		}
		return nil, fmt.Errorf("%w %q: this node has %s", ErrUnknownInstance, ref, strings.Join(known, ", "))
	}
	var ids []string
	for _, in := range found {
		ids = append(ids, in.ID)
	}
	slices.Sort(ids)
	return nil, fmt.Errorf("%w: %d instances are named %q; use one of the ids %s", ErrAmbiguous, len(ids), ref, strings.Join(ids, ", "))
}

// Capability returns the capability of that name; one that was never probed
// comes back with OK false and says so.
func (s *Snapshot) Capability(name string) Capability {
	for _, c := range s.Capabilities {
		if c.Name == name {
			return c
		}
	}
	return Capability{Name: name, Detail: "not probed"}
}
