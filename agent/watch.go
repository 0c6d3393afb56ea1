package agent

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

// The bounds of WatchRequest.interval.
const (
	minInterval = 200 * time.Millisecond
	maxInterval = time.Hour
)

// Watch implements agentpb.AgentServer. A reader that is slower than the
// replies misses those in between: one reply is made at a time, from the newest
// snapshot, after the one before was handed on.
func (s *Server) Watch(r *agentpb.WatchRequest, stream grpc.ServerStreamingServer[agentpb.StatusReply]) error {
	interval := r.GetInterval().AsDuration()
	if r.Interval != nil && (r.Interval.CheckValid() != nil || interval < minInterval || interval > maxInterval) {
		return statusOf(invalid(fmt.Errorf("interval %v is not between %v and %v", interval, minInterval, maxInterval)))
	}
	var p pace
	for {
		next := s.agent.ticked.Wait()
		if snap := s.agent.Snapshot(); snap != nil && p.due(snap, interval, time.Now()) {
			reply := snapshotToPB(snap)
			if r.GetBrief() {
				shorten(reply)
			}
			if err := stream.Send(reply); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-next:
		}
	}
}

// pace decides for one reader which snapshots it gets.
type pace struct {
	sent time.Time
	// was is the outline of the snapshot sent last.
	was string
}

// due says whether snap is to be sent: the interval has passed, or something
// changed that a reader must not learn late. Ticks are a little early now and
// then; a twentieth of the interval is forgiven, or every other one were missed.
func (p *pace) due(snap *state.Snapshot, interval time.Duration, now time.Time) bool {
	is := outline(snap)
	if !p.sent.IsZero() && is == p.was && now.Sub(p.sent) < interval-interval/20 {
		return false
	}
	p.sent, p.was = now, is
	return true
}

// outline holds what of a snapshot is sent at once when it changes: which
// instances there are and what is known and wanted of them, their limits, faults but
// for the number of hits, and what the node can do. Figures are left out.
func outline(s *state.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %q\n", s.PolicyDigest, s.LimitsWriter, s.Journal, s.Unresolved)
	for i := range s.Instances {
		in := &s.Instances[i]
		fmt.Fprintf(&b, "%q %q %q %q %d %q %q", in.ID, in.PodUID, in.ContainerID, in.Engine, in.Cgroup.ID, in.Cgroup.Shared, in.PlacementErr)
		fmt.Fprintf(&b, " %t", in.Err != "")
		// What a resize waits to read back.
		r := &in.Resources
		fmt.Fprintf(&b, " %d %d %q %q", r.CPUMillicores, r.MemoryLimitBytes, r.CPUs, r.MemoryNodes)
		if in.Placement != nil {
			fmt.Fprintf(&b, " node %d", in.Placement.Node)
		}
		if in.Declared != nil {
			fmt.Fprintf(&b, " %#v", *in.Declared)
		}
		b.WriteByte('\n')
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		fmt.Fprintf(&b, "%q %q %q %q %t %t %q\n", f.UID, f.Phase, f.Reason, f.Err, f.Hits > 0, f.Verified, f.Residue)
	}
	for _, c := range s.Capabilities {
		fmt.Fprintf(&b, "%q %t %q\n", c.Name, c.OK, c.Detail)
	}
	return b.String()
}

// shorten leaves out the figures of operations, collectors and NUMA nodes.
func shorten(r *agentpb.StatusReply) {
	r.Collectors, r.Nodes = nil, nil
	for _, in := range r.GetInstances() {
		in.Operations, in.Digests, in.Errors, in.Transactions = nil, nil, nil, nil
	}
}
