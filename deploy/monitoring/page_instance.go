package monitoring

import "fmt"

// instancePage is one database server, from its statements to its disk.
func instancePage() Dashboard {
	return Dashboard{
		UID: uidInstance, Title: "Mooring / Instance", Description: "One database server, from its statements to its disk.",
		Variables: append(place(),
			Variable{Name: "instance", Label: "Instance", Metric: `mooring_instance_info{node=~"$node",namespace=~"$namespace"}`, By: "instance"}),
		Rows: append([]Row{nowRow(), latencyRow(), waitRow(), digestRow(), transactionRow(), clientRow()}, resourceRows()...),
	}
}

func one(metric string) string { return metric + braces(chosen) }

func nowRow() Row {
	return Row{"Now", []Panel{
		stat("Operations a second", "ops", 4, sum(one(rate1m))),
		stat("p99", "s", 4, "max("+one(p99)+")", bad(0.1, 1)...),
		stat("Share of errors", "percentunit", 4, errorShareOf(chosen), bad(0.01, 0.05)...),
		stat("Load", "short", 4, sum(one(load5m))).about("Average number of statements at work."),
		stat("Oldest transaction", "s", 4, "max("+one("db_server_transaction_open_age_seconds")+")", bad(60, 300)...),
		stat("Waits for clients", "percentunit", 4, "max("+one(blockedShare)+")", bad(0.3, 0.5)...).about("Share of statement time spent until clients took their replies."),
	}}
}

func latencyRow() Row {
	byOperation := byInstance + ", db_operation_name"
	latency := func(title, quant string) Panel {
		return lines(title, "s", 8, q(quantile(quant, operations, chosen, byOperation, window), "{{db_operation_name}}"))
	}
	calls := countRate(operations, chosen, byOperation, window)
	return Row{"Latency and errors", []Panel{
		latency("p50 by operation", "0.5"), latency("p95 by operation", "0.95"), latency("p99 by operation", "0.99"),
		lines("Operations a second", "ops", 8, q(calls, "{{db_operation_name}}")).stacked(),
		lines("Mean duration by operation", "s", 8, q(share(sumRate(operations, chosen, byOperation, window), calls), "{{db_operation_name}}")),
		{Title: "Latency", Kind: Heat, Unit: "s", Width: 8, Queries: []Query{q(either(
			rate(operations+"_bucket", chosen, "le", window),
			fmt.Sprintf("sum(rate(%s{%s}[%s]))", operations, chosen, window)), "{{le}}")}},
		lines("Errors by code", "ops", 8, q(rate("db_server_errors_total", chosen, "db_response_status_code", window), "{{db_response_status_code}}")).stacked(),
		lines("Share of errors by operation", "percentunit", 8,
			q(fmt.Sprintf("(%s) / on (db_operation_name) ((%s) > 0)",
				countRate(operations, and(chosen, `error_type="error"`), "db_operation_name", window),
				countRate(operations, chosen, "db_operation_name", window)), "{{db_operation_name}}")),
		lines("Slow statements a second", "ops", 8, q(rate("db_slow_queries_total", chosen, byInstance, window), "slow")).about("Above the threshold of the instance's policy."),
	}}
}

// waitRow tells a slow server from a slow network or client.
func waitRow() Row {
	byOperation := byInstance + ", db_operation_name"
	return Row{"Who is slow: server, network or client", []Panel{
		lines("Until the first byte, of all statement time", "percentunit", 8, q(one(ttfbShare), "first byte")).upTo(1).
			about("Near 1 the server thinks before it answers; low, it sends long answers."),
		lines("Blocked share", "percentunit", 8, q(one(blockedShare), "blocked")).upTo(1).limits(bad(0.3, 0.5)).
			about("Share of statement time in which the server waited in a send until the client took the reply: a slow client or network, not a slow server."),
		lines("Mean time to the first byte by operation", "s", 8,
			q(share(sumRate(firstByte, chosen, byOperation, window), countRate(firstByte, chosen, byOperation, window)), "{{db_operation_name}}")),
		lines("Blocked by operation", "short", 8, q(rate("db_server_response_blocked_seconds_total", chosen, byOperation, window), "{{db_operation_name}}")).stacked().
			about("Seconds blocked a second: the average number of statements that wait for their clients."),
		lines("Bytes", "Bps", 8,
			q(rate("db_server_request_bytes_total", chosen, byInstance, window), "requests"),
			q(rate("db_server_response_bytes_total", chosen, byInstance, window), "responses")),
		lines("Replication and subscriptions", "Bps", 8, q(rate("db_server_stream_bytes_total", chosen, byInstance+", direction", window), "{{direction}}")).
			about("Bytes of connections that carry a stream instead of statements."),
	}}
}

func digestRow() Row {
	const byOne = "node, instance, digest"
	text := fmt.Sprintf("max by (%s, query) (db_query_digest_info{%s})", byOne, chosen)
	// What has no text (other, unsampled, tls, none) may be the heaviest of all.
	withText := func(expr string) string {
		return fmt.Sprintf("(%[1]s) * on (%[2]s) group_left (query) (%[3]s) or on (%[2]s) (%[1]s)", expr, byOne, text)
	}
	calls, seconds := countRate(digests, chosen, byOne, window), sumRate(digests, chosen, byOne, window)
	best := func(expr string) Query { return q(top(10, expr), "{{digest}}") }
	return Row{"Statements", []Panel{
		table("Statements by load", 24,
			column(withText(top(20, seconds)), "Load", "short"),
			column(withText(calls), "Calls/s", "ops"),
			column(withText(share(seconds, calls)), "Mean", "s", bad(0.1, 1)...),
			column(withText(share(rate("db_query_digest_rows_total", chosen, byOne, window), calls)), "Rows/call", "short"),
			column(withText(rate("db_query_digest_errors_total", chosen, byOne, window)), "Errors/s", "ops", bad(0.001, 1)...),
		).linked(toDigest()).tall(10).about("Load is the average number of these statements at work. Sort by any column."),
		lines("Load by digest", "short", 12, best(seconds)).stacked().linked(toDigest()).about("The ten with the most."),
		lines("Calls by digest", "ops", 12, best(calls)).linked(toDigest()),
		lines("Mean duration by digest", "s", 12, best(share(seconds, calls))).linked(toDigest()),
		lines("Errors by digest", "ops", 12, best(rate("db_query_digest_errors_total", chosen, byOne, window))).linked(toDigest()),
	}}
}

func transactionRow() Row {
	byOutcome := byInstance + ", outcome"
	count := countRate(txns, chosen, byOutcome, window)
	return Row{"Transactions", []Panel{
		lines("Transactions a second", "ops", 6, q(count, "{{outcome}}")).stacked(),
		lines("Mean duration", "s", 6, q(share(sumRate(txns, chosen, byOutcome, window), count), "{{outcome}}")),
		lines("Open", "short", 6, q(one("db_server_transactions_open"), "open")),
		lines("Oldest open", "s", 6, q(one("db_server_transaction_open_age_seconds"), "age")).limits(bad(60, 300)),
	}}
}

func clientRow() Row {
	return Row{"Clients", []Panel{
		lines("Connections", "short", 6, q(one("db_server_connections"), "connections")),
		lines("In flight", "short", 6, q(one("db_server_requests_in_flight"), "requests")),
		lines("Oldest request in flight", "s", 6, q(one("db_server_request_open_age_seconds"), "age")).limits(bad(10, 60)),
		lines("Logins", "ops", 6, q(rate("db_server_logins_total", chosen, byInstance+", result", window), "{{result}}")),
		lines("Statements inside requests", "ops", 12,
			q(rate("db_server_statements_total", chosen, byInstance, window), "statements"),
			q(countRate(operations, chosen, byInstance, window), "requests")).
			about("Pipelines and multi-statements carry several statements in a request."),
		lines("Rows", "ops", 12, q(rate("db_server_rows_total", chosen, byInstance+", db_operation_name", window), "{{db_operation_name}}")).
			about("Rows a second, returned or affected, where the protocol says so."),
	}}
}
