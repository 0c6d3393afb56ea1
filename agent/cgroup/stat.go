package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
)

// Stat is what a cgroup may use and uses.
type Stat struct {
	// CPUMillicores and MemoryLimitBytes are the cgroup's own limits; 0 is
	// none. A cgroup above it may hold it to less.
	CPUMillicores    int64
	MemoryLimitBytes int64
	// CPUUsage is the CPU time used since the cgroup was made, CPUThrottled
	// the time it was held back by its limit. On version 1 CPUUsage is 0
	// where the cpuacct controller's directory is not known.
	CPUUsage     time.Duration
	CPUThrottled time.Duration
	// MemoryUsageBytes is all that is charged, page cache included.
	MemoryUsageBytes int64
	// MemoryInUseBytes is what reclaim cannot take back without swapping.
	//
	// On version 2: anon + shmem + sock + kernel memory other than
	// reclaimable slab (kernel - slab_reclaimable from Linux 5.18 on, else
	// slab_unreclaimable + kernel_stack + pagetables + percpu). Locked file
	// pages are not in it; no engine known here locks any.
	//
	// On version 1: rss + shmem + kernel memory (memory.kmem.usage_in_bytes),
	// each with the cgroups below. The kernel does not say there how much of
	// its own memory is reclaimable, so all of it counts.
	MemoryInUseBytes int64
	// OOMKills counts processes killed in the cgroup, and on version 2 in
	// those below, for lack of memory.
	OOMKills int64
	// CPUs and MemoryNodes are the effective cpuset as kernel lists. Where
	// the cpuset controller is not enabled they are those of the nearest
	// cgroup above that has it; empty where there is none at all.
	CPUs        string
	MemoryNodes string
	// NodeBytes is memory by NUMA node; nil on a kernel that does not tell.
	// On version 2 (from Linux 5.9) it is anonymous and shared memory, which is
	// what follows a cpuset; page cache that no process has mapped stays where
	// it was read until it is dropped (kernel/cgroup/cpuset.c migrates the
	// pages of address spaces). Version 1 does not tell them apart: there it is
	// all pages on the LRU lists.
	NodeBytes map[int]int64
}

// Stat reads the cgroup. The files are read one after the other, so figures of
// a busy cgroup need not agree to the byte. It does not block.
func (g *Group) Stat() (Stat, error) {
	var s Stat
	if err := g.check(); err != nil {
		return s, err
	}
	read := g.stat2
	if g.fs.version == 1 {
		read = g.stat1
	}
	if err := read(&s); err != nil {
		return Stat{}, fmt.Errorf("read cgroup %q: %w", g.Path(), g.goneOr(err))
	}
	if err := g.readCPUSet(&s); err != nil {
		return Stat{}, fmt.Errorf("read cpuset of cgroup %q: %w", g.Path(), g.goneOr(err))
	}
	return s, nil
}

// OOMKillsAbove counts processes killed for lack of memory in the cgroup above
// this one and in all below that, those included that were removed since: on
// version 2 the kernel counts an event in every cgroup upwards
// (memcg_memory_event in include/linux/memcontrol.h). It returns false where
// it does not: on version 1, below the root, and without the memory controller
// above. With the mount option memory_localevents those below are not counted. It
// does not block.
func (g *Group) OOMKillsAbove() (int64, bool, error) {
	if g.fs.version == 1 {
		return 0, false, nil
	}
	dir := filepath.Dir(g.main().dir)
	keys, err := readKeys(filepath.Join(dir, "memory.events"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read cgroup above %q: %w", g.Path(), g.goneOr(err))
	}
	n, ok := keys["oom_kill"]
	return n, ok, nil
}

// goneOr returns ErrGone if that is why err came about: a cgroup that is
// removed while it is read fails in many ways.
func (g *Group) goneOr(err error) error {
	if isNoDevice(err) {
		return gone(err)
	}
	if errors.Is(err, os.ErrNotExist) {
		if now := g.check(); now != nil {
			return now
		}
	}
	return err
}

func (g *Group) stat2(s *Stat) error {
	dir := g.main().dir
	m, err := g.manager2()
	if err != nil {
		return err
	}
	figures, err := m.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemoryEvents)
	if err != nil {
		return err
	}
	s.CPUUsage = time.Duration(figures.CPU.UsageUsec) * time.Microsecond
	s.CPUThrottled = time.Duration(figures.CPU.ThrottledUsec) * time.Microsecond
	if figures.MemoryEvents != nil {
		s.OOMKills = int64(figures.MemoryEvents.OomKill)
	}
	limit, err := g.fs.readCPULimit(dir)
	if err != nil {
		return err
	}
	s.CPUMillicores = limit.millicores()
	if s.MemoryLimitBytes, err = g.fs.readMemoryLimit(dir); err != nil {
		return err
	}
	if s.MemoryUsageBytes, err = readBytes(filepath.Join(dir, "memory.current")); err != nil {
		return notEnabled(err, "memory")
	}
	keys, err := readKeys(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return err
	}
	s.MemoryInUseBytes = keys["anon"] + keys["shmem"] + keys["sock"] + kernelInUse(keys)
	s.NodeBytes, err = readNodeStat(filepath.Join(dir, "memory.numa_stat"), 1, "anon", "shmem")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func kernelInUse(keys map[string]int64) int64 {
	if all, ok := keys["kernel"]; ok {
		return max(0, all-keys["slab_reclaimable"])
	}
	return keys["slab_unreclaimable"] + keys["kernel_stack"] + keys["pagetables"] + keys["percpu"]
}

func (g *Group) stat1(s *Stat) error {
	controllers := []string{"cpu", "memory"}
	if at, ok := g.places["cpuacct"]; ok && at.path != "/" {
		controllers = append(controllers, "cpuacct")
	}
	m, err := g.manager1(controllers...)
	if err != nil {
		return err
	}
	figures, err := m.Stat()
	if err != nil {
		return err
	}
	if figures.Memory == nil || figures.MemoryOomControl == nil {
		return ErrGone
	}
	s.CPUUsage = time.Duration(figures.CPU.Usage.Total)
	s.CPUThrottled = time.Duration(figures.CPU.Throttling.ThrottledTime)
	s.OOMKills = int64(figures.MemoryOomControl.OomKill)
	s.MemoryUsageBytes = int64(figures.Memory.Usage.Usage)
	if figures.Memory.Usage.Limit < unlimited {
		s.MemoryLimitBytes = int64(figures.Memory.Usage.Limit)
	}
	limit, err := g.fs.readCPULimit(g.places["cpu"].dir)
	if err != nil {
		return err
	}
	s.CPUMillicores = limit.millicores()

	dir := g.places["memory"].dir
	keys, err := readKeys(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return err
	}
	kernel, err := readBytes(filepath.Join(dir, "memory.kmem.usage_in_bytes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.MemoryInUseBytes = int64(figures.Memory.TotalRSS) + keys["total_shmem"] + kernel
	s.NodeBytes, err = g.nodeBytes1(dir)
	return err
}

func (g *Group) nodeBytes1(dir string) (map[int]int64, error) {
	name, page := filepath.Join(dir, "memory.numa_stat"), int64(os.Getpagesize())
	nodes, err := readNodeStat(name, page, "hierarchical_total")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil || nodes != nil {
		return nodes, err
	}
	return readNodeStat(name, page, "total") // kernels before 3.17
}

// readCPUSet fills CPUs and MemoryNodes.
func (g *Group) readCPUSet(s *Stat) error {
	at, ok := g.places[g.controllerKey("cpuset")]
	if !ok {
		return nil
	}
	above, err := g.ancestors("cpuset", at)
	if err != nil {
		return err
	}
	for _, p := range append([]place{at}, above...) {
		s.CPUs, s.MemoryNodes, err = g.fs.effective(p.dir)
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// effective returns the CPUs and memory nodes that processes in dir may use.
func (f *FS) effective(dir string) (cpus, mems string, err error) {
	cpuFile, memFile := "cpuset.cpus.effective", "cpuset.mems.effective"
	if f.version == 1 {
		cpuFile, memFile = "cpuset.effective_cpus", "cpuset.effective_mems"
	}
	if cpus, err = readValue(filepath.Join(dir, cpuFile)); err != nil {
		return "", "", err
	}
	mems, err = readValue(filepath.Join(dir, memFile))
	return cpus, mems, err
}

func notEnabled(err error, controller string) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the %s controller is not enabled for this cgroup: %w", controller, err)
	}
	return err
}
