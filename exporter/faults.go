package exporter

import (
	"sync"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// faults is what is being broken on purpose. Namespace, pod and container are
// looked up among the instances of the snapshot; a fault may outlive its
// instance by a little, and then has only the instance's id.
func faults() family {
	var (
		active = gauge("mooring_fault_active",
			"Faults of this kind active on the instance now; 0 for a while after the last one ended, then absent.",
			instanceLabels("kind")...)
		stuck = gauge("mooring_fault_stuck",
			"Faults of this kind on the instance whose undo could not be verified: a person must look.",
			instanceLabels("kind")...)
		deadline = gauge("mooring_fault_deadline_timestamp_seconds",
			"Latest moment, in seconds since the epoch, at which the active faults of this kind end by themselves; absent when none is active.",
			instanceLabels("kind")...)
		hits = counter("mooring_fault_hits_total",
			"Times the kernel applied faults of this kind to the instance (packets, calls), since the agent started.",
			instanceLabels("kind")...)
		total = counter("mooring_faults_total",
			"Faults that reached the phase (every fault reaches active, then ended or stuck), since the agent started.",
			"kind", "phase")
	)
	l := &ledger{
		seen:   make(map[string]seenFault),
		hits:   make(map[faultKey]uint64),
		phases: make(map[phaseKey]uint64),
	}
	return family{
		name:    "faults",
		metrics: []*metric{active, stuck, deadline, hits, total},
		collect: func(s *scrape) {
			labels := faultLabels(s.snap)
			for key, now := range faultsNow(s.snap) {
				s.set(active, float64(now.active), labels(key)...)
				s.set(stuck, float64(now.stuck), labels(key)...)
				if now.active > 0 {
					s.set(deadline, seconds(now.deadline), labels(key)...)
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.observe(s.snap)
			for key, n := range l.hits {
				s.set(hits, float64(n), labels(key)...)
			}
			for key, n := range l.phases {
				s.set(total, float64(n), key.kind, string(key.phase))
			}
		},
	}
}

type faultKey struct{ instance, kind string }

type phaseKey struct {
	kind  string
	phase state.Phase
}

type faultNow struct {
	active, stuck int
	deadline      time.Time
}

func faultsNow(snap *state.Snapshot) map[faultKey]faultNow {
	all := make(map[faultKey]faultNow)
	for i := range snap.Faults {
		f := &snap.Faults[i]
		key := faultKey{f.Instance, f.Kind}
		now := all[key]
		switch f.Phase {
		case state.FaultActive:
			now.active++
			if f.Deadline.After(now.deadline) {
				now.deadline = f.Deadline
			}
		case state.FaultStuck:
			now.stuck++
		}
		all[key] = now
	}
	return all
}

// faultLabels returns the function that gives the label values of a key.
func faultLabels(snap *state.Snapshot) func(faultKey) []string {
	byID := make(map[string]*state.Instance, len(snap.Instances))
	for i := range snap.Instances {
		byID[snap.Instances[i].ID] = &snap.Instances[i].Instance
	}
	return func(key faultKey) []string {
		if in := byID[key.instance]; in != nil {
			return labelValues(in, key.kind)
		}
		return labelValues(&state.Instance{ID: key.instance}, key.kind)
	}
}

// ledger adds up what snapshots say of faults, so that counters keep what
// ended faults contributed after those left the snapshot. It counts at each
// scrape: a fault that came and went between two scrapes is missed, but ended
// faults stay in the snapshot for longer than that.
type ledger struct {
	mu     sync.Mutex
	last   time.Time // of the newest snapshot observed
	seen   map[string]seenFault
	hits   map[faultKey]uint64
	phases map[phaseKey]uint64
}

type seenFault struct {
	phase state.Phase
	hits  uint64
}

// observe adds what is new in snap. The caller holds mu. A snapshot older than
// the newest is ignored: two scrapes that do not share a collection may end in
// either order.
func (l *ledger) observe(snap *state.Snapshot) {
	if snap.Time.Before(l.last) {
		return
	}
	l.last = snap.Time
	seen := make(map[string]seenFault, len(snap.Faults))
	keep := make(map[string]bool, len(snap.Instances))
	for i := range snap.Instances {
		keep[snap.Instances[i].ID] = true
	}
	for i := range snap.Faults {
		f := &snap.Faults[i]
		keep[f.Instance] = true
		l.add(f)
		seen[f.UID] = seenFault{f.Phase, f.Hits}
	}
	l.seen = seen
	for key := range l.hits {
		if !keep[key.instance] {
			delete(l.hits, key) // or pods that come and go would fill it
		}
	}
}

func (l *ledger) add(f *state.Fault) {
	before, known := l.seen[f.UID]
	if !known {
		before.phase = state.FaultActive
		l.phases[phaseKey{f.Kind, state.FaultActive}]++
	}
	if f.Phase != before.phase {
		l.phases[phaseKey{f.Kind, f.Phase}]++
	}
	grown := f.Hits
	if before.hits <= f.Hits {
		grown -= before.hits
	}
	l.hits[faultKey{f.Instance, f.Kind}] += grown
}
