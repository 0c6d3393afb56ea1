package exporter

import (
	"slices"

	"github.com/mooring-dev/mooring/agent/state"
)

// sources is how the parts of the snapshot fared in the last tick.
func sources() family {
	var (
		success = gauge("mooring_collector_success",
			"1 when this source of the snapshot could be read in the last tick, else 0.", "collector")
		duration = gauge("mooring_collector_duration_seconds",
			"Time this source of the snapshot took in the last tick.", "collector")
	)
	return family{
		name:    "collectors",
		metrics: []*metric{success, duration},
		collect: func(s *scrape) {
			for _, c := range s.snap.Collectors {
				s.set(success, boolean(c.Err == ""), c.Name)
				s.set(duration, c.Duration.Seconds(), c.Name)
			}
		},
	}
}

// collectorNamed returns how one source of a snapshot fared.
func collectorNamed(snap *state.Snapshot, name string) (state.Collector, bool) {
	i := slices.IndexFunc(snap.Collectors, func(c state.Collector) bool { return c.Name == name })
	if i < 0 {
		return state.Collector{}, false
	}
	return snap.Collectors[i], true
}
