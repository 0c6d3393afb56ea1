// Package resource reads what the node and its database instances use: CPU,
// memory, pressure, disks, tasks, TCP and space. It changes nothing, decides
// nothing and knows neither metrics nor pods; what it returns are nouns of
// package state.
//
// # Each read
//
// The agent reads as often as it looks for instances, every five to six seconds.
// Reader.Instance reads the files of one cgroup, both versions, and looks at some
// of its threads; Reader.Machine reads the node. Neither blocks: they read
// procfs, sysfs and cgroup files alone. Threads are looked at in turn, at most
// looksPerRead of the whole node in one read, so that ten thousand threads cost no
// more than a few hundred. A thread's waiting time is the kernel's own sum, so
// one that is looked at seldom loses nothing but what it waited between the last
// look and its end. What threads waited before an instance was first listed is not
// counted: it is weeks for some and would be the waits of one moment.
//
// # In the background
//
// Surveyor looks at what may block or is dear: file systems (a network file system
// whose server is away never answers), open descriptors, and the sockets in an
// instance's network namespace. One survey of an instance is under way at most,
// so one that hangs holds up itself alone, and the age of its result grows. No
// directory is walked: sizes are those of the file system that holds it.
//
// # Concurrency
//
// A Reader belongs to one goroutine. A Surveyor may be used by any.
//
// # Failure
//
// What cannot be read is returned as an error beside what could be.
package resource
