package record

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"
)

const (
	// perSecond and burst limit the records of an instance and class.
	perSecond = 2000
	burst     = 4000
	// waiting bounds the records that the sink has not taken yet; of those that
	// there may be plenty of, only waitingPlenty.
	waiting       = 4096
	waitingPlenty = waiting / 4 * 3
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

// session is who a connection belongs to, and where it comes from: client is
// invalid for a local socket.
type session struct {
	user, database string
	client         netip.AddrPort
}

// watched is an instance.
type watched struct {
	Origin
	limits  [classes]*rate.Limiter
	limited uint64 // over the limits
}

// Stats counts records since the start.
type Stats struct {
	// Made records went on, by kind; every kind is there.
	Made map[string]uint64
	// Limited were over the rate of their instance, SinkFull more than the sink
	// took, and SinkFailed could not be written.
	Limited, SinkFull, SinkFailed uint64
	// LimitedOf is Limited of each instance, by ID, since it was watched.
	LimitedOf map[string]uint64
	// SinkErr is why the newest record could not be written; nil if it could. It
	// tells nothing of the record.
	SinkErr error
	// SubscriberLost is what did not fit into the buffers of subscribers.
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
	now   func() time.Time
	// torn says that the last line in the sink has no end yet. It is Run's.
	torn bool

	mu          sync.Mutex
	watched     map[string]*watched
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
		node: node, sink: sink, queue: make(chan Record, waiting), now: time.Now,
		watched: map[string]*watched{}, sessions: map[connection]session{}, subscribers: map[*Subscription]bool{},
		stats: Stats{Made: map[string]uint64{}},
	}
	for _, k := range Kinds() {
		r.stats.Made[k] = 0
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
	maps.DeleteFunc(r.watched, func(id string, _ *watched) bool { return !has(origins, id) })
	maps.DeleteFunc(r.sessions, func(c connection, _ session) bool { return !has(origins, c.id) })
	for id, o := range origins {
		w := r.watched[id]
		if w == nil {
			w = new(watched)
			for i := range w.limits {
				w.limits[i] = rate.NewLimiter(perSecond, burst)
			}
			r.watched[id] = w
		}
		w.Origin = o
	}
}

func has(origins map[string]Origin, id string) bool {
	_, ok := origins[id]
	return ok
}

// SessionsLost says that logins or logouts were not told of. Connections without
// an address, which nothing but their number tells apart, may be somebody else's
// since: their users are forgotten.
func (r *Recorder) SessionsLost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.sessions, func(_ connection, s session) bool { return !s.client.IsValid() })
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
	if who.client != s.Client {
		who = session{} // of an earlier connection with that number
	}
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
	w, ok := r.watched[s.ID]
	if !ok {
		return
	}
	c := connection{s.ID, s.Connection}
	who := session{short(s.User), short(s.Database), s.Client}
	switch s.Kind {
	case KindLogin:
		if _, known := r.sessions[c]; !known && len(r.sessions) >= maxSessions {
			r.forgetOne()
		}
		r.sessions[c] = who
	case KindLogout:
		// That of a process that ended is told without an address.
		if known, ok := r.sessions[c]; ok && (!s.Client.IsValid() || s.Client == known.client) {
			who = known
		}
		delete(r.sessions, c)
	}
	if w.Sessions {
		r.emit(s.ID, Record{Time: s.At, Kind: s.Kind, User: who.user, Database: who.database, Client: clientOf(who.client), Code: s.Code})
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
	w, ok := r.watched[id]
	if !ok || r.sink == nil && len(r.subscribers) == 0 {
		return
	}
	rec.Node, rec.Namespace, rec.Pod, rec.Instance, rec.Engine = r.node, w.Namespace, w.Pod, id, w.Engine
	class := classOf(rec.Kind)
	if !w.limits[class].AllowN(r.now(), 1) {
		r.stats.Limited++
		w.limited++
		for s := range r.subscribers {
			s.miss(&rec)
		}
		return
	}
	r.stats.Made[rec.Kind]++
	for s := range r.subscribers {
		r.stats.SubscriberLost += s.offer(rec)
	}
	if r.sink == nil {
		return
	}
	if class == plenty && len(r.queue) >= waitingPlenty {
		r.stats.SinkFull++
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

// write writes one record. A sink that fails is counted and tried again with the
// next: the disk may have room by then.
func (r *Recorder) write(rec Record) {
	line, err := json.Marshal(rec)
	if err == nil {
		err = r.put(append(line, '\n'))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.SinkErr = err
	if err != nil {
		r.stats.SinkFailed++
	}
}

// put writes one line, and before it the end of one that was written in part.
func (r *Recorder) put(line []byte) error {
	if r.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := r.sink.Write(line)
	if n > 0 {
		r.torn = line[min(n, len(line))-1] != '\n'
	}
	return err
}

// Stats returns what was counted so far.
func (r *Recorder) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Sessions = len(r.sessions)
	s.Made = maps.Clone(r.stats.Made)
	s.LimitedOf = make(map[string]uint64, len(r.watched))
	for id, w := range r.watched {
		s.LimitedOf[id] = w.limited
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
