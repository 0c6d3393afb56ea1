package exporter

// agent is the agent's own state.
func agent() family {
	var (
		build = gauge("mooring_build_info",
			"Always 1; the version of the agent.", "version")
		taken = gauge("mooring_snapshot_timestamp_seconds",
			"When the snapshot that this scrape shows was taken, in seconds since the epoch, by the node's clock.")
		age = gauge("mooring_snapshot_age_seconds",
			"Age of the snapshot that this scrape shows; it grows when the agent's loop is stuck.")
		damaged = gauge("mooring_journal_damaged",
			"1 when the journal was found damaged at start and was set aside: faults of the former run may not have been undone.")
	)
	return family{
		name:    "agent",
		metrics: []*metric{build, taken, age, damaged},
		collect: func(s *scrape) {
			s.set(build, 1, s.snap.Version)
			s.set(taken, seconds(s.snap.Time))
			s.set(age, max(0, s.now.Sub(s.snap.Time).Seconds()))
			s.set(damaged, boolean(s.snap.Journal != ""))
		},
	}
}
