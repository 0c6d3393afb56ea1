package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
)

// blocked is the share of statement time that clients did not take replies.
func blocked(p *trend.Summary) float64 {
	if !p.Waits[trend.Client].Known {
		return 0
	}
	return min(1, ratio(p.Waits[trend.Client].Total.Seconds(), p.Total.Busy.Seconds()))
}

func isBlocked(p *trend.Summary) bool {
	return blocked(p) >= clientShare.value() && p.Load(p.Waits[trend.Client].Total) >= clientLoad.value()
}

func (v *view) client() []Finding {
	r, ok := v.episode(lasting.time(), isBlocked)
	if !ok {
		return nil
	}
	s := v.sum(r)
	wait := s.Load(s.Waits[trend.Client].Total)
	return []Finding{v.finding(r, Finding{
		Kind: KindClient, Severity: Warning, impact: wait,
		Title: fmt.Sprintf("blocked on clients or the network: %s of statement time is spent sending", percent(blocked(s))),
		Evidence: []string{
			fmt.Sprintf("%s sessions blocked in send of %s at work on average, over %s", digits(wait), digits(s.Load(s.Total.Busy)), duration(s.Length)),
			fmt.Sprintf("%s rows a call, %s", digits(rowsPerCall(s.Total)), rate(s.Rate(s.Total.Calls))),
		},
		Next: "the server is done and waits: have the client read faster or ask for fewer rows (LIMIT, a cursor), then look at the path for loss and bandwidth",
	})}
}

func rowsPerCall(c trend.Counts) float64 { return ratio(float64(c.Rows), float64(c.Calls)) }

// lockShaped is a wait that no resource explains: statements take far longer or
// stand still, and neither CPU, I/O, memory nor clients are the reason.
func (v *view) lockShaped(p *trend.Summary) bool {
	if isThrottled(p) || isQueued(p) || isMemoryStalled(p) || isBlocked(p) || v.isIOSlow(p) || float64(p.InFlight) < lockInFlight.value() {
		return false
	}
	// Without the CPU's figure more work cannot be told from a wait.
	if !p.CPU.Known || !v.cpuMedian.known || p.Load(p.CPU.Total) > lockCPU.value()*v.cpuMedian.value+queueLoad.value() {
		return false
	}
	aged := max(p.OldestInFlight, p.OldestTransaction) >= lockAge.time()
	more := v.inFlightNormal.known && float64(p.InFlight) >= 2*max(1, v.inFlightNormal.value)
	slower := v.meanNormal.known && p.Total.Mean().Seconds() >= max(lockFactor.value()*v.meanNormal.value, v.meanNormal.value+slowExcess.value())
	stuck := more && p.OldestInFlight >= lockAge.time()
	return stuck || slower && (aged || more)
}

func (v *view) locks() []Finding {
	r, ok := v.episode(lasting.time(), v.lockShaped)
	if !ok {
		return nil
	}
	s := v.sum(r)
	f := Finding{
		Kind: KindLock, Severity: Critical, impact: s.Load(s.Total.Busy) + float64(s.InFlight),
		Title: "statements wait for one another: it looks like a lock",
		Evidence: []string{
			fmt.Sprintf("mean %s, %s over %s", duration(s.Total.Mean()), rate(s.Rate(s.Total.Calls)), duration(s.Length)),
			fmt.Sprintf("up to %d in flight, the oldest for %s", s.InFlight, duration(s.OldestInFlight)),
			fmt.Sprintf("CPU %s, at its median of %s or below; no throttling, slow I/O or blocked client", cores(s.Load(s.CPU.Total)), cores(v.cpuMedian.value)),
		},
		Next: "ask the database who blocks whom (" + lockQuery(v.h.Engine) + ") and end or commit the holder",
	}
	if v.meanNormal.known {
		f.Evidence[0] += ", normally " + duration(span(v.meanNormal.value))
	}
	if !s.Waits[trend.IO].Known && !s.Fsync.Known {
		f.Evidence[2] = fmt.Sprintf("CPU %s, at its median of %s or below; I/O waits are not measured here, so slow I/O may look the same", cores(s.Load(s.CPU.Total)), cores(v.cpuMedian.value))
		f.Severity = Warning
	}
	if s.OldestTransaction >= lockAge.time() {
		f.Evidence = append(f.Evidence, oldest(s))
		f.Title += " held by a transaction open for " + duration(s.OldestTransaction)
	}
	return []Finding{v.finding(r, f)}
}

func oldest(s *trend.Summary) string {
	return fmt.Sprintf("up to %d transactions open, the oldest for %s", s.OpenTransactions, duration(s.OldestTransaction))
}

// lockQuery is where an engine tells of its locks. One that only speaks another's
// protocol does not have its views.
func lockQuery(engine string) string {
	switch state.Engine(engine) {
	case state.PostgreSQL:
		return "pg_locks, pg_blocking_pids(pid)"
	case state.OpenGauss:
		return "pg_locks, pg_stat_activity"
	case state.MySQL, state.Percona:
		return "sys.innodb_lock_waits"
	case state.MariaDB:
		return "information_schema.innodb_lock_waits"
	case state.TiDB:
		return "information_schema.data_lock_waits"
	case state.MongoDB:
		return "db.currentOp({waitingForLock: true})"
	case state.Redis, state.Valkey:
		return "SLOWLOG GET, CLIENT LIST: one long command holds all others up"
	}
	return "its view of locks"
}

// transactions tells of an old transaction that no lock finding has told of.
func (v *view) transactions(told []Finding) []Finding {
	r, ok := v.episode(0, func(p *trend.Summary) bool { return p.OldestTransaction >= oldTransaction.time() })
	if !ok || slices.ContainsFunc(told, func(f Finding) bool { return f.Kind == KindLock && f.run.overlaps(r) }) {
		return nil
	}
	s := v.sum(r)
	f := v.finding(r, Finding{
		Kind: KindTransaction, Severity: Warning, impact: s.OldestTransaction.Seconds(),
		Title:    "a transaction is open for " + duration(s.OldestTransaction),
		Evidence: []string{oldest(s) + ", seen within " + duration(s.Length)},
		Next:     "find its client (pg_stat_activity, information_schema.innodb_trx) and have it commit: what it began to see cannot be cleared away",
	})
	return []Finding{f}
}

func errorRatio(p *trend.Summary) float64 {
	return ratio(float64(p.Total.Errors), float64(p.Total.Calls))
}

func (v *view) errors() []Finding {
	r, ok := v.episode(lasting.time(), func(p *trend.Summary) bool {
		return errorRatio(p) >= errorShare.value()
	})
	if !ok {
		return nil
	}
	s := v.sum(r)
	share := errorRatio(s)
	f := Finding{
		Kind: KindErrors, Severity: Warning, impact: s.Rate(s.Total.Errors),
		Title:    fmt.Sprintf("%s of statements end in an error", percent(share)),
		Evidence: []string{fmt.Sprintf("%d errors of %d statements over %s", s.Total.Errors, s.Total.Calls, duration(s.Length))},
		Next:     "look the codes up in the database's manual and its log; the application that gets them is on the other end of the newest connections",
	}
	if v.errorNormal.known {
		f.Evidence[0] += ", normally " + percent(v.errorNormal.value)
		if share < errorFactor.value()*v.errorNormal.value {
			f.Severity = Notice
			f.Title += ", as it usually is"
		}
	}
	if share >= errorCritical.value() && f.Severity == Warning {
		f.Severity = Critical
	}
	var codes []string
	for _, c := range s.Codes {
		codes = append(codes, fmt.Sprintf("%s %d times", c.Code, c.Count))
	}
	if len(codes) > 0 {
		f.Evidence = append(f.Evidence, "by code: "+strings.Join(codes, ", "))
		f.Title += ", most of them " + s.Codes[0].Code
	}
	return []Finding{v.finding(r, f)}
}

// share is the part of the window's calls that a digest has.
func (v *view) share(id string) float64 {
	for _, d := range v.window.Digests {
		if d.ID == id {
			return ratio(float64(d.Calls), float64(v.window.Total.Calls))
		}
	}
	return 0
}

func (v *view) coverage() []Finding {
	s := &v.window
	var evidence []string
	if n := v.share(state.DigestUnsampled); n >= unseenShare.value() {
		evidence = append(evidence, fmt.Sprintf("%s of statements are counted without their text (digest unsampled), over %s", percent(n), duration(s.Length)))
	}
	if s.Lost.Uncounted > 0 {
		evidence = append(evidence, fmt.Sprintf("statements or whole connections went uncounted %s on this node, over %s; mooringctl status -o json has the reasons", times(s.Lost.Uncounted), duration(s.Length)))
	}
	if seen := ratio(float64(s.SeenBytes), float64(s.SocketBytes)); s.SocketBytes > 0 && 1-seen >= unseenShare.value() {
		evidence = append(evidence, fmt.Sprintf("the probe saw %s of the bytes its connections carried, over %s", percent(seen), duration(s.Length)))
	}
	if len(evidence) == 0 {
		return nil
	}
	// By itself this says nothing of this instance: it may be another's, whose
	// statements were counted all the same.
	if s.Lost.Partial > 0 {
		evidence = append(evidence, fmt.Sprintf("statements were counted without their text, record or error code %s on this node", times(s.Lost.Partial)))
	}
	f := v.finding(run{v.first, len(v.points) - 1}, Finding{
		Kind: KindCoverage, Severity: Notice, impact: float64(len(evidence)),
		Title: "this page did not see everything", Evidence: evidence,
		Next: "take figures of digests as a lower bound; raise the agent's budget or lower the number of texts if it stays so",
	})
	// It was looked for in the window alone.
	f.SinceAtLeast = true
	return []Finding{f}
}
