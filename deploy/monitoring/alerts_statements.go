package monitoring

import (
	"fmt"
	"time"
)

// who names an instance in an alert's text. Pods are named by namespace and pod in the id itself.
const who = "{{ $labels.db_system_name }} {{ $labels.instance }}"

// statementAlerts are on what clients of a database notice.
func statementAlerts() []Rule {
	return []Rule{
		alert("DBLatencyHigh", warning, 10*time.Minute,
			// The week's median is recorded every five minutes, after which it would be stale.
			fmt.Sprintf("%s > 0.02 and %s > 4 * last_over_time(%s[20m])", p99, p99, p99Week),
			who+" is slow: p99 is {{ $value | humanizeDuration }}",
			"The 99th percentile of statement latency has been above 20 ms and above four times its median of the last week for ten minutes.",
			"mooringctl explain {{ $labels.instance }}; then dashboard Mooring / Instance: is one digest slow (load by digest), the disk (fsync), the CPU (throttled), or the client (blocked share)?"),
		alert("DBErrorRatioHigh", warning, 10*time.Minute,
			fmt.Sprintf("%s > 0.05 and %s > 0.5", errorRatio, rate1m),
			"{{ $value | humanizePercentage }} of the statements of "+who+" fail",
			"More than 5 % of all statements have ended with an error for ten minutes.",
			"Dashboard Mooring / Instance, panel Errors by code, names the code; panel Errors by digest names the statement. Then ask its owner, or roll back the release that brought it."),
		burnRate("DBLatencyBurnRateFast", critical, 2*time.Minute, 14.4, "1h", "5m", "two days"),
		burnRate("DBLatencyBurnRateSlow", warning, 15*time.Minute, 6, "6h", "30m", "five days"),
		alert("DBLongTransaction", warning, 0,
			"db_server_transaction_open_age_seconds > 300",
			who+" has a transaction that has been open for {{ $value | humanizeDuration }}",
			"A transaction has been open for more than five minutes. It keeps locks, and row versions that cannot be cleaned up.",
			"Ask its owner to end it. mooringctl explain {{ $labels.instance }} says what else waits; who it is, the database knows: pg_stat_activity by xact_start, or information_schema.innodb_trx."),
		alert("DBNoTraffic", warning, 5*time.Minute,
			// With nothing in flight the clients have stopped asking, as they do every evening.
			fmt.Sprintf("%[1]s == 0 and on (%[2]s) db_server_requests_in_flight > 0 and max_over_time(%[1]s[1h]) > 1", rate1m, byInstance),
			who+" has requests and answers nothing",
			"Requests are in flight, statements came within the last hour, and for five minutes none has been finished.",
			"The server hangs, or all of it waits for a lock: mooringctl explain {{ $labels.instance }}, then its locks, its disk and its log."),
		alert("DBLoginFailures", warning, 0,
			fmt.Sprintf(`sum by (%s) (increase(db_server_logins_total{result="failed"}[5m])) > 20`, bySystem),
			"{{ $value | humanize }} failed logins to "+who+" in five minutes",
			"More than 20 logins were refused within five minutes: a changed password somewhere, or somebody who guesses.",
			"The audit records of refused logins name client address and user. Fix that client's secret, or block the address."),
		alert("DBSlowQueryBurst", warning, 10*time.Minute,
			fmt.Sprintf("%[1]s > 0.2 and %[1]s > 5 * %[2]s",
				rate("db_slow_queries_total", "", bySystem, "5m"), rate("db_slow_queries_total", "", bySystem, "1d")),
			who+" has {{ $value | humanize }} slow statements a second",
			"Statements above the slow threshold come five times as often as in the last day, for ten minutes.",
			"Dashboard Mooring / Instance, panel Load by digest; open the digest that grew. The records of slow statements have its user and client."),
		alert("DBResponseBlocked", warning, 10*time.Minute,
			fmt.Sprintf("%s > 0.5 and %s > 0.05", blockedShare, load5m),
			who+" waits for its clients: {{ $value | humanizePercentage }} of its time",
			"For ten minutes more than half of all statement time was spent waiting until clients took their replies. The database is not slow.",
			"Dashboard Mooring / Instance, panels Blocked share and Retransmits: with retransmits look at the network, without at the client (fetching too much, out of CPU)."),
	}
}

// burnRate alerts when the error budget of thirty days burns factor times as
// fast as it may, by a long window (it matters) and a short one (it goes on).
func burnRate(name, severity string, hold time.Duration, factor float64, long, short, gone string) Rule {
	budget := fmt.Sprintf("%.4f", factor*(1-SLOObjective))
	return alert(name, severity, hold,
		fmt.Sprintf("1 - %s > %s and 1 - %s > %s", sloRatio(long), budget, sloRatio(short), budget),
		"{{ $value | humanizePercentage }} of the statements of "+who+" take longer than 100 ms",
		fmt.Sprintf("At most 0.1 %% of statements may take longer than 100 ms. Over %s and over %s it was more than %g times that: the budget of thirty days is gone in %s.", long, short, factor, gone),
		"mooringctl explain {{ $labels.instance }}; then dashboard Mooring / Instance, panel Mean duration by operation. A database that is slow by design (reports) deserves another bound: see SLOBound in deploy/monitoring.")
}
