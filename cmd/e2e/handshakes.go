package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// handshakes watches how long connections to one server take.
type handshakes struct {
	stop context.CancelFunc

	mu   sync.Mutex
	slow time.Time // when the first slow one of the present spell began
	fast time.Time // when the first fast one after it began
}

// watchHandshakes makes one connection after the other, with a pause between them,
// until stop is called. A handshake is slow from limit on. PostgreSQL forks for
// each, which is work for an emulated node.
func watchHandshakes(ctx context.Context, address string, limit, pause time.Duration) *handshakes {
	ctx, stop := context.WithCancel(ctx)
	w := &handshakes{stop: stop}
	go func() {
		for ctx.Err() == nil {
			begun := time.Now()
			took, err := handshake(address)
			w.note(begun, err == nil && took < limit)
			time.Sleep(pause)
		}
	}()
	return w
}

func (w *handshakes) note(begun time.Time, fast bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !fast && (w.slow.IsZero() || !w.fast.IsZero()):
		w.slow, w.fast = begun, time.Time{}
	case fast && !w.slow.IsZero() && w.fast.IsZero():
		w.fast = begun
	}
}

// firstSlow waits for the first slow handshake and returns when it began.
func (w *handshakes) firstSlow(limit time.Duration) (time.Time, error) {
	return w.wait(limit, "no handshake was slow", func() time.Time { return w.slow })
}

// fastAgain waits for the first fast handshake after the slow ones.
func (w *handshakes) fastAgain(limit time.Duration) (time.Time, error) {
	return w.wait(limit, "handshakes stay slow", func() time.Time { return w.fast })
}

// slowAgain waits for the first slow handshake after a moment.
func (w *handshakes) slowAgain(since time.Time, limit time.Duration) (time.Time, error) {
	return w.wait(limit, "no handshake was slow", func() time.Time {
		if w.slow.After(since) {
			return w.slow
		}
		return time.Time{}
	})
}

func (w *handshakes) wait(limit time.Duration, otherwise string, at func() time.Time) (time.Time, error) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		t := at()
		w.mu.Unlock()
		if !t.IsZero() {
			return t, nil
		}
	}
	return time.Time{}, errors.New(otherwise)
}
