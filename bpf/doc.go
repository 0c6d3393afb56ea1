// Package bpf holds the agent's programs in the kernel and the Go around them:
// faults of file I/O (IOFaults) and of the network (NetFaults), and the timer
// of database statements (Statements).
//
// It does not decide anything: which server is watched, which fault is applied
// and for how long comes from its callers. It knows cgroups, processes, devices
// and interfaces, and no pods. It never touches a database's memory, files or
// connections.
//
// # Statement timer
//
// The time of a statement is that between two system calls of the server: the
// return of the receive that brought the first byte of the request, and the
// return of the last send before the server receives again. It contains the
// whole of a large result, and no network. It needs no knowledge of the reply,
// so it is exact for encrypted connections too, and a connection that was open
// before is in step after one round trip.
//
// One state machine (headers/query_flow.h) is built three times: for trampolines
// on the socket functions (query_core.bpf.c, ModeFentry), for the tracepoints of
// sockets that Linux has since 6.3 (query_socket.bpf.c, ModeTracepoint) and,
// within the limits of Linux 4.19, for the one tracepoint of the end of system
// calls (query_legacy.bpf.c, ModeTracepoint on older kernels). Statements are counted in the kernel, in histograms by
// server, operation and outcome; none is sent to the agent and none can be lost
// for want of a buffer. What is not counted as it should be is counted by
// Statements.Lost. README.md lists the operations and what is not seen.
//
// # Concurrency
//
// The fault types are safe for concurrent use. Of Statements only Read is.
//
// # Failure behaviour
//
// Nothing is pinned: programs, maps and with them every fault and counter end
// with the process. A program that the kernel refuses makes its Open function
// fail with the verifier's error and leaves nothing behind. That a program
// loads does not show that it works, so each has a probe that fires it.
//
// # Adding a program
//
// Write x.bpf.c and x.go, with the go:generate line in the latter, and commit
// what it generates. Declare the kernel's structures that are read in a header
// of headers/ with preserve_access_index, and only the members read; assert the
// size of each structure shared with Go on both sides. Names of programs begin
// with on_; names of programs and maps have at most 15 characters.
//
// An engine for the timer is a header like headers/query_redis.h with a
// function that looks at the first bytes of a request and one for those of the
// reply, and a case in query_flow.h, query_received.h and query_legacy.bpf.c; an
// operation is a line in enum query_operation and one in operationNames.
package bpf
