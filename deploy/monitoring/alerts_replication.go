package monitoring

import (
	"fmt"
	"time"
)

// replicationAlerts are on what active probes say: they are silent where no
// policy asks for probes.
func replicationAlerts() []Rule {
	found := fmt.Sprintf("max by (%s) (mooring_declared_instance_found)", byInstance)
	return []Rule{
		alert("DBDown", critical, 2*time.Minute,
			// A pod that never served is being set up: DBNotServing has it, later.
			fmt.Sprintf("max by (%[1]s) (db_up) == 0 or (%[2]s == 0 and max by (%[1]s) (max_over_time(mooring_declared_instance_found[1h])) == 1)", byInstance, found),
			"{{ $labels.instance }} does not answer, or its server has ended",
			"For two minutes the active probe has had no answer, or no server has listened in a running pod that a policy declares and that served within the last hour (mooring_declared_instance_found).",
			"No server: the pod's log of before the restart, its events, and disk space. A server without an answer: dashboard Mooring / Instance: are clients still served (operations a second)? Then the probe's own account or network is at fault, see db_active_probe_failures_total."),
		alert("DBNotServing", critical, 30*time.Minute, found+" == 0",
			"{{ $labels.instance }} has had no server for half an hour",
			"A policy declares this pod, it runs, and for half an hour no server has listened in it: it is still being set up or restored, or its server ended and does not return.",
			"The pod's log: does a restore or a crash recovery still make progress? Then silence this alert for as long as it takes. If the container runs an engine other than the policy's, or listens on no TCP port, correct the policy."),
		alert("DBRoleFlapping", critical, 0, fmt.Sprintf("changes(%s[15m]) > 2", primary),
			"{{ $labels.instance }} changed its role {{ $value }} times in 15 minutes",
			"An instance became primary and ceased to be it more than twice within 15 minutes.",
			"Stop automatic failover (pause the operator or Patroni), see which member has the newest data on dashboard Mooring / Cluster, and find why health checks fail there: usually latency of the disk or the network."),
		alert("DBTwoPrimaries", critical, time.Minute,
			fmt.Sprintf(`count by (cluster) (%s{cluster!~"(.*/)?-"} and on (%s) (%s == 1)) > 1`, clusterInfo, byInstance, primary),
			"Cluster {{ $labels.cluster }} has {{ $value }} primaries",
			"More than one member of the cluster has said for a minute that it is primary: writes may be going to both.",
			"Dashboard Mooring / Cluster shows which. Fence the one that clients should not reach, at the Service or the network, before anything else; compare the data afterwards."),
		alert("DBWriteProbeFailing", critical, 3*time.Minute,
			// By the newest, not by a count of failures: a policy may ask for one write in an hour.
			fmt.Sprintf(`max by (%[1]s) (db_active_probe_success{probe="write"}) == 0 unless on (%[1]s) db_read_only == 1`, byInstance),
			"Writes to {{ $labels.instance }} fail",
			"For three minutes the newest write of the heartbeat row has been a failed one, and the server does not say that it is read-only.",
			"db_active_probe_failures_total has the reason. timeout: full disk, a hung disk or synchronous replication without a replica; denied or schema: the probe's account; auth: its Secret. deploy/README.md has the grants."),
		alert("DBProbeLoginStopped", warning, 0, "db_active_probe_stopped == 1",
			"The active probe of {{ $labels.instance }} was refused three times and has stopped",
			"No more logins are tried, so that the account is not locked, until the Secret changes.",
			"Put the right password into the Secret that the policy names; the probe goes on by itself."),
		alert("DBReplicationLag", warning, 5*time.Minute,
			// A heartbeat of one period is no delay, and a server that has lost its
			// primary may say 0 where only the heartbeat's age tells.
			fmt.Sprintf("max by (%[1]s) (db_replication_lag_seconds) > 30 or max by (%[1]s) (db_heartbeat_age_seconds - db_heartbeat_period_seconds) > 30", byInstance),
			"{{ $labels.instance }} is {{ $value | humanizeDuration }} behind",
			"A replica has been more than 30 s behind its primary for five minutes.",
			"Dashboard Mooring / Cluster: does the lag in bytes grow too? Then the replica cannot keep up (its disk, its CPU, a long query that holds replay back). Lag in seconds alone is an idle primary or a clock."),
	}
}
