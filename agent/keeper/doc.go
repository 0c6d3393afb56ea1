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
// A fault that is to end unless its request is repeated has a short deadline that
// Extend moves on with each repetition: should the agent die, the keeper thaws
// soon.
//
// A keeper may have been started in a container that is then removed, with the
// host's pid namespace. It has left the container's cgroups by then, it holds
// the mount namespace in which it finds its marker and the control file, both
// on file systems of the host, and its program is in memory or in a file that it
// keeps open: of the container's own files it needs none. It never starts
// anything, and writes nothing but the control file and the marker.
//
// At the deadline it restores the value, reads it back, and goes on doing so for
// a minute, because the freeze may have been written late. An agent that starts
// sweeps the markers its journal does not know.
//
// A keeper does not survive the end of the pid namespace it was started in,
// nor a reboot; after a reboot nothing is frozen any more.
package keeper
