package monitoring

import "fmt"

// agentsPage is Mooring itself: can what the other pages show be believed, and
// what does it cost?
func agentsPage() Dashboard {
	each := func(metric string) string { return metric + braces(chosenAgent) }
	name := "{{node}} {{instance}}"
	process := func(metric string) string { return metric + braces(and(agentJob, chosenAgent)) }
	return Dashboard{
		UID: uidAgents, Title: "Mooring / Agents", Description: "Mooring itself: is what the other pages show complete, and what does it cost?",
		Variables: []Variable{{Name: "agent", Label: "Agent", Metric: "up{" + agentJob + "}", By: "instance", All: true}},
		Rows: []Row{
			{"Now", []Panel{
				stat("Agents", "short", 4, "count("+process("up")+" == 1)"),
				stat("Oldest snapshot", "s", 4, "max("+each("mooring_snapshot_age_seconds")+")", bad(10, 30)...),
				stat("Lost a second", "ops", 4, sum(rate("db_probe_lost_total", chosenAgent+","+statementsLost, byAgent, window)), bad(0.001, 1)...).about("Statements that are missing; Lost by reason has those as well that count without their text."),
				stat("Lowest coverage", "percentunit", 4, "min("+coverage+")", good(0.95, 0.99)...).about("Share of the socket bytes of an instance that the probe saw, of the worst instance of all agents."),
				stat("Fullest map", "percentunit", 4, "max("+mapFill()+")", bad(0.5, 0.8)...),
				stat("Dearest agent", "short", 4, "max("+each(overheadCores)+")", bad(0.15, 0.3)...).about("Cores, of the agent and its programs together."),
			}},
			{"Statement probe", []Panel{
				table("Mode", 12, column(each("db_probe_mode"), "", "")).hiding("__name__", "job").linked(toAgent()).about("How statements are timed: fentry, tracepoint or off. mooringctl doctor says why."),
				lines("Lost by reason", "ops", 12, q(rate("db_probe_lost_total", chosenAgent, byAgent+", reason", window), "{{reason}} "+name)).
					about("Statements that ran and could not be recorded; they are missing in rates and digests, not in latencies."),
				lines("Events by kind", "ops", 12, q(rate("db_probe_events_total", chosenAgent, byAgent+", kind", window), "{{kind}} "+name)).about("What came from the kernel to the agent: texts, records, sessions."),
				lines("Coverage", "percentunit", 12, q("bottomk(20, "+coverage+")", "{{instance}}")).upTo(1).linked(toInstance()).about("Share of the instance's socket bytes that the probe saw; the twenty lowest."),
				lines("Map fill", "percentunit", 12, q(mapFill(), "{{map}} "+name)).upTo(1).limits(bad(0.5, 0.8)),
				lines("Run time of programs", "short", 12, q(rate("db_probe_program_run_seconds_total", chosenAgent, byAgent+", program", window), "{{program}} "+name)).stacked().
					about("Cores spent in BPF programs; counted only while the kernel's BPF statistics are on (sysctl kernel.bpf_stats_enabled)."),
			}},
			{"Agent", []Panel{
				lines("Overhead", "short", 12, q(each(overheadCores), name)).limits(bad(0.15, 0.3)).about("Cores, of the agent and its programs together."),
				lines("Memory", "bytes", 12, q(process("process_resident_memory_bytes"), name)),
				lines("Age of the snapshot", "s", 12, q(each("mooring_snapshot_age_seconds"), name)).limits(bad(10, 30)).about("It grows when the agent's loop is stuck."),
				lines("Time taken by each source", "s", 12, q(each("mooring_collector_duration_seconds"), "{{collector}} "+name)),
				lines("Sources and families that work", "short", 12,
					q("min by ("+byAgent+", collector) ("+each("mooring_collector_success")+")", "source {{collector}} "+name),
					q("min by ("+byAgent+", family) ("+each("mooring_exporter_success")+")", "family {{family}} "+name)).upTo(1),
				lines("Scrape", "s", 12, q(process("scrape_duration_seconds"), name)),
				lines("Series", "short", 12, q(process("scrape_samples_scraped"), name)).about("Samples in a scrape: at most 30,000 are planned for."),
				lines("Goroutines and files", "short", 12, q(process("go_goroutines"), "goroutines "+name), q(process("process_open_fds"), "files "+name)),
			}},
			{"What it is and can do", []Panel{
				table("Version", 12, column(each("mooring_build_info"), "", "")).hiding("__name__", "job"),
				table("Capabilities", 12, column(fmt.Sprintf("%s * on (node, instance, name) group_left (detail) %s", each("mooring_capability"), each("mooring_capability_info")), "Can", "short", good(1, 1)...)).
					hiding("job").about("Found by firing each once at the start."),
				table("Instances", 12, column(fmt.Sprintf("sum by (node, engine, source) (mooring_instances{%s})", chosenAgent), "Instances", "short")),
				lines("What was left alone", "short", 12,
					q(each("mooring_unknown_listeners"), "unknown listeners "+name),
					q(each("mooring_unresolved"), "unresolved "+name)),
			}},
		},
	}
}

func mapFill() string {
	return fmt.Sprintf("max by (%[1]s, map) (db_probe_map_entries{%[2]s}) / max by (%[1]s, map) (db_probe_map_capacity{%[2]s})", byAgent, chosenAgent)
}
