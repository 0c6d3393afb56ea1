// Package keeper ends a freeze when the agent cannot. The kernel has no
// deadline for a frozen cgroup, so before one is frozen a small process is
// started that belongs to nobody: it sits in a session and, where cgroup v2
// allows, in a cgroup of its own, waits for the deadline and writes the file's
// former value back.
//
// A keeper acts only while its marker file exists and the cgroup is the very
// one it was started for. Disarm removes the marker, after which the keeper
// finds nothing to do and exits within a second. Nothing is signalled and no
// pid is kept, so a reused pid cannot be hit.
//
// At the deadline it restores the value, reads it back, and goes on doing so for
// a minute, because the freeze may have been written late. An agent that starts
// sweeps the markers its journal does not know.
//
// A keeper does not survive the end of the pid namespace it was started in,
// nor a reboot; after a reboot nothing is frozen any more.
package keeper
