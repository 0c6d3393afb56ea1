package bpf

import (
	"fmt"
	"time"
)

// Health is how the timer itself is doing.
type Health struct {
	// Events counts what ReadEvents was given, by kind.
	Events map[string]uint64
	// Maps is how full the kernel's maps are that can fill up.
	Maps map[string]Fill
	// RunTime is the time spent in each program since it was loaded, while the
	// kernel measures it (sysctl kernel.bpf_stats_enabled); else it is empty.
	RunTime map[string]time.Duration
}

// Fill is how many of its entries a map has.
type Fill struct{ Entries, Capacity int }

// Health reads how the timer is doing. It walks the keys of the maps that can fill
// up, some microseconds for a hundred of them.
func (s *Statements) Health() (Health, error) {
	h := Health{Events: map[string]uint64{}, Maps: map[string]Fill{}, RunTime: map[string]time.Duration{}}
	for number, name := range eventKinds() {
		if name != "" {
			h.Events[name] = s.events[number].Load()
		}
	}
	s.mu.RLock()
	digests := 0
	for _, server := range s.servers {
		digests += len(server.digests) + int(DigestUnsampled)
	}
	s.mu.RUnlock()
	h.Maps["digests"] = Fill{digests, int(s.coll.Maps["digests"].MaxEntries())}
	connections, err := contents[uint64, queryCoreConnection](s.coll.Maps["connections"])
	if err != nil {
		return Health{}, err
	}
	h.Maps["connections"] = Fill{len(connections), int(s.coll.Maps["connections"].MaxEntries())}
	errorCodes, err := contents[queryCoreErrorKey, uint64](s.coll.Maps["errors"])
	if err != nil {
		return Health{}, err
	}
	h.Maps["errors"] = Fill{len(errorCodes), int(s.coll.Maps["errors"].MaxEntries())}
	for name, program := range s.coll.Programs {
		stats, err := program.Stats()
		if err != nil {
			return Health{}, fmt.Errorf("read statistics of %s: %w", name, err)
		}
		if stats.Runtime > 0 {
			h.RunTime[name] = stats.Runtime
		}
	}
	return h, nil
}
