package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/resource"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

// usageSource reads what the node and its instances use. The zero value opens
// itself when it is first asked; only the loop's goroutine uses it.
type usageSource struct {
	reader   *resource.Reader
	surveyor *resource.Surveyor
	// latency is nil where neither half of it works; probes say why.
	latency *bpf.IOLatency
	probes  []state.IOProbe
	// looked is when usage was last read, runs are how that fared.
	looked time.Time
	runs   []state.Collector
}

// readUsage reads what the node and its instances use, as often as instances are
// looked for and not in every tick: it is the dearest thing that an agent reads.
// Between, the snapshot has what was read last; an instance that has come since
// has nothing yet.
func (a *Agent) readUsage(next *state.Snapshot) {
	c := &a.collector
	before := a.Snapshot()
	if before != nil && time.Since(c.usage.looked) < a.cfg.Discover {
		carryUsage(before, next)
		c.runs = append(c.runs, c.usage.runs...)
		return
	}
	c.usage.looked = time.Now()
	read := len(c.runs)
	c.timed("machine", func() error { return c.usage.readMachine(&a.cfg, next) })
	c.timed("usage", func() error { return c.usage.readInstances(&a.cfg, a.cgroups, next) })
	c.usage.runs = slices.Clone(c.runs[read:])
}

// carryUsage takes over what was read for the snapshot before. An instance whose
// server or cgroup is another one since has nothing yet: the figures of the one
// before would be taken for its own.
func carryUsage(before, next *state.Snapshot) {
	next.Machine = before.Machine
	was := make(map[string]*state.InstanceStatus, len(before.Instances))
	for i := range before.Instances {
		was[before.Instances[i].ID] = &before.Instances[i]
	}
	for i := range next.Instances {
		in := &next.Instances[i]
		if old := was[in.ID]; old != nil && old.Cgroup.ID == in.Cgroup.ID && old.MainPID == in.MainPID {
			in.Usage = old.Usage
		}
	}
}

// openLatency attaches the timers of block requests and fsync, and reports on
// both. They are attached only where statements may be timed.
func (u *usageSource) openLatency(cfg *Config) []state.Capability {
	block, fsync := errors.New("switched off by --probe=off"), errors.New("switched off by --probe=off")
	if cfg.Probe != "off" {
		var err error
		if u.latency, err = bpf.OpenIOLatency(existing(cfg.StateDir)); err != nil {
			block, fsync = err, err
		} else {
			block, fsync = u.latency.Block(), u.latency.Fsync()
		}
	}
	var caps []state.Capability
	u.probes = nil
	for _, half := range []struct {
		name, mode string
		err        error
	}{{"block", "tracepoint", block}, {"fsync", "fentry", fsync}} {
		p := state.IOProbe{Name: half.name, Mode: half.mode, Detail: "attached and seen to fire"}
		if half.err != nil {
			p.Mode, p.Detail = "off", oneLine(half.err)
		}
		u.probes = append(u.probes, p)
		caps = append(caps, state.Capability{Name: half.name + "-latency", OK: half.err == nil, Detail: p.Detail})
	}
	return caps
}

// existing returns a directory, or the nearest above it that is there: a node on
// which only doctor ran has no state yet.
func existing(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// Close implements io.Closer.
func (u *usageSource) Close() error {
	if u.latency == nil {
		return nil
	}
	return u.latency.Close()
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
	next.Machine.IOProbes = u.probes
	if u.latency != nil {
		var lostErr error
		next.Machine.IOLost, lostErr = u.latency.Lost()
		err = errors.Join(err, lostErr)
	}
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
	if err := u.watch(groups, next); err != nil {
		errs = append(errs, fmt.Errorf("time block requests and fsync: %w", err))
	}
	for i := range next.Instances {
		in := &next.Instances[i]
		var err error
		in.Usage, err = u.reader.Instance(&in.Instance, groupDirs(groups, in))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.ID, err))
		}
		if in.Usage.IO, err = u.readLatency(in); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.ID, err))
		}
		in.Usage.Survey = u.surveyor.Latest(&in.Instance)
		if s := in.Usage.Survey; s != nil && s.Err != "" {
			errs = append(errs, fmt.Errorf("%s: survey: %s", in.ID, s.Err))
		}
	}
	return errors.Join(errs...)
}

// watch tells the timers which cgroups are the instances'. Where the io controller
// is not enabled, as the lack of io.stat shows, the kernel charges block requests
// to a cgroup above, which is not the instance's alone.
func (u *usageSource) watch(groups *cgroup.FS, next *state.Snapshot) error {
	if u.latency == nil {
		return nil
	}
	watch := map[uint64]bpf.IOWatch{}
	for i := range next.Instances {
		in := &next.Instances[i]
		dir, ok := groupDirs(groups, in)[""]
		if !ok {
			continue
		}
		_, err := os.Stat(filepath.Join(dir, "io.stat"))
		watch[in.Cgroup.ID] = bpf.IOWatch{Block: err == nil, Fsync: true}
	}
	return u.latency.Set(watch)
}

// readLatency copies the kernel's histograms of an instance.
func (u *usageSource) readLatency(in *state.InstanceStatus) ([]state.Operation, error) {
	if u.latency == nil {
		return nil, nil
	}
	ops, err := u.latency.Read(in.Cgroup.ID)
	var out []state.Operation
	for _, o := range ops {
		out = append(out, state.Operation{
			Name: o.Name, Count: o.Count, Sum: time.Duration(o.SumNanoseconds), Classic: o.Classic, Native: o.Native,
		})
	}
	return out, err
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
