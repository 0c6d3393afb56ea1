// Package journal keeps the list of operations that were begun on this node
// and are not yet undone, so that a process which starts after a crash knows
// what to put back. A record is on disk before Append returns; the caller acts
// only after that.
//
// It is not a log and not a database, and it does not know what a record
// means: records are bytes under an id.
//
// # Format
//
// One append-only file, "journal", one line a record:
//
//	0000002a 9f3c01d7 + "uid-1" "{\"id\":\"uid-1\"}"
//	00000009 17e9a2c4 - "uid-1"
//
// The first field is the length of what follows the second, the second its
// CRC-32C, both in hexadecimal. "+" opens a record or replaces the one of that
// id, "-" closes it. Strings are quoted as in Go, in ASCII, so that the file
// can be read with cat and a line never contains a line break.
//
// The file is written anew (new file, fsync, rename, fsync of the directory)
// at Open, when it has grown, and after an fsync that failed: from then on
// nobody can say what of the old file is on disk.
//
// # Failure
//
// Append or Done returned an error: nothing is known to have been recorded,
// and the caller must not act. The state in memory is unchanged, and what may
// have reached the disk is removed before the next record is written.
//
// The file is cut short or altered: every line whose checksum holds is kept,
// the file stays beside the journal as "journal.damaged-TIME", and Damage says
// so. Open does not fail for it. An altered "-" line brings its record back,
// so an undo may be repeated, never forgotten.
//
// The disk is full at Open: the records are there, and the old file goes on
// being used.
//
// # Concurrency
//
// A Journal may be used from any goroutine; its methods block for an fsync.
// One process at a time holds a directory, by flock on the file "lock".
package journal
