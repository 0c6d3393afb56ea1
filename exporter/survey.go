package exporter

import (
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// network is what the kernel counts of an instance's TCP.
func network() family {
	type netns = *state.NetworkUsage
	value := func(name, help string, of func(netns) int64) column[netns] {
		return one(counter(name, help, instanceLabels()...), func(n netns) float64 { return float64(of(n)) })
	}
	counted := []column[netns]{
		value("mooring_instance_tcp_sent_segments_total",
			"TCP segments sent in the instance's network namespace (net/snmp); absent in the host's, like all that is counted by namespace.",
			func(n netns) int64 { return n.SentSegments }),
		value("mooring_instance_tcp_retransmitted_segments_total", "TCP segments sent again in the instance's network namespace.",
			func(n netns) int64 { return n.RetransmittedSegments }),
		value("mooring_instance_tcp_listen_overflows_total", "Connections refused in the instance's network namespace because a listener's queue was full.",
			func(n netns) int64 { return n.ListenOverflows }),
		value("mooring_instance_tcp_listen_drops_total", "Connections lost in the instance's network namespace before they were accepted, overflows included.",
			func(n netns) int64 { return n.ListenDrops }),
		{counter("mooring_instance_tcp_resets_total", "Connections reset in the instance's network namespace: RST segments sent, and open connections that ended by one.",
			instanceLabels("direction")...),
			func(n netns, put func(float64, ...string)) {
				put(float64(n.SentResets), "sent")
				put(float64(n.ReceivedResets), "received")
			}},
	}
	open := connectionColumns()
	return family{
		name:    "network",
		metrics: append(declared(counted), declared(open)...),
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if in.Usage == nil {
					continue
				}
				labels := labelValues(&in.Instance)
				if in.Usage.Network != nil {
					send(s, counted, in.Usage.Network, labels)
				}
				if in.Usage.Survey != nil && in.Usage.Survey.Connections != nil {
					send(s, open, in.Usage.Survey.Connections, labels)
				}
			}
		},
	}
}

func connectionColumns() []column[*state.Connections] {
	type open = *state.Connections
	return []column[open]{
		one(gauge("mooring_instance_tcp_connections", "Established TCP connections to the instance's ports; like the next three looked at every 15 s.", instanceLabels()...),
			func(c open) float64 { return float64(c.Count) }),
		{gauge("mooring_instance_tcp_round_trip_seconds", "The kernel's smoothed round trip time over these connections, mean and max; absent without any.", instanceLabels("stat")...),
			func(c open, put func(float64, ...string)) {
				if c.Count > 0 {
					put(c.MeanRoundTrip.Seconds(), "mean")
					put(c.MaxRoundTrip.Seconds(), "max")
				}
			}},
		one(gauge("mooring_instance_tcp_unacknowledged_segments", "Segments on the way to the clients of these connections.", instanceLabels()...),
			func(c open) float64 { return float64(c.Unacknowledged) }),
		one(counter("mooring_instance_tcp_connection_retransmissions_total",
			"Segments sent again on these connections, as far as they were there at two looks.", instanceLabels()...),
			func(c open) float64 { return float64(c.Retransmissions) }),
	}
}

// space is what is left to an instance on its file systems, and its descriptors.
func space() family {
	directories := directoryColumns()
	surveyed := surveyColumns()
	age := gauge("mooring_instance_survey_age_seconds",
		"Age of the figures of directories, descriptors and connections; it grows where a file system does not answer.", instanceLabels()...)
	return family{
		name:    "space",
		metrics: append(append(declared(directories), declared(surveyed)...), age),
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if in.Usage == nil || in.Usage.Survey == nil {
					continue
				}
				v, labels := in.Usage.Survey, labelValues(&in.Instance)
				s.set(age, max(0, s.now.Sub(v.Time).Seconds()), labels...)
				send(s, surveyed, v, labels)
				for j := range v.Directories {
					send(s, directories, &v.Directories[j], labelValues(&in.Instance, v.Directories[j].Name))
				}
			}
		},
	}
}

func directoryColumns() []column[*state.Directory] {
	type dir = *state.Directory
	size := func(name, help string, of func(dir) int64) column[dir] {
		return one(gauge(name, help, instanceLabels("directory")...), func(d dir) float64 { return float64(of(d)) })
	}
	inodes := func(name, help string, of func(dir) int64) column[dir] {
		return column[dir]{gauge(name, help, instanceLabels("directory")...), func(d dir, put func(float64, ...string)) {
			if d.Inodes > 0 {
				put(float64(of(d)))
			}
		}}
	}
	return []column[dir]{
		size("mooring_instance_directory_size_bytes",
			"Size of the file system that holds the instance's directory: data, or log (pg_wal, #innodb_redo, appendonlydir, else the data directory).",
			func(d dir) int64 { return d.SizeBytes }),
		size("mooring_instance_directory_used_bytes", "Space in use on that file system, by whomever.",
			func(d dir) int64 { return d.UsedBytes }),
		size("mooring_instance_directory_available_bytes", "Space left on that file system to processes without privilege.",
			func(d dir) int64 { return d.AvailableBytes }),
		inodes("mooring_instance_directory_inodes", "Inodes of that file system; absent where it makes them as it needs them.",
			func(d dir) int64 { return d.Inodes }),
		inodes("mooring_instance_directory_inodes_free", "Inodes left on that file system.",
			func(d dir) int64 { return d.FreeInodes }),
	}
}

func surveyColumns() []column[*state.Survey] {
	type survey = *state.Survey
	return []column[survey]{
		one(gauge("mooring_instance_deleted_open_bytes",
			"Space held by files that are deleted and still open in the instance's processes; shared memory is not counted.", instanceLabels()...),
			func(v survey) float64 { return float64(v.DeletedOpenBytes) }),
		one(gauge("container_file_descriptors", "Descriptors open in all processes of the instance, counted up to 20,000.", instanceLabels()...),
			func(v survey) float64 { return float64(v.Descriptors) }),
		one(gauge("mooring_instance_fullest_process_file_descriptors", "Descriptors open in the process that has most.", instanceLabels()...),
			func(v survey) float64 { return float64(v.Fullest.Open) }),
		{gauge("mooring_instance_fullest_process_file_descriptors_limit", "That process's own limit (RLIMIT_NOFILE); absent without one.", instanceLabels()...),
			func(v survey, put func(float64, ...string)) {
				if v.Fullest.Limit > 0 {
					put(float64(v.Fullest.Limit))
				}
			}},
	}
}

// sinceEpoch is a column of a moment.
func sinceEpoch[V any](m *metric, value func(V) time.Time) column[V] {
	return one(m, func(v V) float64 { return seconds(value(v)) })
}
