package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/numa"
)

// Errors a caller of Apply can tell apart.
var (
	// ErrInvalid means that the request itself is wrong.
	ErrInvalid = errors.New("invalid request")
	// ErrRefused means that the request is well formed and this node or
	// instance cannot have it as things stand. Nothing was changed.
	ErrRefused = errors.New("refused")
)

// errClosing is the answer to a request that came while the agent stops.
var errClosing = refused(errors.New("the agent is stopping; ask the next one"))

// refusal marks an error as caused by the request or the state of the node,
// without adding words to it.
type refusal struct{ kind, err error }

func (r refusal) Error() string   { return r.err.Error() }
func (r refusal) Unwrap() []error { return []error{r.kind, r.err} }

func invalid(err error) error { return refusal{ErrInvalid, err} }
func refused(err error) error { return refusal{ErrRefused, err} }

// Outcome is what a placement or resize came to.
type Outcome struct {
	Instance  string
	Changes   []string
	Reasons   []string
	Resources state.Resources
}

// target finds the instance and refuses one whose cgroup is not its own, or
// whose pod is another than the one meant.
func (a *Agent) target(ref, podUID string) (*state.Snapshot, *state.InstanceStatus, error) {
	s := a.Snapshot()
	if s == nil {
		return nil, nil, refused(errors.New("the agent has not finished its first look at the node; try again in a few seconds"))
	}
	in, err := s.Find(ref)
	if err != nil {
		return nil, nil, invalid(err)
	}
	if podUID != "" && in.PodUID != podUID {
		return nil, nil, refused(fmt.Errorf("instance %q is of a pod with uid %q, not %q: the pod was made again", in.ID, in.PodUID, podUID))
	}
	if in.Cgroup.Shared != "" {
		return nil, nil, refused(fmt.Errorf("nothing is changed on %q: %s", in.ID, in.Cgroup.Shared))
	}
	return s, in, nil
}

// begun ends a request whose caller has given up while it waited for its turn,
// so that it does not come into force behind its successor; one whose turn has
// come is carried to its end, whoever hangs up.
func begun(ctx context.Context) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("nothing was changed, the caller gave up before the request's turn came: %w", err)
	}
	return context.WithoutCancel(ctx), nil
}

// PlaceOptions says how a placement is carried out.
type PlaceOptions struct {
	// Everywhere gives the whole machine back.
	Everywhere bool
	// DryRun plans and checks everything and changes nothing.
	DryRun bool
	// PodUID, where it is not empty, must be that of the instance's pod.
	PodUID string
}

// Place confines an instance to one NUMA node: the one named, or the one that
// policy chooses. Its memory follows. With Everywhere it gets the whole
// machine back. It blocks until the kernel has moved the pages.
func (a *Agent) Place(ctx context.Context, ref, policy string, node *int, o PlaceOptions) (*Outcome, error) {
	a.settings.Lock()
	defer a.settings.Unlock()
	if a.settled {
		return nil, errClosing
	}
	ctx, err := begun(ctx)
	if err != nil {
		return nil, err
	}
	snap, in, err := a.target(ref, o.PodUID)
	if err != nil {
		return nil, err
	}
	if err := a.able("pin", snap); err != nil {
		return nil, err
	}
	g, err := a.open(&in.Instance)
	if err != nil {
		return nil, refused(err)
	}
	var p numa.Placement
	if !o.Everywhere {
		if p, err = a.choose(snap, in, policy, node); err != nil {
			return nil, err
		}
	}
	files, err := g.PlanPin(p.CPUs.String(), numa.NewCPUSet(p.Mems...).String())
	if err != nil {
		return nil, refused(fmt.Errorf("plan pin of %q: %w", in.ID, err))
	}
	if !o.DryRun && !o.Everywhere {
		if err := a.notePin(&in.Instance, files); err != nil {
			return nil, refused(fmt.Errorf("note the pin of %q, nothing was changed: %w", in.ID, err))
		}
	}
	out, err := a.set(ctx, "pin", in, files, o.DryRun)
	if err != nil {
		return nil, err
	}
	if !o.DryRun && o.Everywhere {
		if err := a.forgetPin(&in.Instance); err != nil {
			a.log.Warn("pin given back is still noted", "component", "agent", "instance", in.ID, "err", err)
		}
	}
	out.Reasons = p.Reasons
	if o.DryRun || o.Everywhere {
		return out, nil
	}
	if err := a.follow(ctx, &in.Instance, g, p.Node); err != nil {
		return nil, fmt.Errorf("pin %q: it is confined to node %d, but its memory did not follow: %w", in.ID, p.Node, err)
	}
	if out.Resources, err = a.stat(&in.Instance); err != nil {
		return nil, fmt.Errorf("read back %q: %w", in.ID, err)
	}
	return out, nil
}

// choose runs the placement policy over the instances as they are now.
func (a *Agent) choose(snap *state.Snapshot, in *state.InstanceStatus, policy string, node *int) (numa.Placement, error) {
	t, err := numa.Read(a.cfg.SysRoot, a.cfg.ProcRoot)
	if err != nil {
		return numa.Placement{}, fmt.Errorf("read topology: %w", err)
	}
	var placed []numa.Workload
	for i := range snap.Instances {
		// Read anew: the snapshot may be older than the last placement.
		o := snap.Instances[i]
		if o.Cgroup.Shared != "" {
			continue
		}
		if r, err := a.stat(&o.Instance); err == nil {
			o.Resources, o.Placement = r, placement(snap.Nodes, r.MemoryNodes)
		}
		if o.ID != in.ID && o.Placement != nil {
			placed = append(placed, workload(&o))
		}
	}
	p, err := numa.Place(t, placed, numa.Request{Workload: workload(in), Policy: policy, Node: node})
	if err != nil {
		return p, refused(err)
	}
	return p, nil
}

// workload is what an instance asks of a NUMA node: its limits, or what it
// uses where it has none.
func workload(in *state.InstanceStatus) numa.Workload {
	w := numa.Workload{
		ID: in.ID, Node: -1,
		CPUMillicores: in.Resources.CPUMillicores,
		MemoryBytes:   in.Resources.MemoryLimitBytes,
	}
	if w.MemoryBytes == 0 {
		w.MemoryBytes = in.Resources.MemoryInUseBytes
	}
	if in.Placement != nil {
		w.Node = in.Placement.Node
	}
	return w
}

// ResizeOptions is how a resize is to be done.
type ResizeOptions struct {
	// Force allows a memory limit below what the instance has in use.
	Force bool
	// Raw writes the limits of a pod although they are its kubelet's to write.
	Raw bool
	// DryRun plans and checks everything and changes nothing.
	DryRun bool
	// PodUID, where it is not empty, must be that of the instance's pod.
	PodUID string
}

// Resize changes an instance's CPU and memory limits; nil leaves one as it is.
// Either both are in force when it returns without error, or neither.
func (a *Agent) Resize(ctx context.Context, ref string, want cgroup.Size, o ResizeOptions) (*Outcome, error) {
	a.settings.Lock()
	defer a.settings.Unlock()
	if a.settled {
		return nil, errClosing
	}
	ctx, err := begun(ctx)
	if err != nil {
		return nil, err
	}
	snap, in, err := a.target(ref, o.PodUID)
	if err != nil {
		return nil, err
	}
	if err := a.able("resize", snap); err != nil {
		return nil, err
	}
	if err := a.mayWriteLimits(&in.Instance, o); err != nil {
		return nil, err
	}
	if err := fits(snap, in, want); err != nil {
		return nil, err
	}
	g, err := a.open(&in.Instance)
	if err != nil {
		return nil, refused(err)
	}
	stat, err := g.Stat()
	if err != nil {
		return nil, fmt.Errorf("read cgroup of %q: %w", in.ID, err)
	}
	if want.MemoryBytes != nil {
		if err := cgroup.CheckMemory(stat, *want.MemoryBytes, o.Force); err != nil {
			return nil, refused(fmt.Errorf("resize %q: %w", in.ID, err))
		}
	}
	// A pod's cgroup belongs to the instance as much as the container's.
	want.Parents = in.Source == "kubernetes"
	files, err := g.PlanResize(stat, want)
	if err != nil {
		return nil, refused(fmt.Errorf("resize %q: %w", in.ID, err))
	}
	return a.set(ctx, "resize", in, files, o.DryRun)
}

// mayWriteLimits refuses to write a pod's limits beside its kubelet: two writers
// would correct each other, and the kubelet's view of the pod be wrong. A server
// found in a pod's cgroup is the pod's also when nothing declares it.
func (a *Agent) mayWriteLimits(in *state.Instance, o ResizeOptions) error {
	inPod := in.Source == "kubernetes" || a.cfg.Kubernetes && pods.InPod(in.Cgroup.Path)
	if !inPod || o.Raw {
		return nil
	}
	pod := in.Namespace + "/" + in.Pod
	if in.Pod == "" {
		pod = in.ID
	}
	switch a.limitsWriter() {
	case writerAgent:
		return nil
	case writerKubelet:
		return refused(fmt.Errorf("the limits of pod %q are written by its kubelet: use `kubectl mooring resize`, or --raw in an emergency (kubelet will write its own values at the next resize or restart)", pod))
	}
	return refused(fmt.Errorf("the limits of pod %q may be written by its kubelet, the API server has not said yet: use `kubectl mooring resize`, or --raw in an emergency (kubelet will write its own values at the next resize or restart)", pod))
}

// Who may write the limits of pods.
const (
	writerKubelet = "kubelet"
	writerAgent   = "agent"
)

// limitsWriter says who writes the limits of pods here, "" while that is not
// known and where there are no pods.
func (a *Agent) limitsWriter() string {
	if a.api == nil {
		return ""
	}
	switch serves := a.api.Reachability().ServesResize; {
	case serves == nil:
		return ""
	case *serves:
		return writerKubelet
	}
	return writerAgent
}

// fits refuses sizes that are nonsense or larger than the machine.
func fits(snap *state.Snapshot, in *state.InstanceStatus, want cgroup.Size) error {
	if want.CPUMillicores == nil && want.MemoryBytes == nil {
		return invalid(fmt.Errorf("resize %q: neither a CPU nor a memory limit was given", in.ID))
	}
	if len(snap.Nodes) == 0 {
		return refused(fmt.Errorf("resize %q: the machine's size could not be read; see the topology collector in `mooringctl status`", in.ID))
	}
	var cpus, memory int64
	for _, n := range snap.Nodes {
		set, err := numa.ParseCPUSet(n.CPUs)
		if err != nil {
			return fmt.Errorf("read CPUs of node %d: %w", n.ID, err)
		}
		cpus += int64(set.Len())
		memory += n.TotalBytes
	}
	if c := want.CPUMillicores; c != nil {
		switch {
		case *c < 10:
			return invalid(fmt.Errorf("resize %q: a CPU limit of %dm is below the kernel's least, 10m", in.ID, *c))
		case *c > cpus*1000:
			return refused(fmt.Errorf("resize %q: %dm CPU is more than this machine has (%dm)", in.ID, *c, cpus*1000))
		}
	}
	if m := want.MemoryBytes; m != nil {
		switch {
		case *m <= 0:
			return invalid(fmt.Errorf("resize %q: a memory limit of %d bytes is not possible", in.ID, *m))
		case *m > memory:
			return refused(fmt.Errorf("resize %q: %d MiB of memory is more than this machine has (%d MiB)", in.ID, *m>>20, memory>>20))
		}
	}
	return nil
}

// set applies file changes to one instance as a whole and reads it back.
func (a *Agent) set(ctx context.Context, kind string, in *state.InstanceStatus, files []change.FileChange, dryRun bool) (*Outcome, error) {
	op := &change.Operation{
		ID:       fmt.Sprintf("%s-%s-%d", kind, in.ID, time.Now().UnixNano()),
		Kind:     kind,
		Instance: in.ID,
		BootID:   a.bootID,
	}
	for i := range files {
		op.Changes = append(op.Changes, change.Change{Class: change.File, File: &files[i]})
	}
	out := &Outcome{Instance: in.ID}
	if err := a.carryOut(ctx, op, dryRun); err != nil {
		return nil, fmt.Errorf("%s %q: %w", kind, in.ID, err)
	}
	for _, c := range op.Changes {
		out.Changes = append(out.Changes, c.String())
		if !dryRun {
			a.log.Info("change applied", "component", "agent", "kind", kind, "instance", in.ID, "change", c.String())
		}
	}
	now, err := a.stat(&in.Instance)
	if err != nil {
		return nil, fmt.Errorf("read back %q: %w", in.ID, err)
	}
	out.Resources = now
	return out, nil
}

// carryOut applies op, or with dryRun only checks that it could be. Nothing to
// change is not an error.
func (a *Agent) carryOut(ctx context.Context, op *change.Operation, dryRun bool) error {
	if len(op.Changes) == 0 {
		return nil
	}
	if dryRun {
		return a.settle.Prepare(op)
	}
	return a.settle.Apply(ctx, op, false)
}

// able refuses what a probe found this node cannot do.
func (a *Agent) able(name string, snap *state.Snapshot) error {
	if c := snap.Capability(name); !c.OK {
		return refused(fmt.Errorf("this node cannot %s: %s", name, c.Detail))
	}
	return nil
}
