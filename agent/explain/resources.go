package explain

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/trend"
)

// throttled is the share of the CPU time wanted that cpu.max withheld.
func throttled(p *trend.Summary) float64 {
	w := p.Waits[trend.Throttled]
	if !w.Known || !p.CPU.Known {
		return 0
	}
	return ratio(w.Total.Seconds(), (w.Total + p.CPU.Total).Seconds())
}

func isThrottled(p *trend.Summary) bool { return throttled(p) >= throttledShare.value() }

func (v *view) throttling() []Finding {
	r, ok := v.episode(lasting.time(), isThrottled)
	if !ok {
		return nil
	}
	s := v.sum(r)
	share := throttled(s)
	f := Finding{
		Kind: KindThrottled, Severity: Warning, impact: s.Load(s.Waits[trend.Throttled].Total),
		Title: fmt.Sprintf("throttled by cpu.max: %s of the CPU time it wants is withheld", percent(share)),
		Evidence: []string{
			fmt.Sprintf("held back %s per second, used %s, over %s", duration(perSecond(s, s.Waits[trend.Throttled].Total)), cores(s.Load(s.CPU.Total)), duration(s.Length)),
		},
		Next: "lower the load or raise the limit",
	}
	if share >= throttledCritical.value() {
		f.Severity = Critical
	}
	if m := s.Limits.CPUMillicores; m > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("cpu.max allows %s", cores(float64(m)/1000)))
		// What was withheld is wanted on top, but a queue that runs dry wants less
		// than it did: never suggest more than double.
		want := min(2, 1/(1-min(share, 0.5))) * float64(m)
		f.Next = fmt.Sprintf("raise the limit: %s; or find what uses it with mooringctl top", v.resize(fmt.Sprintf("--cpu %dm", int64(math.Ceil(want/100))*100)))
	}
	return []Finding{v.finding(r, f)}
}

// resize is how the instance gets another limit: the agent does not write one
// that is the kubelet's.
func (v *view) resize(flags string) string {
	o := v.h.Owner
	if !o.Kubelet {
		return fmt.Sprintf("mooringctl resize %s %s", v.h.ID, flags)
	}
	namespace, policy, ok := strings.Cut(o.Policy, "/")
	if !ok || o.Pod == "" {
		return "its kubelet writes it, so change it where the pod is declared, or have a DatabasePolicy select the pod and use kubectl mooring resize"
	}
	return fmt.Sprintf("kubectl mooring resize -n %s --policy %s --pods %s %s", namespace, policy, o.Pod, flags)
}

// queued is the share of CPU time and the wait for it that was wait.
func queued(p *trend.Summary) float64 {
	w := p.Waits[trend.RunQueue]
	if !w.Known || !p.CPU.Known {
		return 0
	}
	return ratio(w.Total.Seconds(), (w.Total + p.CPU.Total).Seconds())
}

// isQueued leaves throttled points out: a throttled thread stays on its run
// queue, and its wait is counted there, too.
func isQueued(p *trend.Summary) bool {
	return queued(p) >= queueShare.value() && p.Load(p.Waits[trend.RunQueue].Total) >= queueLoad.value() && !isThrottled(p)
}

func (v *view) queue() []Finding {
	r, ok := v.episode(lasting.time(), isQueued)
	if !ok {
		return nil
	}
	s := v.sum(r)
	wait := s.Load(s.Waits[trend.RunQueue].Total)
	return []Finding{v.finding(r, Finding{
		Kind: KindQueue, Severity: Warning, impact: wait,
		Title: fmt.Sprintf("waits for a CPU %s of the time it could run, without being throttled", percent(queued(s))),
		Evidence: []string{
			fmt.Sprintf("%s threads runnable and not running on average, %s used, over %s", digits(wait), cores(s.Load(s.CPU.Total)), duration(s.Length)),
		},
		Next: "its CPUs are shared with others or are too few: compare instances in mooringctl top, and its cpuset in mooringctl instances",
	})}
}

// stalled is the share of time in which tasks stalled.
func stalled(p *trend.Summary, w trend.Wait) float64 {
	if !p.Waits[w].Known {
		return 0
	}
	return min(1, p.Load(p.Waits[w].Total))
}

// slow says whether a latency is above its limits.
func slow(q trend.Quick, usual normal, absolute float64) bool {
	mean := q.Mean().Seconds()
	if q.Count == 0 || !q.Known {
		return false
	}
	return mean >= absolute || usual.known && mean >= max(fsyncFactor.value()*usual.value, fsyncFloor.value())
}

func (v *view) isIOSlow(p *trend.Summary) bool {
	return stalled(p, trend.IO) >= ioStall.value() || slow(p.Fsync, v.fsyncNormal, fsyncSlow.value()) || slow(p.Block, v.blockNormal, blockSlow.value())
}

func (v *view) io() []Finding {
	r, ok := v.episode(lasting.time(), v.isIOSlow)
	if !ok {
		return nil
	}
	s := v.sum(r)
	f := Finding{
		Kind: KindIO, Severity: Warning, impact: max(s.Load(s.Waits[trend.IO].Total), s.Load(s.Fsync.Sum)),
		Title: fmt.Sprintf("waits for I/O %s of the time", percent(stalled(s, trend.IO))),
		Next:  "look at the volume: its latency and limits at the provider, and who else uses the device; a checkpoint, backup or vacuum that began then is the usual cause",
	}
	if slow(s.Fsync, v.fsyncNormal, fsyncSlow.value()) {
		f.Title = fmt.Sprintf("fsync is slow: %s on average", duration(s.Fsync.Mean()))
		f.Next = "each commit waits for it: " + f.Next
	} else if slow(s.Block, v.blockNormal, blockSlow.value()) {
		f.Title = fmt.Sprintf("the block device is slow: %s on average", duration(s.Block.Mean()))
	}
	if q := s.Fsync; q.Count > 0 {
		f.Evidence = append(f.Evidence, "fsync "+latency(q, v.fsyncNormal, s))
	}
	if q := s.Block; q.Count > 0 {
		f.Evidence = append(f.Evidence, "block I/O "+latency(q, v.blockNormal, s))
	}
	if s.Waits[trend.IO].Known {
		f.Evidence = append(f.Evidence, fmt.Sprintf("some task stalled for I/O %s of %s (io.pressure)", percent(stalled(s, trend.IO)), duration(s.Length)))
	}
	if s.Fsync.Mean() >= fsyncCritical.time() || stalled(s, trend.IO) >= ioCritical.value() {
		f.Severity = Critical
	}
	return []Finding{v.finding(r, f)}
}

func latency(q trend.Quick, usual normal, s *trend.Summary) string {
	text := fmt.Sprintf("mean %s, p99 %s, %s over %s", duration(q.Mean()), duration(q.P99), rate(s.Rate(q.Count)), duration(s.Length))
	if usual.known {
		text += ", normally " + duration(span(usual.value))
	}
	return text
}

// memoryUse is the share of the memory limit in use.
func memoryUse(p *trend.Summary) float64 {
	if !p.Limits.Known || p.Limits.MemoryBytes <= 0 {
		return 0
	}
	return ratio(float64(p.Limits.MemoryInUse), float64(p.Limits.MemoryBytes))
}

func isMemoryStalled(p *trend.Summary) bool { return stalled(p, trend.Memory) >= memoryStall.value() }

func isMemoryShort(p *trend.Summary) bool {
	return isMemoryStalled(p) || memoryUse(p) >= memoryNear.value()
}

func (v *view) memory() []Finding {
	r, ok := v.episode(lasting.time(), isMemoryShort)
	if !ok {
		return nil
	}
	s := v.sum(r)
	use, stall := memoryUse(s), stalled(s, trend.Memory)
	f := Finding{
		Kind: KindMemory, Severity: Warning, impact: stall,
		Title: fmt.Sprintf("stalls for memory %s of the time", percent(stall)),
		Next:  "lower what the database may use (buffer pool, work memory, connections) or raise the limit: " + v.resize("--memory SIZE"),
	}
	if use >= memoryNear.value() {
		f.Title = fmt.Sprintf("memory is near its limit: %s of it cannot be reclaimed", percent(use))
	}
	if s.Limits.MemoryBytes > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s of %s in use that reclaim cannot take back, at the end of %s", bytes(s.Limits.MemoryInUse), bytes(s.Limits.MemoryBytes), duration(s.Length)))
	}
	if s.Waits[trend.Memory].Known {
		f.Evidence = append(f.Evidence, fmt.Sprintf("some task stalled for memory %s of %s (memory.pressure)", percent(stall), duration(s.Length)))
	}
	if use >= memoryCritical.value() || stall >= memoryStallCritical.value() {
		f.Severity = Critical
	}
	return []Finding{v.finding(r, f)}
}

func (v *view) oomKills() []Finding {
	r, ok := v.episode(0, func(p *trend.Summary) bool { return p.OOMKills > 0 })
	if !ok {
		return nil
	}
	s := v.sum(r)
	return []Finding{v.finding(r, Finding{
		Kind: KindOOM, Severity: Critical, impact: float64(s.OOMKills),
		Title:    "the kernel killed processes of it for lack of memory",
		Evidence: []string{fmt.Sprintf("%d killed within %s (memory.events oom_kill), limit %s", s.OOMKills, duration(s.Length), bytes(s.Limits.MemoryBytes))},
		Next:     "raise the limit: " + v.resize("--memory SIZE") + "; then look in the database's log for what asked for memory",
	})}
}

func (v *view) restarts() []Finding {
	r, ok := v.episode(0, func(p *trend.Summary) bool { return p.Restarts > 0 })
	if !ok {
		return nil
	}
	s := v.sum(r)
	return []Finding{v.finding(r, Finding{
		Kind: KindRestart, Severity: Warning, impact: float64(s.Restarts),
		Title:    "the server was restarted",
		Evidence: []string{fmt.Sprintf("its first process changed %s within %s", times(s.Restarts), duration(s.Length))},
		Next:     "look in the database's log and the pod's events for the reason; caches are cold for a while after it",
	})}
}

func (v *view) remote() []Finding {
	r, ok := v.episode(lasting.time(), func(p *trend.Summary) bool {
		return p.Limits.LocalKnown && p.Limits.LocalShare < localShare.value()
	})
	if !ok {
		return nil
	}
	s := v.sum(r)
	return []Finding{v.finding(r, Finding{
		Kind: KindRemote, Severity: Warning, impact: 1 - s.Limits.LocalShare,
		Title:    fmt.Sprintf("%s of its memory is on other NUMA nodes than its CPUs", percent(1-s.Limits.LocalShare)),
		Evidence: []string{fmt.Sprintf("local share %s at the end of %s, of %s in use", percent(s.Limits.LocalShare), duration(s.Length), bytes(s.Limits.MemoryInUse))},
		Next:     fmt.Sprintf("bring its memory over: mooringctl pin %s", v.h.ID),
	})}
}

func (v *view) replication() []Finding {
	r, ok := v.episode(lasting.time(), func(p *trend.Summary) bool {
		return p.Replication.Known && p.Replication.Delay >= replicaLate.time()
	})
	if !ok {
		return nil
	}
	last := v.points[r.to].Replication
	f := Finding{
		Kind: KindReplication, Severity: Warning, impact: last.Delay.Seconds(),
		Title:    fmt.Sprintf("replication is %s behind", duration(last.Delay)),
		Evidence: []string{fmt.Sprintf("%s at the last look, %s when it began", duration(last.Delay), duration(v.points[r.from].Replication.Delay))},
		Next:     "see whether this replica waits for I/O or CPU (above), whether the primary's write rate rose, and whether one large transaction is being applied",
	}
	if last.Bytes > 0 {
		f.Evidence = append(f.Evidence, bytes(int64(min(last.Bytes, math.MaxInt64)))+" not yet applied")
	}
	if last.Delay >= replicaCritical.time() {
		f.Severity = Critical
	}
	return []Finding{v.finding(r, f)}
}

// perSecond is d per second.
func perSecond(s *trend.Summary, d time.Duration) time.Duration { return span(s.Load(d)) }

// span converts seconds without overflow.
func span(seconds float64) time.Duration {
	switch ns := seconds * float64(time.Second); {
	case !(ns > 0):
		return 0
	case ns >= math.MaxInt64:
		return math.MaxInt64
	default:
		return time.Duration(ns)
	}
}

func times[T int | uint64](n T) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
