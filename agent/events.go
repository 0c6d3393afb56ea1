package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// How long reading events rests after it failed: longer each time it fails soon
// again.
const (
	firstRest   = time.Second
	longestRest = 5 * time.Minute
)

// heard is how reading the kernel's events fares. It is safe for concurrent use.
type heard struct {
	log *slog.Logger

	mu sync.Mutex
	// err is why nothing is read; nil while it is.
	err error
	// bugs counts events that met a bug, told those that tell has told of.
	bugs, told uint64
}

// caught is deferred where bytes that a client chose are read: one that finds a bug
// there must not end the agent, and all faults and pins that it holds. The first
// is logged, without the bytes.
func (h *heard) caught() {
	v := recover()
	if v == nil {
		return
	}
	h.mu.Lock()
	h.bugs++
	first := h.bugs == 1
	h.mu.Unlock()
	if first {
		h.log.Error("an event of statements met a bug; those that follow are only counted", "component", "statements",
			"err", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
}

// note says whether events are being read.
func (h *heard) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// tell returns how many events met a bug, and what is wrong now: that nothing is
// read, or that more events met one since tell was last called.
func (h *heard) tell() (bugs uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	more := h.bugs - h.told
	h.told = h.bugs
	switch {
	case h.err != nil:
		return h.bugs, h.err
	case more > 0:
		return h.bugs, fmt.Errorf("%d events met a bug of the agent; its log has the first", more)
	}
	return h.bugs, nil
}

// readEvents hands on the kernel's events until ctx ends. Without it statements
// are counted all the same, their digests as "unsampled", and nothing is recorded.
func (a *Agent) readEvents(ctx context.Context) {
	if a.statements == nil {
		return
	}
	a.heard.keepReading(ctx, func(ctx context.Context) error {
		return a.statements.ReadEvents(ctx, events{a.digests, a.records, a.heard})
	})
}

// keepReading calls read, which blocks, until ctx ends, and again after a rest
// where it failed.
func (h *heard) keepReading(ctx context.Context, read func(context.Context) error) {
	for rest := firstRest; ; rest = min(2*rest, longestRest) {
		began := time.Now()
		h.note(nil)
		err := unpanicked(ctx, read)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longestRest {
			rest = firstRest
		}
		h.note(err)
		h.log.Error("events of statements are not read", "component", "statements", "err", err, "duration", rest)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

// unpanicked turns a panic of read, and an end without reason, into an error.
func unpanicked(ctx context.Context, read func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if err := read(ctx); err != nil {
		return err
	}
	return errors.New("the reader ended")
}
