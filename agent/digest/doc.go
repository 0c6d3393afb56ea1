// Package digest is the table of statement digests of each database instance:
// which shapes of statement there are, what the kernel counts them under, and
// which few of them are shown.
//
// # What is counted where
//
// The kernel names a text by a hash and counts a statement under the number its
// hash was given. A text without a number comes here once (Table.Text); its key,
// the same for all texts of one shape, gets a number, and the kernel is told.
// Statements that ended before that was done come as records, and Table.Count
// counts them. Table.Tick puts both together.
//
// # What is shown
//
// An instance shows the digests that took the most time (100 of them, or what
// its Server.Top says), and besides those the twenty with the most errors and
// the twenty with the longest statement. Time and errors fade with a half-life
// of an hour, so that the list is of what is heavy now. A digest that is on the
// list stays for Sticky, whatever it does: a list that changes all the time makes
// series that nobody can read. Everything else is "other". A node shows at most
// maxShown digests; where that binds, instances share it evenly and a digest may
// leave before Sticky.
//
// # Sums
//
// What a statement took is added to one digest once and for all: to the one that
// is shown at that time, else to "other". A digest that comes onto the list counts
// from then on (state.Digest.Since). What one that leaves had counted leaves with
// it: it was an increase of that digest when it happened, and in "other" it would
// be one again, a load that never was. So no count of a digest falls while it is
// shown, that of "other" never, and from one Tick to the next the increases of an
// instance's digests add up to its statements, where one with another Since than
// before grew from nothing and one that left did not grow.
//
// # Bounds
//
// An instance has at most maxNumbers digests and a node maxNodeNumbers, shared
// evenly. Past that, digests that were idle for idleAfter are given up; a key seen
// a second time may take the place of one idle for replaceAfter; everything else
// counts as "other". Texts are kept normalised, at most maxText bytes each, and
// never a byte of what Table.Text was given.
package digest
