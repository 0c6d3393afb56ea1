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
// given neither.
//
// # Losses
//
// Records are limited to a rate, and to what the sink takes; a subscriber has a
// buffer. What does not fit is dropped and counted: by reason in Stats, and for a
// subscriber in the next record it gets. Nothing here waits for a disk or a
// subscriber but Run.
package record
