// Package agent is the loop that runs on every node: it finds database
// instances, reads what they use, carries out what is asked of them and
// publishes one immutable snapshot a tick. It is the only package that
// combines the mechanisms (bpf, cgroup, numa) with the decisions (chaos, numa
// policies) and with those who ask (gRPC).
//
// It formats no metrics, talks to no API server except through package pods,
// and never starts, stops, traces or logs in to a database.
//
// # Turns
//
// Run first undoes what an earlier process left behind (see Recover below),
// then probes what this node can do, then ticks: discovery every
// Config.Discover, counters every Config.Tick. Everything read in a tick goes
// into one state.Snapshot; a source that fails leaves its error there and the
// rest goes on.
//
// # Changes
//
// Placing and resizing are operations of package change that are journalled,
// applied, read back and closed. A fault is an operation that stays open until
// its undo was verified. Its undo never depends on this process living on:
//
//   - rules in BPF maps carry a deadline and a short lease the kernel compares
//     with its own clock (see package bpf);
//   - a freeze, which the kernel cannot expire, is journalled with fsync and a
//     keeper process of its own (package keeper) is started before the cgroup
//     is frozen. The keeper thaws at the deadline if nobody did so earlier.
//
// # Recover
//
// At start, before anything else touches the node, every operation still open
// in the journal is undone: an interrupted resize goes back to where it was,
// a frozen instance is thawed, a tc tree is removed.
//
// # Concurrency
//
// Snapshot may be called from any goroutine. Apply serialises: one lock for
// placement and size, one for faults, so that a slow migration of pages does
// not hold up the end of a fault. The lease of armed rules is renewed by a
// goroutine that takes neither.
package agent
