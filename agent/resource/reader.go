package resource

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"

	"github.com/mooring-dev/mooring/agent/state"
)

// Dirs are the directories of one cgroup: by controller on version 1, under the
// key "" on version 2.
type Dirs map[string]string

// Reader reads the node and its instances. It keeps between reads what it takes
// to add up the waiting time of threads.
type Reader struct {
	root    string // of procfs
	proc    procfs.FS
	disks   blockdevice.FS
	devices map[string]string // names by "major:minor"
	tasks   map[string]*tasks // by instance
	share   int               // looks at threads that each instance has in a read
}

// New returns a reader of the procfs and sysfs mounted there.
func New(procRoot, sysRoot string) (*Reader, error) {
	proc, err := procfs.NewFS(procRoot)
	if err != nil {
		return nil, fmt.Errorf("open procfs: %w", err)
	}
	disks, err := blockdevice.NewFS(procRoot, sysRoot)
	if err != nil {
		return nil, fmt.Errorf("open sysfs: %w", err)
	}
	return &Reader{
		root: procRoot, proc: proc, disks: disks,
		devices: map[string]string{}, tasks: map[string]*tasks{}, share: looksPerRead,
	}, nil
}

// Begin says which instances this read is of; the others are forgotten.
func (r *Reader) Begin(instances []state.Instance) {
	here := make(map[string]bool, len(instances))
	for i := range instances {
		here[instances[i].ID] = true
	}
	for id := range r.tasks {
		if !here[id] {
			delete(r.tasks, id)
		}
	}
	r.share = max(1, looksPerRead/max(1, len(instances)))
}

// Instance reads one instance. With an error it returns what could be read.
// Empty dirs are those of a cgroup that is shared with others.
func (r *Reader) Instance(in *state.Instance, dirs Dirs) (*state.Usage, error) {
	u := &state.Usage{}
	var errs []error
	var err error
	switch {
	case len(dirs) == 0:
	case in.Cgroup.Version == 1:
		u.Group, err = r.group1(dirs)
	default:
		u.Group, err = r.group2(dirs[""])
	}
	errs = append(errs, err)
	u.Tasks, err = r.readTasks(in, threadFile(in, dirs))
	errs = append(errs, err)
	if !in.HostNetwork && in.MainPID > 0 {
		u.Network, err = r.network(in.MainPID)
		errs = append(errs, err)
	}
	return u, errors.Join(errs...)
}

// threadFile is the file that lists all threads of a cgroup; "" without one.
func threadFile(in *state.Instance, dirs Dirs) string {
	if dir, ok := dirs[""]; ok && in.Cgroup.Version == 2 {
		return filepath.Join(dir, "cgroup.threads")
	}
	if dir, ok := dirs["memory"]; ok {
		return filepath.Join(dir, "tasks")
	}
	return ""
}

// device names a block device as cAdvisor does.
func (r *Reader) device(number string) string {
	if name, ok := r.devices[number]; ok {
		return "/dev/" + name
	}
	return number
}
