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
// # What is declared
//
// SetPolicy says which pods are instances, of what engine, and where they are
// to be. It is kept in Config.StateDir before it takes effect, and New follows
// what is kept: a restart needs neither controller nor API server, and changes
// nothing. A declaration that this version cannot follow is left out alone, and
// named. Where the servers of declared pods were found is kept beside it, so
// that they come back under the same ids. A kept policy that is damaged is set
// aside and reported; then none is followed.
//
// A goroutine of its own brings declared instances to one NUMA node where their
// policy wants that, one at a time, and keeps them there: on the node that was
// chosen first, not under a fault, with growing pauses after refusals, and not
// against somebody who writes the same cpuset again and again. What is not
// wanted anywhere is left where it is; nothing is ever unpinned.
//
// The limits of pods are written by their kubelet where the API server serves
// pods/resize. Resize then refuses unless it is told to write them raw.
//
// A fault may be leased: it ends when whoever asked for it does not ask again in
// time. Asking again, with the same uid and the same end, renews the lease and
// changes nothing else. Leases are counted on CLOCK_BOOTTIME, as deadlines are;
// the keeper of a frozen instance follows them, so that an agent that dies does
// not leave it frozen until the deadline. A lease is renewed in memory only: a
// fault does not outlive the agent.
//
// Before a fault what it may touch is read (the freezer's file, the disciplines
// and filters of the interface, the file rules of the cgroup), and read again
// after the undo; what differs is the fault's residue. Control files that a
// fault does not touch are not compared: the kubelet and placements write them,
// and a difference would say nothing of the fault. How the target was goes into
// the journal, so that the next agent can verify what it undid. Faults that are
// over are kept in faults.json across restarts: a request that is repeated gets
// their end for an answer and does not begin them again.
//
// # Who may ask
//
// Two servers offer the same calls. The unix socket belongs to root on the node.
// Config.Listen takes controllers over mutual TLS 1.3 alone: their certificate
// must be signed by an authority of ca.crt and carry the DNS name
// Config.ControllerName. The files are read again when they change; a
// connection ends after an hour, so that a certificate that was withdrawn is of
// no use for longer. Each change comes with the controller's epoch; the highest
// seen is on disk, in the file epoch, before a change begins, and one with a
// lower epoch is refused. Requests on the socket carry none. Missing or bad
// certificates keep controllers out and nothing else.
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
// not hold up the end of a fault, nor the end of the process its faults. The lease of armed rules is renewed by a
// goroutine that takes neither.
package agent
