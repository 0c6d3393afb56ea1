// Package explain reads an instance's history and says what is wrong with it:
// a page of findings, each with its evidence and a next step, the worst first,
// and below them what was looked at and what could not be.
//
// Everything here is a pure function of a trend.History and a moment. A finding
// holds over a run of points of the history in which one condition is met; its
// begin is looked for in all of the history, not only in the window that is
// asked about. What is normal for an instance is the lower quartile of its own
// history, so that a trouble may fill up to three quarters of it and is still
// told apart. The thresholds, each with its reason, are in limits.go.
package explain
