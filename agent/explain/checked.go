package explain

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
)

// checked are the window's figures, those that were measured.
func (v *view) checked() []string {
	s := &v.window
	out := []string{}
	add := func(ok bool, format string, args ...any) {
		if ok {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(s.Statements, "statements: %s, mean %s, p99 up to %s, %s sessions at work, errors %s", rate(s.Rate(s.Total.Calls)),
		duration(s.Total.Mean()), duration(s.P99), digits(s.Load(s.Total.Busy)), percent(errorRatio(s)))
	add(s.Statements, "sessions: up to %d connections, %d in flight (oldest %s), %d transactions open (oldest %s)", s.Connections, s.InFlight,
		duration(s.OldestInFlight), s.OpenTransactions, duration(s.OldestTransaction))
	limit := "no limit"
	if m := s.Limits.CPUMillicores; m > 0 {
		limit = "limit " + cores(float64(m)/1000)
	}
	add(s.CPU.Known, "CPU: %s used, %s, %s of what it wants withheld", cores(s.Load(s.CPU.Total)), limit, percent(throttled(s)))
	limit = "no limit"
	if s.Limits.MemoryBytes > 0 {
		limit = fmt.Sprintf("%s of the limit of %s", percent(memoryUse(s)), bytes(s.Limits.MemoryBytes))
	}
	add(s.Limits.Known, "memory: %s in use, %s, %d processes killed", bytes(s.Limits.MemoryInUse), limit, s.OOMKills)
	add(s.Waits[trend.Client].Known, "clients: %s of statement time blocked in send", percent(blocked(s)))
	add(s.Waits[trend.RunQueue].Known, "run queue: %s threads waiting for a CPU", digits(s.Load(s.Waits[trend.RunQueue].Total)))
	add(s.Waits[trend.IO].Known, "I/O: stalled %s of the time", percent(stalled(s, trend.IO)))
	add(s.Waits[trend.Memory].Known, "memory stalls: %s of the time", percent(stalled(s, trend.Memory)))
	add(s.Fsync.Known, "fsync: %s, mean %s, p99 up to %s", rate(s.Rate(s.Fsync.Count)), duration(s.Fsync.Mean()), duration(s.Fsync.P99))
	add(s.Block.Known, "block I/O: %s, mean %s, p99 up to %s", rate(s.Rate(s.Block.Count)), duration(s.Block.Mean()), duration(s.Block.P99))
	add(s.Limits.LocalKnown, "NUMA: %s of its memory is local", percent(s.Limits.LocalShare))
	add(s.Replication.Known, "replication: %s behind", duration(s.Replication.Delay))
	add(s.Statements && s.SocketBytes > 0, "coverage: %s of the bytes of its connections were seen", percent(min(1, ratio(float64(s.SeenBytes), float64(s.SocketBytes)))))
	return out
}

// notMeasured says what the page knows nothing about, and why.
func (v *view) notMeasured() []string {
	s := &v.window
	var out []string
	add := func(missing bool, what string) {
		if missing {
			out = append(out, what)
		}
	}
	if age := v.now.Sub(v.points[len(v.points)-1].End()); age > time.Minute {
		add(true, fmt.Sprintf("the last %s: the instance was not seen in that time", duration(age)))
	}
	add(!s.Statements, "statements: they are not timed here or could not be read (mooringctl status says why)")
	add(s.Statements && !s.Waits[trend.Client].Known, "digests, transactions and blocked clients: the agent's statement probe does not tell them")
	if n := v.share(state.DigestTLS); n > 0 {
		add(true, fmt.Sprintf("the texts of %s of statements: their connections are encrypted", percent(n)))
	}
	add(!s.Limits.Known, "CPU and memory: the instance's cgroup could not be read or is not its own")
	add(!s.Waits[trend.RunQueue].Known, "waiting for a CPU: run-queue delay is not measured here")
	add(!s.Waits[trend.IO].Known, "I/O stalls: no io.pressure here (PSI: CONFIG_PSI and cgroup version 2)")
	add(!s.Waits[trend.Memory].Known, "memory stalls: no memory.pressure here (PSI: CONFIG_PSI and cgroup version 2)")
	add(!s.Fsync.Known && !s.Block.Known, "fsync and block I/O latency: not measured here")
	add(!s.Limits.LocalKnown, "remote NUMA memory: the instance is not placed on one node")
	add(!s.Replication.Known, "replication: no probe asks this instance")
	add(s.Statements && s.SocketBytes == 0, "coverage: the sockets' own byte counters are not read here")
	if !v.meanNormal.known {
		add(true, fmt.Sprintf("what is normal: the history holds %d of %s points needed", len(v.points), digits(math.Ceil(normalPoints.value()))))
	}
	return out
}

// Verdict is the page in one line.
func (p *Page) Verdict() string {
	window := duration(p.To.Sub(p.From))
	if len(p.Findings) == 0 {
		if len(p.Checked) == 0 {
			return "nothing could be looked at"
		}
		return "nothing wrong was found in the last " + window
	}
	counts := map[Severity]int{}
	for _, f := range p.Findings {
		counts[f.Severity]++
	}
	var words []string
	for s := Critical; s >= Notice; s-- {
		if n := counts[s]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(words, ", ") + " in the last " + window
}
