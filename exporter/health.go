package exporter

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// staleTicks is how many ticks a snapshot may be old before the agent
	// counts as stuck.
	staleTicks = 3
	// startupGrace is how long the first snapshot may take: loading programs
	// and firing the capability probes takes many ticks on a slow node.
	startupGrace = time.Minute
)

// ErrNoSnapshot is returned by Ready before the first tick has ended.
var ErrNoSnapshot = errors.New("no snapshot yet")

// ErrNotReady is returned by Ready while the agent cannot follow Kubernetes.
var ErrNotReady = errors.New("not ready")

// Ready returns nil once a snapshot exists and, in an agent that looks at
// Kubernetes, while the API server is ready and the pods of the node were
// received. Before the first snapshot its error wraps ErrNoSnapshot, otherwise
// ErrNotReady. An agent that is not ready still watches, holds and ends what it
// has; only what is new does not reach it. It does not block.
func (e *Exporter) Ready() error {
	snap := e.src.Snapshot()
	if snap == nil {
		return fmt.Errorf("agent is starting: %w; see its log for what it is waiting for", ErrNoSnapshot)
	}
	for _, name := range []string{state.CollectorAPIServer, state.CollectorPods} {
		if c, ok := collectorNamed(snap, name); ok && c.Err != "" {
			return fmt.Errorf("%w: %s: %s", ErrNotReady, c.Name, c.Err)
		}
	}
	return nil
}

// Live returns an error when the last snapshot is older than three ticks, or
// when there is none a minute after New: the agent's loop is stuck and the
// process should be restarted. Faults survive that, they end by themselves. The
// API server has no part in it: to restart an agent does not bring that back. A
// clock that steps does no harm as long as the snapshot was made in this
// process, because then both times hold a monotonic reading. It does not
// block.
func (e *Exporter) Live() error {
	limit := staleTicks * e.tick
	snap := e.src.Snapshot()
	if snap == nil {
		if age := e.now().Sub(e.created); age > max(startupGrace, limit) {
			return fmt.Errorf("agent loop is stuck: %w %s after start", ErrNoSnapshot, age.Round(time.Second))
		}
		return nil
	}
	if age := e.now().Sub(snap.Time); age > limit {
		return fmt.Errorf("agent loop is stuck: last snapshot is %s old, at most %s (%d ticks) expected",
			age.Round(time.Millisecond), limit, staleTicks)
	}
	return nil
}

// health answers 200 or 503 with one line that says why.
func health(check func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// A client that hung up has no use for the error.
		_, _ = io.WriteString(w, "ok\n")
	})
}
