package record

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	// perSecond and burst limit the records of a node.
	perSecond = 2000
	burst     = 4000
	// waiting bounds the records that the sink has not taken yet.
	waiting = 4096
	// maxSessions bounds the connections whose user is known.
	maxSessions = 65536
	// maxName bounds a user's and a database's name, in bytes.
	maxName = 128
)

// connection names a connection of an instance.
type connection struct {
	id     string
	number uint64
}

// session is who a connection belongs to.
type session struct{ user, database string }

// Stats counts records since the start.
type Stats struct {
	// Made records went on, by kind.
	Made map[string]uint64
	// Limited were over the rate, SinkFull more than the sink took, and
	// SinkFailed could not be written.
	Limited, SinkFull, SinkFailed uint64
	// SubscriberLost is what subscribers missed.
	SubscriberLost uint64
	// Sessions are the connections whose user is known.
	Sessions int
}

// Recorder makes records. Its methods are safe for concurrent use and, but for
// Run, do not block.
type Recorder struct {
	node  string
	sink  io.Writer // nil for none
	queue chan Record
	limit *rate.Limiter
	now   func() time.Time

	mu          sync.Mutex
	origins     map[string]Origin
	sessions    map[connection]session
	subscribers map[*Subscription]bool
	stats       Stats
}

// Option changes a default of New.
type Option func(*Recorder)

// WithClock replaces time.Now, for tests.
func WithClock(now func() time.Time) Option { return func(r *Recorder) { r.now = now } }

// New returns a recorder of a node's records. With a nil sink they go to
// subscribers alone.
func New(node string, sink io.Writer, opts ...Option) *Recorder {
	r := &Recorder{
		node: node, sink: sink, queue: make(chan Record, waiting), limit: rate.NewLimiter(perSecond, burst), now: time.Now,
		origins: map[string]Origin{}, sessions: map[connection]session{}, subscribers: map[*Subscription]bool{},
		stats: Stats{Made: map[string]uint64{}},
	}
	for _, o := range opts {
		o(r)
	}
	return r
}

// Watch says which instances there are, by ID. Sessions of others are forgotten.
func (r *Recorder) Watch(origins map[string]Origin) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.origins = origins
	for c := range r.sessions {
		if _, ok := origins[c.id]; !ok {
			delete(r.sessions, c)
		}
	}
}

// Statement records a statement that is slow, failed or audited.
func (r *Recorder) Statement(s *Statement) {
	kind := kindOf(s)
	if kind == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	who := r.sessions[connection{s.ID, s.Connection}]
	r.emit(s.ID, Record{
		Time: s.Ended, Kind: kind, User: who.user, Database: who.database, Client: clientOf(s.Client),
		Digest: s.Digest, Statement: s.Text, Operation: s.Operation, Code: s.Code,
		DurationSeconds: s.Duration.Seconds(), FirstByteSeconds: s.FirstByte.Seconds(), BlockedSeconds: s.Blocked.Seconds(),
		Rows: s.Rows, RequestBytes: s.RequestBytes, ResponseBytes: s.ResponseBytes,
	})
}

// Session notes who a connection belongs to, and records it where the instance's
// sessions are audited.
func (r *Recorder) Session(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.origins[s.ID]
	if !ok {
		return
	}
	c := connection{s.ID, s.Connection}
	who := session{short(s.User), short(s.Database)}
	switch s.Kind {
	case KindLogin:
		if _, known := r.sessions[c]; !known && len(r.sessions) >= maxSessions {
			r.forgetOne()
		}
		r.sessions[c] = who
	case KindLogout:
		if who == (session{}) {
			who = r.sessions[c]
		}
		delete(r.sessions, c)
	}
	if o.Sessions {
		r.emit(s.ID, Record{Time: s.At, Kind: s.Kind, User: who.user, Database: who.database, Client: clientOf(s.Client), Code: s.Code})
	}
}

// forgetOne makes room for a session; which one goes is as good as random.
func (r *Recorder) forgetOne() {
	for c := range r.sessions {
		delete(r.sessions, c)
		return
	}
}

// emit hands a record on. The caller holds mu.
func (r *Recorder) emit(id string, rec Record) {
	o, ok := r.origins[id]
	if !ok || r.sink == nil && len(r.subscribers) == 0 {
		return
	}
	if !r.limit.AllowN(r.now(), 1) {
		r.stats.Limited++
		return
	}
	rec.Node, rec.Namespace, rec.Pod, rec.Instance, rec.Engine = r.node, o.Namespace, o.Pod, id, o.Engine
	r.stats.Made[rec.Kind]++
	for s := range r.subscribers {
		r.stats.SubscriberLost += s.offer(rec)
	}
	if r.sink == nil {
		return
	}
	select {
	case r.queue <- rec:
	default:
		r.stats.SinkFull++
	}
}

// Run writes to the sink until ctx ends, and then what still waits. It blocks.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case rec := <-r.queue:
			r.write(rec)
		case <-ctx.Done():
			for {
				select {
				case rec := <-r.queue:
					r.write(rec)
				default:
					return nil
				}
			}
		}
	}
}

// write writes one line. A sink that fails is counted and tried again with the
// next: the disk may have room by then.
func (r *Recorder) write(rec Record) {
	line, err := json.Marshal(rec)
	if err == nil {
		_, err = r.sink.Write(append(line, '\n'))
	}
	if err != nil {
		r.mu.Lock()
		r.stats.SinkFailed++
		r.mu.Unlock()
	}
}

// Stats returns what was counted so far.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Sessions = len(r.sessions)
	s.Made = make(map[string]uint64, len(r.stats.Made))
	for k, n := range r.stats.Made {
		s.Made[k] = n
	}
	return s
}

func clientOf(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// short makes a name that a client chose fit for JSON and gRPC, which take nothing
// but UTF-8, and bounds it. Names in other encodings stay apart.
func short(name string) string {
	var b strings.Builder
	for len(name) > 0 {
		r, n := utf8.DecodeRuneInString(name)
		piece := name[:n]
		if r == utf8.RuneError && n == 1 {
			piece = fmt.Sprintf(`\x%02x`, name[0])
		}
		if b.Len()+len(piece) > maxName {
			break
		}
		b.WriteString(piece)
		name = name[n:]
	}
	return b.String()
}
