// Package calm keeps libraries from filling the log with the same sentence: while
// the API server is away, client-go says so several times a second.
package calm

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// limit is how many messages are told apart, so that the memory is bounded.
const limit = 256

// Handler passes on each message, whatever its attributes, at most once in a
// period, with how often it was left out before.
type Handler struct {
	slog.Handler
	period time.Duration
	said   *said
}

type said struct {
	mu  sync.Mutex
	all map[string]*count
}

type count struct {
	at   time.Time
	left int
}

// New makes a handler in front of h.
func New(h slog.Handler, period time.Duration) *Handler {
	return &Handler{Handler: h, period: period, said: &said{all: map[string]*count{}}}
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	left, pass := h.said.due(r.Level.String()+" "+r.Message, h.period, time.Now())
	if !pass {
		return nil
	}
	if left > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", left))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler; what was said is shared.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{Handler: h.Handler.WithAttrs(attrs), period: h.period, said: h.said}
}

// WithGroup implements slog.Handler; what was said is shared.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{Handler: h.Handler.WithGroup(name), period: h.period, said: h.said}
}

// due says whether a message may pass now, and how often it did not since it last
// did.
func (s *said) due(message string, period time.Duration, now time.Time) (left int, pass bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.all[message]
	if c != nil && now.Sub(c.at) < period {
		c.left++
		return 0, false
	}
	if c == nil {
		if len(s.all) >= limit {
			clear(s.all)
		}
		c = &count{}
		s.all[message] = c
	}
	left = c.left
	c.at, c.left = now, 0
	return left, true
}
