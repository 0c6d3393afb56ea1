// Package kube is the tree of commands for a whole cluster: `kubectl mooring`,
// also `mooringctl kube`. It reads and writes Mooring's custom resources with the
// caller's own kubeconfig and rights, and reads an agent's metrics through the
// API server.
//
// It talks to neither agents nor controller: what it prints of an experiment or
// a resize is what the controller wrote into its status. A command that follows
// one ends when the object says that it is over; until then an API server that
// does not answer is asked again. To stop following changes nothing.
//
// A Command is for one run in one goroutine. Errors of a run are *Failure and
// carry the exit status; any other error is about the command line.
//
// To add a command: a file with a method of command that returns a
// *cobra.Command, and its name in Command.
package kube
