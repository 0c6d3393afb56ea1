// Package change is the one vocabulary in which anything on the node is
// altered: placing, resizing and breaking all become a short list of
// reversible changes, and one executor applies, verifies and undoes them.
//
// A Change is plain data with its pre-image, so a plan can be printed,
// compared, written to the journal and undone by a process that has only the
// journal. What a change of some Class does to the kernel is known by its
// Handler, which lives with the owner of the mechanism.
//
// The package does not decide anything and does not touch the kernel itself.
//
// # Order
//
// Apply prepares every change, which fills the pre-images, has the operation
// written to the journal durably, and only then lets the first handler act.
// Undo goes through the changes in reverse order and closes the record when
// each of them was verified.
//
// # Failure
//
// A change that fails, or whose handler panics, is reverted together with
// those before it. What cannot be reverted stays open in the journal and the
// error wraps ErrOpen: Undo may be called again, and Recover tries at the next
// start. An operation therefore ends fully applied, fully undone, or open in
// the journal; never half and forgotten.
//
// A call of the journal that failed may have reached the disk all the same.
// Until a later call settles it, the executor counts the operation as open and
// refuses other operations on the same targets: undoing an old record later
// would put back a value older than theirs.
//
// # Concurrency
//
// An Executor may be used from any goroutine; it works on one operation at a
// time and its methods block while the handlers and the journal work. Two
// executors may share a journal when their operations have no target in
// common; their handlers must then stand being called by both.
//
// # Adding a class of change
//
// Add a Class, the member of Change that carries its data, and its line in
// String, target and check; write a Handler where the mechanism lives and put
// it into the executor's table. Say in survivesReboot what a reboot does to it.
package change
