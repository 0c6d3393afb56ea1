// Package active asks database servers how they are: with a login of their own,
// only where a policy or a file says so, and with as little as can be told by.
//
// It probes and reports. It decides nothing, and nothing in the agent acts upon
// what it finds: results go to people and to Prometheus (state.Active), and a
// test in package agent holds that. A server that lies here changes a metric.
//
// # What one instance gets
//
// One goroutine (worker.go), at most one connection, and on it at most one
// request in flight. A request that is not answered within two seconds counts as
// a timeout and stays the one in flight: nothing is sent behind it. After the
// third timeout in a row the connection is closed. A server's thread that waits for
// another does not see that, so this is done twice; the next connection is kept
// and its answer waited for, for four minutes at first and for an hour in the end,
// or until the server is another process. Heartbeats that hang are as far apart.
// So a server that hangs has few sessions of ours hanging with it and not one more
// every minute, and its recovery is seen at once. Failures wait
// longer each time, up to a minute; periods jitter by a tenth. The server is told
// to give up a little before two seconds itself (statement_timeout and its like).
//
// Before each login to PostgreSQL and Redis a connection is opened, answered by
// a first word without login, and closed (probe "connect"). Not so to MySQL and
// MariaDB: they count connections that do not log in, and block the host after
// max_connect_errors of them.
//
// # Accounts and secrets
//
// No account is to be locked for us, and servers count refusals in a row whatever
// lies between. A secret that was refused is tried once more, ten minutes later;
// then the probe stops and says so until the content of the secret is another
// one, which gets one attempt unless it is let in. Where the server says that it
// has locked the account, it stops at once. Refusals are remembered when an
// instance is gone for a while and when the agent restarts: of the secret a keyed
// fingerprint (refusals.go). The password is read when a login begins and
// overwritten when it is over; what a driver derives from it meanwhile, and what
// the API client's buffers hold, is the garbage collector's.
// Errors and notes are made of our words and of error codes, never of what a
// server or driver wrote.
//
// # Which server is spoken to
//
// The listening unix socket that the server's process holds (socket.go), opened
// below its own root directory so that no link in a container leads out of it,
// and accepted only when the other end is one of the instance's processes. Where
// there is none, or TLS is asked for, the port the server listens on, dialled
// in its network namespace, at an address where the listening socket is one that
// the server's process holds: others may listen on the same port.
//
// # Bytes from outside
//
// A server may send anything. A reply of more than one MiB ends the connection,
// a driver that panics is a failed probe, and the reply of Redis is read by a
// reader of our own (resp.go), because the common client allocates what the
// server says it will send.
//
// # Adding an engine
//
// One file with its greeting, login and session, one line in engines(), and its
// name in the API's rule for probes.
package active
