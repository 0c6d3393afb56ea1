// Package state holds the nouns of one node: the instances found on it, what
// they use, what was asked of them, which faults are active and what the node
// can do. The agent builds one Snapshot a tick; the exporter, the gRPC edge
// and the tests read it.
//
// It is not a store and holds no logic beyond looking things up in the value
// itself. A Snapshot is immutable once published: whoever received one may
// read it from any goroutine, for ever, and must not write to it.
//
// To add a noun, add a field here with its unit in the name or the type, fill
// it in package agent and read it in package exporter.
package state
