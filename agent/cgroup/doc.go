// Package cgroup is the typed layer over the control files of the cgroups that
// database instances live in: it reads limits and use, plans changes of
// limits, cpuset and freezer as lists of file writes, and carries single
// writes out with a check before and after.
//
// It knows both versions of the interface. Which one holds the cpu and memory
// controllers is found out once by New; a Group then hides the difference.
//
// # What it never does
//
// It never creates an instance's cgroup, never removes one and never moves a
// process. It never writes cgroup.subtree_control: on version 2 that would
// take a controller away from, or force one upon, every neighbour. It writes
// only the files on the list in files.go. It decides nothing: whether a limit
// may be lowered is CheckMemory's arithmetic and its caller's decision. The
// one directory it makes is "mooring.probe", for the probes of doctor, and
// that is removed again at once.
//
// # Reading, planning, writing
//
// Group.Stat reads. Group.PlanResize, PlanPin and PlanFreeze read and return
// changes in the order in which they must be made; nothing is written. Files
// carries out one change at a time. Each change names the inode of the
// directory that it is meant for, and that directory is opened first and the
// file within it, so that a cgroup made again under the same name is never
// written to by mistake.
//
// Control files are opened for writing only, with neither O_CREAT nor O_TRUNC,
// and by plain system calls: the os package sets O_NONBLOCK on them, because
// they can be polled, and to recent kernels that means "set the memory limit
// and do not reclaim" (memory_max_write in mm/memcontrol.c).
//
// # Concurrency
//
// FS and Group are immutable and may be shared. Files holds nothing, but two
// changes to one file must not run at the same time; the executor sees to it.
//
// # Failure
//
// What the kernel cannot do is an error that names the file, the value and
// what the kernel's errno means there. A cgroup that has disappeared is
// ErrGone, except to Revert, for which it is success.
//
// # Adding a control file
//
// Add it to control in control.go with its syntax and its notion of equality,
// and plan it in a file named after what it does.
package cgroup
