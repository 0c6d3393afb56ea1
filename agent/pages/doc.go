// Package pages moves the memory of running processes between NUMA nodes.
//
// A write to cpuset.mems moves, at best, the pages that the cgroup's processes
// have in their page tables. That leaves two kinds behind: everything, where
// the kernel does not know where the cpuset was before (see Private), and the
// shared memory of a server that forks, whose pages most processes have never
// touched (see Shared): PostgreSQL's shared_buffers above all.
//
// Nothing here stops, traces or writes to a process. Page cache and huge pages
// of hugetlbfs are not moved. Calls block for as long as the kernel needs and
// may be made from any goroutine. The caller needs CAP_SYS_NICE for pages that
// are mapped more than once and CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE to open
// another process's shared memory.
package pages
