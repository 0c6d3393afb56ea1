package change

import "time"

// Class says which Handler carries out a change.
type Class string

// The classes of changes.
const (
	// File is a write to a control file of a cgroup.
	File Class = "file"
	// Freeze stops all processes of a cgroup.
	Freeze Class = "freeze"
	// Net disturbs the packets of one host interface.
	Net Class = "net"
	// IO fails file operations of one cgroup on one device.
	IO Class = "io"
)

// Change is one reversible alteration. Exactly the member that Class names is
// set (Freeze uses File).
type Change struct {
	Class Class       `json:"class"`
	File  *FileChange `json:"file,omitempty"`
	Net   *NetRule    `json:"net,omitempty"`
	IO    *IORule     `json:"io,omitempty"`
}

// FileChange is a write to one control file of a cgroup.
type FileChange struct {
	// Path is the absolute path of the file.
	Path string `json:"path"`
	// CgroupID is the inode number of the directory that holds the file: a
	// cgroup made again under the same name is another one and is left alone.
	CgroupID uint64 `json:"cgroupId"`
	// New is the value to write.
	New string `json:"new"`
	// Old is the value found before the first write; Prepare fills it.
	Old string `json:"old"`
}

// NetRule disturbs packets that leave the host through one interface, which
// is to say that they arrive at the instance at its other end.
type NetRule struct {
	// Link is the interface index in the agent's network namespace.
	Link int `json:"link"`
	// Name is the interface name, checked against Link before every act.
	// Empty in a plan; Prepare fills it.
	Name string `json:"name"`
	// Delay is added to every packet, varied by up to Jitter.
	Delay  time.Duration `json:"delay,omitempty"`
	Jitter time.Duration `json:"jitter,omitempty"`
	// LossPPM is the share of packets dropped, in parts per million.
	LossPPM uint32 `json:"lossPpm,omitempty"`
	// Deadline is CLOCK_BOOTTIME at which the kernel stops applying the rule.
	Deadline time.Duration `json:"deadline"`
}

// IORule makes file operations of one cgroup on one device fail.
type IORule struct {
	CgroupID uint64 `json:"cgroupId"`
	Major    uint32 `json:"major"`
	Minor    uint32 `json:"minor"`
	// Read and Write choose the operations.
	Read  bool `json:"read,omitempty"`
	Write bool `json:"write,omitempty"`
	// Errno is the positive error number returned to the caller.
	Errno int `json:"errno"`
	// PPM is the share of operations that fail, in parts per million.
	PPM uint32 `json:"ppm"`
	// Deadline is CLOCK_BOOTTIME at which the kernel stops applying the rule.
	Deadline time.Duration `json:"deadline"`
}

// Handler carries out the changes of one class. All methods are called from
// one goroutine at a time.
type Handler interface {
	// Prepare checks that the change can be made and fills its pre-image. It
	// alters nothing.
	Prepare(c *Change) error
	// Apply makes the change and reads it back.
	Apply(c Change) error
	// Revert restores the pre-image and reads it back. It is idempotent, and
	// it works in a process that did not apply the change. A target that no
	// longer exists counts as reverted.
	Revert(c Change) error
}
