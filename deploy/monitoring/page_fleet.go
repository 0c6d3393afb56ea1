package monitoring

import "fmt"

// inFleet limits an expression by the fleet's variables, which the series carry.
const inFleet = `node=~"$node",namespace=~"$namespace"`

func top(n int, expr string) string { return fmt.Sprintf("topk(%d, %s)", n, expr) }

// fleetPage is all databases at once: which cluster or instance needs a look?
func fleetPage() Dashboard {
	in := func(metric string) string { return metric + braces(inFleet) }
	byCluster := func(how, expr string) string {
		return fmt.Sprintf(`%s by (cluster) ((%s) * on (%s) group_left (cluster) %s)`, how, expr, byInstance, clusterInfo)
	}
	return Dashboard{
		UID: uidFleet, Title: "Mooring / Fleet", Description: "All databases: what needs a look?", Variables: place(),
		Rows: []Row{
			{"Now", []Panel{
				stat("Instances", "short", 4, fmt.Sprintf("count(mooring_instance_info{%s})", inFleet)),
				stat("Operations a second", "ops", 4, fmt.Sprintf("sum(%s)", in(rate1m))),
				stat("Share of errors", "percentunit", 4, errorShareOf(inFleet), bad(0.01, 0.05)...),
				stat("Slowest p99", "s", 4, fmt.Sprintf("max(%s)", in(p99)), bad(0.1, 1)...),
				stat("Alerts firing", "short", 4, `count(ALERTS{alertname=~"(DB|Mooring).+",alertstate="firing"}) or vector(0)`, bad(1, 5)...),
				stat("Agents not scraped", "short", 4, "count(up{"+agentJob+"} == 0) or vector(0)", bad(1, 2)...),
			}},
			{"Clusters and instances", []Panel{
				table("Clusters", 12,
					column(byCluster("sum", in(rate1m)), "Operations/s", "ops"),
					column(byCluster("sum", in(load5m)), "Load", "short"),
					column(byCluster("max", in(p99)), "Worst p99", "s", bad(0.1, 1)...),
					column(byCluster("max", in(errorRatio)), "Worst errors", "percentunit", bad(0.01, 0.05)...),
				).linked(toCluster()).tall(10).about("A cluster is named by its namespace and its DatabasePolicy; - stands for instances that no policy declares. Load is the average number of statements at work."),
				table("Instances", 12,
					column(plain(in(load5m)), "Load", "short"),
					column(plain(in(rate1m)), "Operations/s", "ops"),
					column(plain(in(p99)), "p99", "s", bad(0.1, 1)...),
					column(plain(in(errorRatio)), "Errors", "percentunit", bad(0.01, 0.05)...),
					column(plain(in(blockedShare)), "Waits for clients", "percentunit", bad(0.3, 0.5)...),
				).linked(toInstance()).tall(10),
			}},
			{"Over time", []Panel{
				lines("Operations a second by engine", "ops", 12, q(fmt.Sprintf("sum by (db_system_name) (%s)", in(rate1m)), "{{db_system_name}}")).stacked(),
				lines("Load: the ten busiest", "short", 12, q(top(10, in(load5m)), "{{instance}}")).linked(toInstance()),
				lines("p99: the ten slowest", "s", 12, q(top(10, in(p99)), "{{instance}}")).linked(toInstance()),
				lines("Share of errors: the ten worst", "percentunit", 12, q(top(10, in(errorRatio)), "{{instance}}")).linked(toInstance()),
				lines("Within the service level", "percentunit", 12, q(fmt.Sprintf("bottomk(10, %s)", in(sloRatio("1h"))), "{{instance}}")).
					linked(toInstance()).upTo(1).about("Share of statements of the last hour that ended within 100 ms; the goal is 99.9 %."),
				lines("Replication lag: the ten worst", "s", 12, q(top(10, in("db_replication_lag_seconds")), "{{instance}}")).linked(toInstance()).limits(bad(10, 30)).
					about("Needs active probes: spec.probe of a DatabasePolicy."),
				lines("CPU: the ten busiest", "short", 12, q(top(10, rate("mooring_instance_cpu_usage_seconds_total", inFleet, byInstance, window)), "{{instance}}")).linked(toInstance()).about("Cores in use."),
				lines("Faults on purpose", "short", 12, q(fmt.Sprintf("sum by (kind) (mooring_fault_active{%s}) or vector(0)", inFleet), "{{kind}}")).
					about("What Mooring itself breaks at the moment."),
			}},
		},
	}
}

// errorShareOf is the share of errors of everything that a selector takes.
func errorShareOf(selector string) string {
	all := sum(countRate(operations, selector, bySystem, window))
	failed := sum(countRate(operations, and(selector, `error_type="error"`), bySystem, window))
	return share(failed+" or vector(0)", all)
}

// plain keeps of a series what a table of instances shows: columns are joined by
// equal labels, and the names of recorded series differ.
func plain(expr string) string {
	return "max by (node, instance, db_system_name) (" + expr + ")"
}

func sum(expr string) string { return "sum(" + expr + ")" }
