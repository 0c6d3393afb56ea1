package agent

import (
	"errors"
	"fmt"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/resource"
	"github.com/mooring-dev/mooring/agent/state"
)

// usageSource reads what the node and its instances use. The zero value opens
// itself when it is first asked; only the loop's goroutine uses it.
type usageSource struct {
	reader   *resource.Reader
	surveyor *resource.Surveyor
}

func (u *usageSource) open(cfg *Config) error {
	if u.reader != nil {
		return nil
	}
	r, err := resource.New(cfg.ProcRoot, cfg.SysRoot)
	if err != nil {
		return err
	}
	u.reader, u.surveyor = r, resource.NewSurveyor(cfg.ProcRoot)
	return nil
}

// readMachine reads the node as a whole.
func (u *usageSource) readMachine(cfg *Config, next *state.Snapshot) error {
	if err := u.open(cfg); err != nil {
		return err
	}
	var err error
	next.Machine, err = u.reader.Machine()
	return err
}

// readInstances reads what each instance uses. What one lacks does not keep the
// others from being read.
func (u *usageSource) readInstances(cfg *Config, groups *cgroup.FS, next *state.Snapshot) error {
	if err := u.open(cfg); err != nil {
		return err
	}
	here := make([]state.Instance, len(next.Instances))
	for i := range next.Instances {
		here[i] = next.Instances[i].Instance
	}
	u.reader.Begin(here)
	u.surveyor.Begin(here)
	var errs []error
	for i := range next.Instances {
		in := &next.Instances[i]
		var err error
		in.Usage, err = u.reader.Instance(&in.Instance, groupDirs(groups, in))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.ID, err))
		}
		in.Usage.Survey = u.surveyor.Latest(&in.Instance)
		if s := in.Usage.Survey; s != nil && s.Err != "" {
			errs = append(errs, fmt.Errorf("%s: survey: %s", in.ID, s.Err))
		}
	}
	return errors.Join(errs...)
}

// groupDirs are the directories of an instance's cgroup; none where it is shared,
// or was not the one that was found when its limits were read just now.
func groupDirs(groups *cgroup.FS, in *state.InstanceStatus) resource.Dirs {
	if in.Cgroup.Shared != "" || in.Err != "" {
		return nil
	}
	paths := in.Cgroup.Paths
	if in.Cgroup.Version == 2 {
		paths = map[string]string{"": in.Cgroup.Path}
	}
	return groups.Dirs(paths)
}
