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
package change
