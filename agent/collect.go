package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
	"github.com/mooring-dev/mooring/numa"
)

// collector keeps, between ticks, what is too dear to read in each of them.
// Only the loop's goroutine uses it.
type collector struct {
	found      pods.Result
	discovered time.Time
	nodes      []state.Node
	mapped     time.Time // when nodes were read
	runs       []state.Collector
	// codes are the error codes that are shown of each instance.
	codes map[string]map[string]bool
	usage usageSource
}

// timed runs one source of the snapshot and records how it fared. A source
// that panics is a source that failed.
func (c *collector) timed(name string, f func() error) {
	start := time.Now()
	err := func() (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		return f()
	}()
	run := state.Collector{Name: name, Duration: time.Since(start)}
	if err != nil {
		run.Err = err.Error()
	}
	c.runs = append(c.runs, run)
}

// tick reads everything once and publishes it.
func (a *Agent) tick(ctx context.Context) {
	c := &a.collector
	c.runs = nil
	next := &state.Snapshot{
		NodeName:     a.cfg.NodeName,
		Version:      a.cfg.Version,
		Capabilities: a.capabilities,
		Journal:      a.damage,
		Probe:        a.probe,
		PolicyDigest: a.policyDigest(),
		Epoch:        a.fence.Highest(),
	}
	c.timed("instances", func() error { return a.discover(ctx) })
	next.UnknownListeners, next.Missing = c.found.UnknownListeners, c.found.Missing
	next.Unresolved = a.unsettledNotes()
	if d := a.fence.Damage(); d != "" {
		next.Unresolved = append(next.Unresolved, d)
	}
	next.Unresolved = slices.Concat(next.Unresolved, a.desiredNotes(), c.found.Unresolved)
	c.timed("topology", func() error { return a.topology(next) })
	c.timed("resources", func() error { return a.resources(next) })
	a.readUsage(next)
	c.timed("statements", func() error { return a.readStatements(next) })
	a.readRecords(next)
	c.timed("active", func() error { return a.readActive(next) })
	c.timed("faults", func() error { return a.readFaults(next) })
	a.readKubernetes(next)
	next.Time = time.Now()
	c.timed("trend", func() error { a.trends.Add(next); return nil })
	next.Collectors = c.runs
	a.snapshot.Store(next)
	a.ticked.Wake()
}

// discover looks for instances when it is time to, and tells the statement
// probe about them. A failing source keeps the instances found before.
func (a *Agent) discover(ctx context.Context) error {
	c := &a.collector
	changed := a.desired.changed.Swap(false)
	if time.Since(c.discovered) < a.cfg.Discover && !c.discovered.IsZero() && !changed {
		return nil
	}
	found, err := a.source.Instances(ctx)
	if err != nil {
		return fmt.Errorf("find instances: %w", err)
	}
	a.logChanges(c.found.Instances, found.Instances)
	c.forgetCodes(found.Instances)
	c.found, c.discovered = found, time.Now()
	return errors.Join(a.probeTargets(found.Instances), a.watch(found.Instances))
}

// forgetCodes drops the error codes of instances that are gone.
func (c *collector) forgetCodes(instances []state.Instance) {
	kept := make(map[string]map[string]bool, len(instances))
	for i := range instances {
		if codes, ok := c.codes[instances[i].ID]; ok {
			kept[instances[i].ID] = codes
		}
	}
	c.codes = kept
}

// logChanges says which instances came and went.
func (a *Agent) logChanges(before, after []state.Instance) {
	ids := func(in []state.Instance) map[string]state.Engine {
		m := map[string]state.Engine{}
		for _, i := range in {
			m[i.ID] = i.Engine
		}
		return m
	}
	old, now := ids(before), ids(after)
	for id, e := range now {
		if _, ok := old[id]; !ok {
			a.log.Info("instance found", "component", "pods", "instance", id, "engine", string(e))
		}
	}
	for id, e := range old {
		if _, ok := now[id]; !ok {
			a.log.Info("instance gone", "component", "pods", "instance", id, "engine", string(e))
		}
	}
}

// watch tells the statement probe which servers to time.
func (a *Agent) watch(instances []state.Instance) error {
	if a.statements == nil {
		return nil
	}
	var w []bpf.Watched
	for i := range instances {
		if protocolOf(instances[i].Engine) != 0 {
			w = append(w, watched(&instances[i], a.statementsPolicy(&instances[i])))
		}
	}
	// The digests before the kernel, so that no event comes of a server that they
	// do not know.
	if err := a.watchDigests(instances); err != nil {
		return fmt.Errorf("set digests: %w", err)
	}
	if err := a.statements.Set(w); err != nil {
		return fmt.Errorf("set watched servers: %w", err)
	}
	return nil
}

// protocolOf returns what the statement probe calls an engine's protocol, 0
// where it knows none.
func protocolOf(e state.Engine) bpf.Protocol {
	switch e.Wire() {
	case state.WirePostgreSQL:
		return bpf.ProtocolPostgres
	case state.WireMySQL:
		return bpf.ProtocolMySQL
	case state.WireRedis:
		return bpf.ProtocolRedis
	case state.WireMongoDB:
		return bpf.ProtocolMongo
	}
	return 0
}

// watched translates an instance for package bpf, which knows none.
func watched(in *state.Instance, p state.StatementsPolicy) bpf.Watched {
	w := bpf.Watched{
		ID: in.ID, PIDs: in.PIDs, Ports: in.Ports, Protocol: protocolOf(in.Engine),
		Slow: p.Slow, Audit: auditClass(p.Audit), NoText: p.DigestsOff,
	}
	if in.Cgroup.Version == 2 && in.Cgroup.Shared == "" {
		w.CgroupID = in.Cgroup.ID
	}
	return w
}

// topology reads the NUMA nodes as often as instances are looked for: it is some
// files for each CPU. Who places an instance reads them anew.
func (a *Agent) topology(next *state.Snapshot) error {
	c := &a.collector
	if time.Since(c.mapped) < a.cfg.Discover && !c.mapped.IsZero() {
		next.Nodes = c.nodes
		return nil
	}
	t, err := numa.Read(a.cfg.SysRoot, a.cfg.ProcRoot)
	if err != nil {
		return fmt.Errorf("read topology: %w", err)
	}
	// What a snapshot has is not changed any more.
	nodes := make([]state.Node, 0, len(t.Nodes))
	for _, n := range t.Nodes {
		nodes = append(nodes, state.Node{
			ID: n.ID, CPUs: n.CPUs.String(), TotalBytes: n.MemTotalBytes,
			FreeBytes: n.MemFreeBytes, Distances: n.Distances,
		})
	}
	c.nodes, c.mapped = nodes, time.Now()
	next.Nodes = nodes
	return nil
}

// resources reads each instance's cgroup. One that cannot be read keeps its
// place in the snapshot with the reason.
func (a *Agent) resources(next *state.Snapshot) error {
	var errs []error
	for _, in := range a.collector.found.Instances {
		s := state.InstanceStatus{Instance: in}
		if in.Cgroup.Shared != "" {
			// Its figures would be somebody else's too.
			s.PlacementErr = a.placementErr(next.Nodes, &s)
			next.Instances = append(next.Instances, s)
			continue
		}
		if err := a.measure(next.Nodes, &s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.ID, err))
		}
		s.PlacementErr = a.placementErr(next.Nodes, &s)
		next.Instances = append(next.Instances, s)
	}
	return errors.Join(errs...)
}

// measure reads an instance's cgroup, and keeps why it could not. What the pod
// counted is left out alone where only that cannot be read.
func (a *Agent) measure(nodes []state.Node, s *state.InstanceStatus) error {
	g, err := a.open(&s.Instance)
	if err == nil {
		s.Resources, err = readCgroup(g)
	}
	if err != nil {
		s.Err = err.Error()
		return err
	}
	s.Placement = placement(nodes, s.Resources.MemoryNodes)
	s.Resources.PodOOMKills, err = podOOMKills(g, &s.Instance)
	return err
}

// open returns the instance's cgroup.
func (a *Agent) open(in *state.Instance) (*cgroup.Group, error) {
	paths := in.Cgroup.Paths
	if in.Cgroup.Version == 2 {
		paths = map[string]string{"": in.Cgroup.Path}
	}
	g, err := a.cgroups.Open(paths)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", in.Cgroup.Path, err)
	}
	if g.ID() != in.Cgroup.ID {
		return nil, fmt.Errorf("cgroup %s was made again since the instance was found; try again in %v", in.Cgroup.Path, 5*time.Second)
	}
	return g, nil
}

// stat reads the instance's cgroup.
func (a *Agent) stat(in *state.Instance) (state.Resources, error) {
	g, err := a.open(in)
	if err != nil {
		return state.Resources{}, err
	}
	return readCgroup(g)
}

func readCgroup(g *cgroup.Group) (state.Resources, error) {
	s, err := g.Stat()
	if err != nil {
		return state.Resources{}, err
	}
	return state.Resources{
		CPUMillicores: s.CPUMillicores, CPUUsage: s.CPUUsage, CPUThrottled: s.CPUThrottled,
		MemoryLimitBytes: s.MemoryLimitBytes, MemoryUsageBytes: s.MemoryUsageBytes,
		MemoryInUseBytes: s.MemoryInUseBytes, OOMKills: s.OOMKills,
		CPUs: s.CPUs, MemoryNodes: s.MemoryNodes, NodeBytes: s.NodeBytes,
	}, nil
}

// podOOMKills reads what the pod of an instance counted, nil if it has none. The
// cgroup of a container is right below its pod's. With the container goes its own
// count of kills, and the server's end takes the container with it.
func podOOMKills(g *cgroup.Group, in *state.Instance) (*int64, error) {
	if in.PodUID == "" {
		return nil, nil
	}
	kills, ok, err := g.OOMKillsAbove()
	if err != nil || !ok {
		return nil, err
	}
	return &kills, nil
}

// placement derives where an instance is from the memory nodes it may use: it
// is placed when that is one node of several. Nothing is remembered, so what
// is reported is what the kernel holds it to.
func placement(nodes []state.Node, mems string) *state.Placement {
	n, err := strconv.Atoi(strings.TrimSpace(mems))
	if err != nil || len(nodes) < 2 {
		return nil
	}
	return &state.Placement{Policy: "single-node", Node: n}
}

// readKubernetes says who writes limits and how the API server and the list of
// pods fare. Both are asked in the background; nothing is waited for here.
func (a *Agent) readKubernetes(next *state.Snapshot) {
	if a.api == nil {
		return
	}
	next.LimitsWriter = a.limitsWriter()
	r := a.api.Reachability()
	a.collector.runs = append(a.collector.runs,
		state.Collector{Name: state.CollectorAPIServer, Duration: r.Took, Err: oneLine(r.Err)},
		state.Collector{Name: state.CollectorPods, Err: oneLine(a.pods.Synced())})
}
