package exporter

// capabilities is what this node can do.
func capabilities() family {
	ok := gauge("mooring_capability",
		"1 when this node can do it, found by firing it once at start, else 0; mooringctl says why.", "name")
	return family{
		name:    "capabilities",
		metrics: []*metric{ok},
		collect: func(s *scrape) {
			for _, c := range s.snap.Capabilities {
				s.set(ok, boolean(c.OK), c.Name)
			}
		},
	}
}
