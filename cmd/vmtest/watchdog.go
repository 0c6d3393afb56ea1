package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// hangError says that the guest stopped giving signs of life.
type hangError struct {
	phase phase
	limit time.Duration
}

func (e *hangError) Error() string {
	switch e.phase {
	case booting:
		return fmt.Sprintf("the guest hung: it did not come up within %v; it was killed and not tried again", e.limit)
	case running:
		return fmt.Sprintf("the guest hung: no sign of life for %v; it was killed and not tried again", e.limit)
	default:
		return fmt.Sprintf("the guest hung: it did not power off within %v; it was killed and not tried again", e.limit)
	}
}

// phase is how far a guest has come.
type phase int

const (
	booting phase = iota
	running
	stopping
)

// watchdog notices a guest that is no longer alive. It is safe for concurrent use.
type watchdog struct {
	mu     sync.Mutex
	phase  phase
	limit  time.Duration
	last   time.Time
	paused bool
}

func newWatchdog(boot time.Duration) *watchdog {
	return &watchdog{phase: booting, limit: boot, last: time.Now()}
}

// alive notes a sign of life and how long the next one may take.
func (w *watchdog) alive(p phase, limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phase, w.limit, w.last = p, limit, time.Now()
}

// pause stops the clock until resume: while our own output is blocked we read
// nothing, and a guest must not be called dead because a reader is slow.
func (w *watchdog) pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = true
}

func (w *watchdog) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused, w.last = false, time.Now()
}

func (w *watchdog) check() *hangError {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused || time.Since(w.last) < w.limit {
		return nil
	}
	return &hangError{w.phase, w.limit}
}

// wait blocks until the guest hangs, and then returns a *hangError, or until
// ctx is done, and then returns nil.
func (w *watchdog) wait(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := w.check(); err != nil {
				return err
			}
		}
	}
}
