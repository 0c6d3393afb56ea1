// Package trend turns counters that only grow into what happened between two
// moments, and keeps the last five hours of that for each instance: ten
// minutes in steps of ten seconds, the rest in steps of five minutes.
//
// A Sample is what was counted at one moment, a Summary what happened between
// two of them, a Book the history of a node's instances. Nothing here reads a
// clock or the kernel, and no text of a statement is kept: a digest is known by
// its ID alone.
package trend
