// Package record makes records of slow, failed and audited statements and of
// sessions, and hands them to a file or standard output as JSON lines and to
// those who subscribed.
//
// # The line
//
// One JSON object a line, fields that are not known left out:
//
//	time                  when it ended, RFC 3339 with nanoseconds
//	node, namespace, pod, instance, engine
//	kind                  slow, failed, read, write, ddl, privilege, statement,
//	                      login, refused or logout
//	user, database        by the session's login, where it was seen
//	client                address:port
//	digest, statement     its shape and text, without literals
//	operation, code       code is the protocol's, of an error
//	durationSeconds, firstByteSeconds, blockedSeconds
//	rows, requestBytes, responseBytes
//
// A statement makes one record: failed before slow before what is audited. There
// is never a literal in it, nor anything of an authentication: this package is
// given neither. An audited statement that changes privileges is of the kind
// "privilege", whatever its operation; where texts are not read, as digests are
// switched off, it is what its operation says. In the names of users and
// databases, which clients choose, bytes that are no UTF-8 are written as \xff.
//
// # Whose it was
//
// The kernel uses the numbers of connections again, and may lose the events of
// logins and logouts. A user is named only where the statement came from the
// address and port that the login came from. Connections without an address, over
// a local socket, cannot be told apart so: their users are forgotten when an event
// of a session was lost (Recorder.SessionsLost), as no name is better than a wrong
// one.
//
// # Losses
//
// Records are limited to a rate, for each instance and in three classes, so that
// what clients make plenty of (reads, slow and failed statements) pushes out
// neither what is rare (definitions, privileges, sessions) nor what another
// instance has to tell; and they are limited to what the sink takes, of which what
// is rare has a share of its own. A subscriber has a buffer. What does not fit is
// dropped and counted: by reason in Stats, and for a subscriber in the next record
// it gets. Nothing here waits for a disk or a subscriber but Run.
//
// A line that the disk took a part of only is ended before the next one: it is the
// only line that is not whole.
package record
