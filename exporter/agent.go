package exporter

import (
	"strconv"

	"github.com/mooring-dev/mooring/agent/state"
)

// agent is the agent's own state. protocol is the version of what it speaks.
func agent(protocol int) family {
	var (
		build = gauge("mooring_build_info",
			"Always 1; the version of the agent and of the protocol it speaks with its callers.", "version", "protocol")
		taken = gauge("mooring_snapshot_timestamp_seconds",
			"When the snapshot that this scrape shows was taken, in seconds since the epoch, by the node's clock.")
		age = gauge("mooring_snapshot_age_seconds",
			"Age of the snapshot that this scrape shows; it grows when the agent's loop is stuck.")
		damaged = gauge("mooring_journal_damaged",
			"1 when the journal was found damaged at start and was set aside: faults of the former run may not have been undone.")
		reachable = gauge("mooring_api_server_reachable",
			"1 when the Kubernetes API server answered the last time that it is ready, else 0; asked every ten seconds, absent without Kubernetes.")
		writer = gauge("mooring_limits_writer_info",
			"Always 1; who writes the limits of pods, the kubelet where the API server serves pods/resize, else the agent; absent while that is not known and without Kubernetes.", "writer")
		policy = gauge("mooring_policy_info",
			"Always 1; the digest of the declarations in force on this node, which the controller has too; absent before the first.", "digest")
		epoch = gauge("mooring_agent_highest_epoch",
			"Highest fencing epoch of a controller that this agent has seen, mooring_controller_epoch of the one that leads; it grows when another takes over, and is 0 before the first.")
	)
	return family{
		name:    "agent",
		metrics: []*metric{build, taken, age, damaged, reachable, writer, policy, epoch},
		collect: func(s *scrape) {
			s.set(build, 1, s.snap.Version, strconv.Itoa(protocol))
			s.set(taken, seconds(s.snap.Time))
			s.set(age, max(0, s.now.Sub(s.snap.Time).Seconds()))
			s.set(damaged, boolean(s.snap.Journal != ""))
			if c, ok := collectorNamed(s.snap, state.CollectorAPIServer); ok {
				s.set(reachable, boolean(c.Err == ""))
			}
			if w := s.snap.LimitsWriter; w != "" {
				s.set(writer, 1, w)
			}
			if d := s.snap.PolicyDigest; d != "" {
				s.set(policy, 1, d)
			}
			s.set(epoch, float64(s.snap.Epoch))
		},
	}
}
