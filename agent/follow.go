package agent

import (
	"context"
	"fmt"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/pages"
	"github.com/mooring-dev/mooring/agent/state"
)

// strayShare is the share of an instance's memory that may lie on other nodes
// before its pages are moved explicitly.
const strayShare = 0.01

// passes is how often follow goes over the memory: what one pass could not move,
// since it was in use at that moment, the next one often can.
const passes = 3

// follow moves to the node what a write to cpuset.mems left behind. It stops
// none of the processes. What cannot move, such as pages under I/O, stays and
// shows in the read-back; so does what is left when ctx ends between passes.
func (a *Agent) follow(ctx context.Context, in *state.Instance, g *cgroup.Group, node int) error {
	for range passes {
		stray, from, err := strays(g, node)
		if err != nil || stray == 0 || ctx.Err() != nil {
			return err
		}
		pids, err := g.Procs()
		if err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
		if err := pages.Private(a.cfg.ProcRoot, pids, from, []int{node}); err != nil {
			return err
		}
		left, err := pages.Shared(a.cfg.ProcRoot, pids, node)
		a.log.Info("pages moved", "component", "agent", "instance", in.ID, "node", node, "bytes", stray, "left", left)
		if err != nil {
			return err
		}
	}
	return nil
}

// strays returns how much of the cgroup's memory lies on other nodes, and on
// which; nothing when it is not worth moving.
func strays(g *cgroup.Group, node int) (stray int64, from []int, err error) {
	stat, err := g.Stat()
	if err != nil {
		return 0, nil, fmt.Errorf("read back memory: %w", err)
	}
	var all int64
	for n, bytes := range stat.NodeBytes {
		all += bytes
		if n != node {
			stray += bytes
			from = append(from, n)
		}
	}
	if float64(stray) <= strayShare*float64(all) {
		return 0, nil, nil
	}
	return stray, from, nil
}
