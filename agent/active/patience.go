package active

import (
	"fmt"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// late notes that the request in flight was not answered in time. It stays the
// one in flight until there were too many of these.
func (w *worker) late() time.Duration {
	kind := w.call.kind
	w.failed(kind, timeout, &Failure{Reason: ReasonTimeout, Detail: "no answer within 2s"})
	if kind == state.ProbeRead {
		w.down()
		w.tellHung()
	}
	return w.afterTimeout(kind)
}

// afterTimeout closes the connection after too many timeouts.
func (w *worker) afterTimeout(kind string) time.Duration {
	w.timeouts++
	if w.timeouts < maxTimeouts || w.call != nil && kind == state.ProbeRead && time.Since(w.began) < w.readPatience() {
		return w.target.Spec.Read
	}
	w.timeouts = 0
	if w.call != nil {
		if kind == state.ProbeWrite {
			w.hungWrites++
		} else {
			w.hungReads++
		}
	}
	w.drop()
	if kind == state.ProbeWrite {
		w.postponeWrite()
		return w.target.Spec.Read
	}
	return w.backoff()
}

// patience is how long a request is waited for, or no other is made, after so
// many connections were closed over one.
func patience(hung int) time.Duration {
	if hung < maxHung {
		return 0
	}
	return min(shortPatience<<min(hung-maxHung, 10), longPatience)
}

// readPatience is that with the login or read in flight. A login is given some in
// any case: a server that is slow to refuse would count one that we do not.
func (w *worker) readPatience() time.Duration {
	p := patience(w.hungReads)
	if !w.let.Load() {
		p = max(p, shortPatience)
	}
	return p
}

// tellHung notes that a connection without an answer is kept.
func (w *worker) tellHung() {
	if w.hungReads < maxHung {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active.Note = fmt.Sprintf("%d connections were closed for lack of an answer: the next is kept waiting for up to %v, so that no more pile up", w.hungReads, patience(w.hungReads))
}

// postponeWrite sets when the next heartbeat is tried after a failed one.
func (w *worker) postponeWrite() {
	p := w.target.Spec.WritePeriod
	w.writeAt = time.Now().Add(max(p, longer(p, w.writeFails), patience(w.hungWrites)))
	w.writeFails++
}

// backoff returns how long to wait after one more failure in a row.
func (w *worker) backoff() time.Duration {
	w.fails++
	return max(w.target.Spec.Read, longer(w.target.Spec.Read, w.fails))
}

// longer doubles a period n times, up to maxBackoff.
func longer(p time.Duration, n int) time.Duration {
	for range min(n, 10) {
		p *= 2
	}
	return min(p, maxBackoff)
}
