// Package exporter turns the agent's snapshot into Prometheus metrics and
// answers the two health questions an orchestrator asks.
//
// It reads nothing itself: no /proc, no cgroup file, no kernel map. What it
// serves is what the last tick of the agent found, so a scrape costs the node
// nothing but the encoding, and every series of one scrape is of one moment.
// It is not a store either; the only thing it remembers between scrapes is
// which faults it has counted, because counters must not fall when an ended
// fault leaves the snapshot.
//
// # Layout
//
// The metrics come in families, one file each (statements.go, resources.go,
// placement.go, ...). A family declares its metrics with name, type, labels
// and help, and a function that fills them from a snapshot. The table of all
// families is in families.go; README.md is generated from it.
//
// To add a metric, declare it in its family and set it in the family's collect
// function. To add a family, write its file and add one line to the table.
// Then run
//
//	go test ./exporter -run 'TestGolden|TestReadme' -update
//
// and review what changed in testdata/metrics.golden and README.md.
//
// # Labels
//
// Only values with a small, known set become labels: the instances on this
// node, operations, kinds of fault, capabilities. Uids, process ids, client
// addresses and error texts never do. Texts are in metrics named _info alone, one
// for each of a bounded number of things, on one line and cut to 256 bytes: why a
// capability is there or not, how I/O is timed, and the text of each digest that
// is kept apart, without its literals. Package agent/digest bounds those.
//
// # Concurrency
//
// All methods may be called from any goroutine. Scrapes that arrive while one
// is being collected share its result. The Source must not block.
//
// # Failure
//
// A family that meets a value it cannot export leaves that series out; one
// that panics loses the rest of its series. Either way the other families are
// served, the answer is 200, mooring_exporter_success{family="..."} is 0, and
// the cause is logged once. Before the first snapshot the scrape holds only
// what is known of the agent itself.
package exporter
