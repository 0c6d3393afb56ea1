package monitoring

import (
	"fmt"
	"time"
)

const onNode = "on {{ $labels.node }} ({{ $labels.instance }})"

// statementsLost are the reasons of db_probe_lost_total by which a statement is
// missing. By the others it counts without its text, a record of it is missing,
// or a client went away, which is ordinary.
const statementsLost = `reason=~"connections_full|operations_full|pids_full|unreadable|tls_unseen"`

// asksAPI selects, by the operator given, the collectors that ask the API server.
func asksAPI(operator string) string {
	return "collector" + operator + `"api-server|pods"`
}

// probeAlerts are on the statement probe: whether its figures can be believed.
func probeAlerts() []Rule {
	return []Rule{
		alert("DBProbeEventsLost", warning, 5*time.Minute,
			fmt.Sprintf("%s > 0", rate("db_probe_lost_total", statementsLost, byAgent+", reason", "5m")),
			"The statement probe "+onNode+" loses {{ $value | humanize }} statements a second: {{ $labels.reason }}",
			"Statements ran that the probe could not record, for five minutes. Rates and digests are too low by that much; latencies of the others are right.",
			"Dashboard Mooring / Agents, panels Lost by reason and Map fill: a full map means more connections or digests than the probe has room for; mooringctl doctor says what unreadable means on this kernel. The table of reasons is in exporter/README.md."),
		alert("DBProbeCoverageLow", warning, 10*time.Minute,
			coverage+" < 0.99",
			"The probe sees {{ $value | humanizePercentage }} of the traffic of {{ $labels.instance }}",
			"Less than 99 % of the bytes that the sockets of this instance carried were seen by the probe, for ten minutes.",
			"mooringctl doctor on the node: a server that uses io_uring, or connections that are older than the agent, are named there. While it is low read this instance's rates as a lower bound."),
		alert("DBProbeMapNearFull", warning, 5*time.Minute,
			"db_probe_map_entries / db_probe_map_capacity > 0.8",
			"Map {{ $labels.map }} of the probe "+onNode+" is {{ $value | humanizePercentage }} full",
			"A full map makes the probe count losses instead of statements.",
			"Dashboard Mooring / Agents, panel Map fill: which map grows and since when? Connections follow the clients' pools; digests follow texts with literals in them that the lexer does not fold: report those."),
		alert("DBProbeUnsupported", warning, 15*time.Minute,
			`db_probe_mode{mode="off"} == 1`,
			"Statements are not timed "+onNode,
			"This kernel allows neither way of timing statements, or the probe was switched off. Nothing that begins with db_server_ comes from there.",
			"mooringctl doctor on that node says why each mode was refused: usually no BTF and no tracefs, or a lockdown. --probe=off in the agent's arguments is the other reason."),
		alert("DBProbeOverheadHigh", warning, 10*time.Minute,
			overheadCores+" > 0.3",
			"Mooring uses {{ $value | humanize }} cores "+onNode,
			"Agent and BPF programs together have used more than 0.3 of a core for ten minutes.",
			"Dashboard Mooring / Agents, panel Overhead: is it the agent (too many digests: raise the slow threshold, lower the number of digests) or the programs (statements a second)? --probe=off ends the latter at once."),
	}
}

// agentAlerts are on Mooring itself.
func agentAlerts() []Rule {
	return []Rule{
		alert("MooringFaultStuck", critical, time.Minute, "mooring_fault_stuck > 0",
			"The undo of {{ $labels.kind }} on {{ $labels.instance }} could not be verified",
			"A fault that was set on purpose has ended, and reading back what it changed did not show the former state. The agent goes on trying.",
			"kubectl mooring chaos list -A and the agent's log name the file or qdisc; put it right by hand, then restart the agent."),
		alert("MooringJournalDamaged", critical, 0, "mooring_journal_damaged > 0",
			"The agent "+onNode+" set a damaged journal aside",
			"Changes of the former run may not have been undone.",
			"Look at /var/lib/mooring on the node (disk full, disk failing?) and at its instances for leftovers (mooringctl doctor, tc qdisc, cgroup.freeze); then restart the agent."),
		alert("MooringAgentStuck", warning, 2*time.Minute, "mooring_snapshot_age_seconds > 30",
			"The agent's loop "+onNode+" does not turn",
			"What the agent serves is older than 30 s; every value from there stands still.",
			"The agent's log and mooring_collector_duration_seconds name the source that hangs; restart the agent if it does not go on."),
		alert("MooringAgentDown", warning, 5*time.Minute, `up{`+agentJob+`} == 0`,
			"The agent "+onNode+" is not scraped",
			"Prometheus has not been answered for five minutes. Databases, pins and sizes are as they were; faults end by themselves.",
			"kubectl -n mooring-system get pods -o wide, then describe and logs of that node's; port 9750 has to be open for Prometheus."),
		alert("MooringExporterIncomplete", warning, 10*time.Minute, "mooring_exporter_success == 0",
			"Family {{ $labels.family }} is not complete "+onNode,
			"Some series of this family could not be served for ten minutes.",
			"The agent's log says why, once, at the moment it began."),
		alert("MooringSourceFailing", warning, 10*time.Minute,
			fmt.Sprintf("mooring_collector_success{%s} == 0", asksAPI("!~")),
			"The agent "+onNode+" cannot read {{ $labels.collector }}",
			"This source of the agent's figures has failed in every tick for ten minutes. What comes of it stands still or is missing; everything else is right.",
			"mooringctl status on that node prints the error behind the collector's name; records is the file of --records, events the reader of statements' texts and records."),
		alert("MooringAPIServerUnreachable", warning, 10*time.Minute,
			// One for all nodes: it is no news a thousand times over.
			fmt.Sprintf("count by (collector) (mooring_collector_success{%s} == 0)", asksAPI("=~")),
			"{{ $value }} agents cannot use the API server: {{ $labels.collector }}",
			"For ten minutes these agents have not reached it (api-server), or have not been given the pods of their nodes since they started (pods). Databases, pins and sizes are as they were, and faults end by themselves.",
			"mooringctl status on one of those nodes prints the error. All nodes: the API server, or for pods the ClusterRole of the agents. Few: their network; dashboard Mooring / Agents, panel Sources and families that work, names them."),
		alert("MooringEventBug", warning, 0,
			fmt.Sprintf("sum by (%s) (increase(mooring_event_bugs_total[15m])) > 0", byAgent),
			"The agent "+onNode+" met a bug of its own while it read events",
			"Within 15 minutes a text, a record or a session was left out because its reading failed. Databases and the counts of statements are not concerned.",
			"The agent's log has the first one with its stack: report it. --probe=off ends the reading of events until it is mended."),
		alert("MooringRecordsLost", warning, 0,
			fmt.Sprintf(`sum by (%s, reason) (increase(mooring_records_lost_total{reason!="subscriber"}[5m])) > 0`, byAgent),
			"The agent "+onNode+" lost {{ $value | humanize }} records in five minutes: {{ $labels.reason }}",
			"Records of slow statements or of the audit were not written: over the rate of their instance (limited), more than the file took (sink_full), or writing failed (sink_failed).",
			"limited: mooring_records_limited_total names the instance; audit less of it. Otherwise the agent's log has the error: is the disk of --records full?"),
		alert("MooringControllerDown", warning, 5*time.Minute, `absent(up{job="mooring-controller"} == 1)`,
			"No controller runs",
			"Nothing new is placed, resized or broken; policies stay in force and faults that need a controller have ended by themselves. On machines without Kubernetes there is none: leave this alert out there.",
			"kubectl -n mooring-system get pods,lease; the logs of both controllers say what they wait for."),
	}
}
