package state

import "time"

// Usage is what an instance uses of its node, beyond Resources. What the kernel
// does not tell is nil, or missing from a map.
type Usage struct {
	// Group is read from the cgroup; nil where that is shared with others.
	Group *GroupUsage `json:"group,omitempty"`
	// Tasks are the instance's processes and threads.
	Tasks TaskUsage `json:"tasks"`
	// Network is what its network namespace counted; nil in the host's, where it
	// would be everybody's.
	Network *NetworkUsage `json:"network,omitempty"`
	// Survey is what the background survey found last; nil before its first.
	Survey *Survey `json:"survey,omitempty"`
	// IO are the latencies of block requests ("read", "write") and of "fsync",
	// timed in the kernel; empty where that could not be attached.
	IO []Operation `json:"io,omitempty"`
}

// GroupUsage is read from the files of one cgroup. Counters are since it was made.
type GroupUsage struct {
	CPU CPUUsage `json:"cpu"`
	// MemoryBytes is all that is charged, WorkingSetBytes that without the file
	// pages that were not used for long.
	MemoryBytes     int64 `json:"memoryBytes"`
	WorkingSetBytes int64 `json:"workingSetBytes"`
	SwapBytes       int64 `json:"swapBytes"`
	// MemoryKinds holds parts of MemoryBytes by the names version 2 has for
	// them: "anon", "file", "shmem", "slab_reclaimable", ….
	MemoryKinds map[string]int64 `json:"memoryKinds,omitempty"`
	// MemoryEvents counts by the names of memory.events: "low", "high", "max",
	// "oom", "oom_kill".
	MemoryEvents map[string]int64 `json:"memoryEvents,omitempty"`
	MajorFaults  int64            `json:"majorFaults"`
	// Pressure is nil on version 1, and where the kernel has it switched off.
	Pressure *Pressure   `json:"pressure,omitempty"`
	Disks    []DiskUsage `json:"disks,omitempty"`
	// TaskLimit is the largest number of threads; 0 means none.
	TaskLimit int64 `json:"taskLimit,omitempty"`
}

// CPUUsage is CPU time and how often its limit was met.
type CPUUsage struct {
	Usage            time.Duration `json:"usage"`
	User             time.Duration `json:"user"`
	System           time.Duration `json:"system"`
	Periods          int64         `json:"periods"`
	ThrottledPeriods int64         `json:"throttledPeriods"`
	Throttled        time.Duration `json:"throttled"`
}

// Pressure is the time in which some, or all, of the tasks waited.
type Pressure struct {
	CPU    Stall `json:"cpu"`
	Memory Stall `json:"memory"`
	IO     Stall `json:"io"`
}

// Stall is one resource's pressure: Some is the time in which at least one task
// waited for it, Full that in which all that were not idle did.
type Stall struct {
	Some time.Duration `json:"some"`
	Full time.Duration `json:"full"`
}

// DiskUsage is what a cgroup read and wrote on one device.
type DiskUsage struct {
	// Device is "/dev/" and the kernel's name, else "major:minor".
	Device     string `json:"device"`
	ReadBytes  int64  `json:"readBytes"`
	WriteBytes int64  `json:"writeBytes"`
	Reads      int64  `json:"reads"`
	Writes     int64  `json:"writes"`
}

// TaskUsage is what an instance's processes and threads are at.
type TaskUsage struct {
	Processes int `json:"processes"`
	Threads   int `json:"threads"`
	// Uninterruptible counts threads that were in state D when last looked at.
	Uninterruptible int `json:"uninterruptible"`
	// RunDelay is the time threads were ready and waited for a CPU, added up
	// since they were first seen.
	RunDelay time.Duration `json:"runDelay"`
}

// NetworkUsage is what one network namespace counted of TCP since it was made.
type NetworkUsage struct {
	SentSegments          int64 `json:"sentSegments"`
	RetransmittedSegments int64 `json:"retransmittedSegments"`
	// SentResets are RST segments sent, ReceivedResets connections that ended
	// by one.
	SentResets     int64 `json:"sentResets"`
	ReceivedResets int64 `json:"receivedResets"`
	// ListenOverflows are connections refused because a listener's queue was
	// full, ListenDrops those lost for that or any other reason.
	ListenOverflows int64 `json:"listenOverflows"`
	ListenDrops     int64 `json:"listenDrops"`
}

// Survey is what is too dear, or may block too long, to be looked at each tick.
type Survey struct {
	Time        time.Time    `json:"time"`
	Directories []Directory  `json:"directories,omitempty"`
	Connections *Connections `json:"connections,omitempty"`
	// DeletedOpenBytes is space that files hold which are deleted and still open
	// in one of the instance's processes.
	DeletedOpenBytes int64 `json:"deletedOpenBytes"`
	// Descriptors are those of all processes; Fullest has the process that is
	// nearest to its own limit.
	Descriptors int             `json:"descriptors"`
	Fullest     DescriptorUsage `json:"fullest"`
	// Complete says that every descriptor was looked at; where it is false the
	// bound was met, and DeletedOpenBytes is of the descriptors up to it.
	Complete bool `json:"complete"`
	// Err says what could not be looked at.
	Err string `json:"error,omitempty"`
}

// DescriptorUsage is one process's use of descriptors.
type DescriptorUsage struct {
	Open int `json:"open"`
	// Limit is 0 where there is none.
	Limit int64 `json:"limit"`
}

// Directory is the file system that holds one of an instance's directories.
type Directory struct {
	// Name is "data" or "log"; Path is in the instance's mount namespace.
	Name           string `json:"name"`
	Path           string `json:"path"`
	SizeBytes      int64  `json:"sizeBytes"`
	UsedBytes      int64  `json:"usedBytes"`
	AvailableBytes int64  `json:"availableBytes"`
	// Inodes is 0 on a file system that makes them as it needs them.
	Inodes     int64 `json:"inodes"`
	FreeInodes int64 `json:"freeInodes"`
}

// Connections are the established TCP connections to an instance's ports.
type Connections struct {
	Count int `json:"count"`
	// MeanRoundTrip and MaxRoundTrip are of the kernel's smoothed estimates.
	MeanRoundTrip time.Duration `json:"meanRoundTrip"`
	MaxRoundTrip  time.Duration `json:"maxRoundTrip"`
	// Unacknowledged segments are on the way now.
	Unacknowledged int64 `json:"unacknowledged"`
	// Retransmissions are added up over surveys; those of a connection that
	// began and ended between two of them are not seen.
	Retransmissions int64 `json:"retransmissions"`
}

// Machine is what the node as a whole uses.
type Machine struct {
	CPUs            []CPUModes `json:"cpus,omitempty"`
	Load            [3]float64 `json:"load"`
	ContextSwitches uint64     `json:"contextSwitches"`
	Running         int        `json:"running"`
	Blocked         int        `json:"blocked"`
	BootTime        time.Time  `json:"bootTime"`
	// Memory holds sizes in bytes by the names of /proc/meminfo.
	Memory map[string]int64 `json:"memory,omitempty"`
	// Counts holds some counters of /proc/vmstat by their names there.
	Counts    map[string]int64 `json:"counts,omitempty"`
	Pressure  *Pressure        `json:"pressure,omitempty"`
	Disks     []DiskStats      `json:"disks,omitempty"`
	Backlogs  []Backlog        `json:"backlogs,omitempty"`
	Clock     *Clock           `json:"clock,omitempty"`
	Conntrack *Conntrack       `json:"conntrack,omitempty"`
	// IOProbes says how block requests and fsync are timed, IOLost counts what
	// could not be, by reason.
	IOProbes []IOProbe         `json:"ioProbes,omitempty"`
	IOLost   map[string]uint64 `json:"ioLost,omitempty"`
}

// IOProbe is how one kind of I/O is timed.
type IOProbe struct {
	// Name is "block" or "fsync".
	Name string `json:"name"`
	// Mode is "tracepoint", "fentry" or "off", and Detail says why.
	Mode   string `json:"mode"`
	Detail string `json:"detail"`
}

// CPUModes is where one CPU's time went, by node_exporter's names of modes.
type CPUModes struct {
	CPU   int                      `json:"cpu"`
	Modes map[string]time.Duration `json:"modes"`
}

// DiskStats are the counters of one block device.
type DiskStats struct {
	Device       string        `json:"device"`
	Reads        uint64        `json:"reads"`
	ReadBytes    uint64        `json:"readBytes"`
	ReadTime     time.Duration `json:"readTime"`
	Writes       uint64        `json:"writes"`
	WrittenBytes uint64        `json:"writtenBytes"`
	WriteTime    time.Duration `json:"writeTime"`
	InFlight     uint64        `json:"inFlight"`
	Busy         time.Duration `json:"busy"`
	WeightedBusy time.Duration `json:"weightedBusy"`
	Flushes      uint64        `json:"flushes"`
	FlushTime    time.Duration `json:"flushTime"`
	FlushesKnown bool          `json:"flushesKnown"`
}

// Backlog is one CPU's queue of received packets.
type Backlog struct {
	CPU      int    `json:"cpu"`
	Dropped  uint64 `json:"dropped"`
	Squeezed uint64 `json:"squeezed"`
}

// Clock is what the kernel thinks of its wall clock.
type Clock struct {
	Offset       time.Duration `json:"offset"`
	MaxError     time.Duration `json:"maxError"`
	Synchronised bool          `json:"synchronised"`
}

// Conntrack is how full the table of tracked connections is.
type Conntrack struct {
	Entries int64 `json:"entries"`
	Limit   int64 `json:"limit"`
}
