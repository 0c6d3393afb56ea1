// Package chaos says what a fault is: which kinds there are, what each of them
// takes, whom it may hit, and which changes of the node it comes down to. It is
// pure: no clock, no files, no kernel. The controller validates with it, the
// agent plans with it, and a test compares its plans with text files.
//
// # From a wish to a plan
//
// A Spec is the wish: a Kind by name, an instance, parameters as text, a
// duration. Plan answers with a list of change.Change or with an error that
// says what is in the way and what to do about it. Everything that can be known
// beforehand is refused here, before anything is journalled: a parameter out of
// range, a node that cannot do it, a target that would take others with it, a
// second fault of the same Family on one instance.
//
// A plan is data. It is printed for a dry run, journalled, applied and undone
// by package change, which knows nothing of faults; a fault that is added has
// no undo to write, because each change carries its own.
//
// # How a fault ends
//
// Every fault has a deadline, at most Kind.MaxDuration away, on
// CLOCK_BOOTTIME, which no one can set back. Who enforces it depends on the
// class of the change:
//
//   - change.Net and change.IO carry the deadline into the kernel. The rule is
//     inert from then on, whether or not anybody is left to remove it.
//   - change.Freeze has no clock in the kernel. The plan is the same; the agent
//     journals it and starts a keeper process before the first write.
//
// A kind that can be had in the first way must not be written in the second.
//
// # One instance only
//
// A network fault hits a network namespace, so it is refused when that is the
// host's or when another instance lives in it. An I/O fault and a freeze hit a
// cgroup, so they are refused when that is shared. Containers in the same pod
// that are no databases share its network and feel a network fault too.
//
// # Adding a fault
//
// Write one file with a function that returns the Kind (help, parameters with
// examples, the capability it needs) and one that turns parameters into
// changes, and add a line to Kinds. The conformance test finds it there; add a
// scenario under testdata/plan and run the tests with -update. If it needs a new
// way to alter the node, that is a new change.Class, see package change. If it
// needs to refuse targets in a new way, that is a new Family, see target.go.
package chaos
