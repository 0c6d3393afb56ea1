package exporter

import (
	"cmp"

	"github.com/mooring-dev/mooring/agent/state"
)

// active is what the opt-in active probes found.
func active() family {
	var (
		up = gauge("db_up",
			"1 when the server answered the newest active probe, 0 when it did not; only for instances whose policy asks for probes. While no login is possible it is what a connection without login finds, and absent for MySQL and MariaDB.",
			instanceLabels()...)
		role = gauge("db_role",
			"Always 1; the role that the server says it has: primary, replica or unknown; absent while it does not answer.",
			instanceLabels("role")...)
		readOnly = gauge("db_read_only",
			"1 when the server takes no writes; absent while it does not answer or does not tell.",
			instanceLabels()...)
		lag = gauge("db_replication_lag_seconds",
			"How far a replica is behind by the engine's own account (PostgreSQL: age of the last transaction replayed, 0 when all was; MySQL: Seconds_Behind_Source; Redis: time without a link); absent where it does not tell.",
			instanceLabels()...)
		lagBytes = gauge("db_replication_lag_bytes",
			"How much of its primary's stream a replica knows of and has not applied; on a Redis primary that of its furthest replica; absent where the engine does not tell.",
			instanceLabels()...)
		heartbeat = gauge("db_heartbeat_age_seconds",
			"Age, by the replica's clock, of the newest heartbeat row that has reached it; only with write probes.",
			instanceLabels()...)
		period = gauge("db_heartbeat_period_seconds",
			"How often a heartbeat row is to be written: an age up to that is no delay; there where the age is.",
			instanceLabels()...)
		took = gauge("db_active_probe_duration_seconds",
			"How long the newest finished active probe took, failed ones too.",
			instanceLabels("probe")...)
		success = gauge("db_active_probe_success",
			"1 when the newest finished active probe of this kind succeeded, 0 when it failed; db_active_probe_failures_total has the reasons.",
			instanceLabels("probe")...)
		failures = counter("db_active_probe_failures_total",
			"Active probes that failed, by reason: timeout, gone, auth, secret, denied, schema, starting, busy, tls, read_only, protocol or error.",
			instanceLabels("probe", "reason")...)
		stopped = gauge("db_active_probe_stopped",
			"1 when the login was refused for good, so that no more is tried until the secret's content changes.",
			instanceLabels()...)
	)
	return family{
		name:    "active",
		metrics: []*metric{up, role, readOnly, lag, lagBytes, heartbeat, period, took, success, failures, stopped},
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				a := in.Active
				if a == nil {
					continue
				}
				labels := labelValues(&in.Instance)
				if a.Up != nil {
					s.set(up, boolean(*a.Up), labels...)
					if *a.Up {
						s.set(role, 1, labelValues(&in.Instance, cmp.Or(a.Role, "unknown"))...)
					}
				}
				if a.ReadOnly != nil {
					s.set(readOnly, boolean(*a.ReadOnly), labels...)
				}
				if a.Lag != nil {
					s.set(lag, a.Lag.Seconds(), labels...)
				}
				if a.LagBytes != nil {
					s.set(lagBytes, float64(*a.LagBytes), labels...)
				}
				if a.HeartbeatAge != nil {
					s.set(heartbeat, a.HeartbeatAge.Seconds(), labels...)
					s.set(period, a.HeartbeatPeriod.Seconds(), labels...)
				}
				s.set(stopped, boolean(a.Stopped != ""), labels...)
				for _, p := range a.Probes {
					s.set(success, boolean(p.Err == ""), labelValues(&in.Instance, p.Kind)...)
					probed(s, took, failures, in, p)
				}
			}
		},
	}
}

// probed sends the series of one kind of probe.
func probed(s *scrape, took, failures *metric, in *state.InstanceStatus, p state.ActiveProbe) {
	s.set(took, p.Took.Seconds(), labelValues(&in.Instance, p.Kind)...)
	for reason, n := range p.Failures {
		s.set(failures, float64(n), labelValues(&in.Instance, p.Kind, reason)...)
	}
}
