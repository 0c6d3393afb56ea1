package agent

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/numa"
)

const (
	// firstBackoff is how long a placement that was refused waits for its next
	// attempt; the wait doubles up to lastBackoff.
	firstBackoff = 10 * time.Second
	lastBackoff  = 5 * time.Minute
	// maxRewrites within fightWindow is how often somebody else may write the
	// cpuset of a placed instance before this agent gives way: two writers that
	// correct each other move the database's memory back and forth for ever.
	maxRewrites = 3
	fightWindow = 10 * time.Minute
)

// holder keeps instances where their policy wants them. hold is called by one
// goroutine; err may be called by any.
type holder struct {
	// place confines an instance to a node, one that fits best when it is nil.
	place func(ctx context.Context, in *state.InstanceStatus, node *int) (*Outcome, error)

	mu   sync.Mutex
	held map[string]*held // by instance id
}

// held is one instance that is to be on a single NUMA node. Only hold's
// goroutine writes to it, under the holder's lock.
type held struct {
	cgroupID     uint64
	policy, numa string
	// node is where it was placed or found, -1 before: once there it stays.
	node int
	// confined says that it was there at the last look.
	confined bool
	// next is when to try again, wait the pause after the next refusal.
	next time.Time
	wait time.Duration
	// followed says that its memory was moved after it was confined: an agent
	// that ended in between leaves that to the next.
	followed bool
	// rewrites are the moments at which it was found somewhere else again.
	rewrites []time.Time
	stopped  bool
	err      string
}

// followDesired brings what is declared into force after each tick until ctx ends. It
// is apart from the ticks, since moving a large database's memory takes long.
func (a *Agent) followDesired(ctx context.Context) {
	for ctx.Err() == nil {
		next := a.ticked.Wait()
		if a.pods != nil {
			if err := a.desired.seen.save(a.seenPath(), a.pods.Seen()); err != nil {
				a.log.Warn("a restart without the API server may not find all declared pods", "component", "agent", "err", err)
			}
		}
		if snap := a.Snapshot(); snap != nil {
			a.hold(ctx, snap)
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}

// hold places, one after the other, the instances that are not where they are
// to be.
func (a *Agent) hold(ctx context.Context, snap *state.Snapshot) {
	wanted := map[string]bool{}
	moved := false
	for i := range snap.Instances {
		in := &snap.Instances[i]
		if !wantsNode(snap.Nodes, in) || ctx.Err() != nil {
			continue
		}
		wanted[in.ID] = true
		moved = a.holdOne(ctx, snap, in) || moved
	}
	a.holder.forget(wanted)
	if moved {
		a.Look(ctx)
	}
}

// wantsNode says whether an instance is to be on one NUMA node of several.
func wantsNode(nodes []state.Node, in *state.InstanceStatus) bool {
	return in.Declared != nil && in.Declared.NUMA == state.NUMASingleNode && len(nodes) > 1
}

// holdOne places an instance if it has to and may, and reports whether it did.
func (a *Agent) holdOne(ctx context.Context, snap *state.Snapshot, in *state.InstanceStatus) bool {
	h := a.holder.of(in)
	if node, ok := confinedTo(snap.Nodes, in.Resources); ok && in.Err == "" {
		a.holder.settled(h, node)
		a.followUp(ctx, h, in, node)
		return false
	}
	now := time.Now()
	if h.stopped || now.Before(h.next) {
		return false
	}
	if uid, ok := a.faulted(in.ID); ok {
		a.holder.wait(h, fmt.Sprintf("it waits for the end of fault %q", uid), now)
		return false
	}
	if in.Cgroup.Shared == "" {
		// The snapshot may be older than what this goroutine did last.
		if r, err := a.stat(&in.Instance); err == nil {
			if node, ok := confinedTo(snap.Nodes, r); ok {
				a.holder.settled(h, node)
				return false
			}
			if a.holder.rewritten(h, now, r) {
				a.log.Error("placement given up", "component", "agent", "instance", in.ID, "policy", h.policy, "err", h.err)
				return false
			}
		}
	}
	var node *int
	if h.node >= 0 {
		node = &h.node
	}
	out, err := a.holder.place(ctx, in, node)
	if err != nil {
		first := a.holder.refused(h, oneLine(err), time.Now())
		if first && ctx.Err() == nil {
			a.log.Warn("instance is not where its policy wants it", "component", "agent", "instance", in.ID, "policy", h.policy, "err", err)
		}
		return false
	}
	a.holder.placed(h, snap.Nodes, out.Resources)
	a.log.Info("placed by policy", "component", "agent", "instance", in.ID, "policy", h.policy,
		"cpus", out.Resources.CPUs, "mems", out.Resources.MemoryNodes, "reasons", strings.Join(out.Reasons, "; "))
	return true
}

// followUp moves what memory an earlier placement left behind, once for each
// cgroup that is found confined.
func (a *Agent) followUp(ctx context.Context, h *held, in *state.InstanceStatus, node int) {
	if h.followed || in.Cgroup.Shared != "" || time.Now().Before(h.next) {
		return
	}
	err := a.moveAfter(ctx, in, node)
	a.holder.followed(h, err == nil, time.Now())
	if err != nil && ctx.Err() == nil {
		a.log.Warn("memory of a placed instance was not moved after it", "component", "agent", "instance", in.ID, "node", node, "err", err)
	}
}

// moveAfter is what Place does after the cpuset is written.
func (a *Agent) moveAfter(ctx context.Context, in *state.InstanceStatus, node int) error {
	a.settings.Lock()
	defer a.settings.Unlock()
	if a.settled {
		return errClosing
	}
	g, err := a.open(&in.Instance)
	if err != nil {
		return err
	}
	return a.follow(ctx, &in.Instance, g, node)
}

// faulted returns the fault that is on an instance.
func (a *Agent) faulted(id string) (uid string, ok bool) {
	a.faultMu.Lock()
	defer a.faultMu.Unlock()
	for uid, f := range a.faults {
		if f.Instance == id && f.Phase != state.FaultEnded {
			return uid, true
		}
	}
	return "", false
}

// confinedTo returns the one NUMA node whose memory, and none but whose CPUs, an
// instance may use.
func confinedTo(nodes []state.Node, r state.Resources) (int, bool) {
	id, err := strconv.Atoi(strings.TrimSpace(r.MemoryNodes))
	if err != nil {
		return 0, false
	}
	i := slices.IndexFunc(nodes, func(n state.Node) bool { return n.ID == id })
	if i < 0 {
		return 0, false
	}
	own, err := numa.ParseCPUSet(nodes[i].CPUs)
	if err != nil {
		return 0, false
	}
	used, err := numa.ParseCPUSet(r.CPUs)
	return id, err == nil && used.Len() > 0 && used.Minus(own).Len() == 0
}

// placementErr says why an instance is not where its policy wants it.
func (a *Agent) placementErr(nodes []state.Node, in *state.InstanceStatus) string {
	if !wantsNode(nodes, in) {
		return ""
	}
	if _, ok := confinedTo(nodes, in.Resources); ok && in.Err == "" {
		return ""
	}
	why := a.holder.why(in)
	switch {
	case in.Err != "":
		return "where it is cannot be read: " + in.Err
	case why == "":
		return "it is not placed yet"
	}
	return why
}

// of returns what is held of an instance, anew when its cgroup or what its
// policy wants is another one than before.
func (h *holder) of(in *state.InstanceStatus) *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.held[in.ID]
	if e == nil || !e.fits(in) {
		e = &held{cgroupID: in.Cgroup.ID, policy: in.Declared.Policy, numa: in.Declared.NUMA, node: -1, wait: firstBackoff}
		h.held[in.ID] = e
	}
	return e
}

func (e *held) fits(in *state.InstanceStatus) bool {
	return e.cgroupID == in.Cgroup.ID && e.policy == in.Declared.Policy && e.numa == in.Declared.NUMA
}

// why returns what keeps an instance from its place, "" when nothing is known.
func (h *holder) why(in *state.InstanceStatus) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.held[in.ID]; e != nil && e.fits(in) {
		return e.err
	}
	return ""
}

// forget drops the instances that are not in wanted.
func (h *holder) forget(wanted map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.held {
		if !wanted[id] {
			delete(h.held, id)
		}
	}
}

// settled notes that an instance is where it is to be.
func (h *holder) settled(e *held, node int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.node, e.confined = node, true
	if e.followed {
		e.wait, e.next = firstBackoff, time.Time{}
	}
	if !e.stopped {
		e.err = ""
	}
}

// followed notes whether the memory of an instance was moved after it.
func (h *holder) followed(e *held, done bool, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.followed = done
	if !done {
		e.next = now.Add(e.wait)
		e.wait = min(2*e.wait, lastBackoff)
	}
}

// placed notes that the agent has just placed an instance. Where r shows it
// somewhere else, somebody has written over that already.
func (h *holder) placed(e *held, nodes []state.Node, r state.Resources) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if node, ok := confinedTo(nodes, r); ok {
		e.node = node
	}
	e.confined, e.followed, e.wait, e.next, e.err = true, true, firstBackoff, time.Time{}, ""
}

// rewritten notes, of an instance that was confined, that it is not any more,
// and reports whether that happened too often now.
func (h *holder) rewritten(e *held, now time.Time, r state.Resources) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !e.confined {
		return false
	}
	e.confined = false
	e.rewrites = append(e.rewrites, now)
	e.rewrites = slices.DeleteFunc(e.rewrites, func(t time.Time) bool { return now.Sub(t) > fightWindow })
	if len(e.rewrites) <= maxRewrites {
		return false
	}
	e.stopped = true
	e.err = fmt.Sprintf("something else writes its cpuset (%d times in %v, last CPUs %q and memory nodes %q), so it is left alone: see who does, such as the kubelet's CPU manager, and switch that off for it or set its policy to no placement",
		len(e.rewrites), fightWindow, r.CPUs, r.MemoryNodes)
	return true
}

// wait notes why an instance is not placed now.
func (h *holder) wait(e *held, why string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.err, e.next = why, now.Add(time.Second)
}

// refused notes why a placement did not come about and reports whether it is
// the first refusal in a row.
func (h *holder) refused(e *held, why string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := e.wait == firstBackoff
	e.err, e.next = why, now.Add(e.wait)
	e.wait = min(2*e.wait, lastBackoff)
	return first
}
