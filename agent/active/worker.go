package active

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// worker probes one instance. Its goroutine alone uses what mu does not guard.
type worker struct {
	prober *Prober
	cancel context.CancelFunc
	done   chan struct{}

	// target is the one that is probed now; session is logged in to it, over
	// conn. Both are nil between logins. call is the request in flight.
	target  Target
	conn    *guarded
	session session
	call    *call
	// began is when the request in flight was sent, secret the fingerprint of what
	// was read of the secret last.
	began  time.Time
	secret string
	// let says that the newest login was answered and we were let in.
	let *atomic.Bool
	// timeouts and fails are those in a row.
	timeouts, fails int
	// hungReads and hungWrites are the connections to this process that were
	// closed over a request without an answer, since the last that had one. The
	// server may still be at them: a thread that waits does not see its client go.
	hungReads, hungWrites int
	// writeAt is when the next heartbeat is due, writeFails those that failed in
	// a row.
	writeAt    time.Time
	writeFails int

	mu       sync.Mutex
	wanted   Target
	active   state.Active
	failures map[string]map[string]uint64
}

// retarget has the next turn go to t.
func (w *worker) retarget(t Target) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = t
}

// result returns a copy of what is known.
func (w *worker) result() *state.Active {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.active
	a.Probes = slices.Clone(a.Probes)
	for i := range a.Probes {
		a.Probes[i].Failures = maps.Clone(w.failures[a.Probes[i].Kind])
	}
	return &a
}

// run takes turns until ctx ends. The first comes at a random moment of the
// first period, so that the instances of a node do not come all at once.
func (w *worker) run(ctx context.Context) {
	defer close(w.done)
	defer w.drop()
	wait := time.Duration(w.prober.jitter() * float64(w.target.Spec.Read))
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		wait = w.turn(ctx)
		t.Reset(time.Duration(float64(wait) * (0.9 + 0.2*w.prober.jitter())))
	}
}

// turn is one period: it looks after the request in flight, or makes one. It
// returns how long to wait for the next.
func (w *worker) turn(ctx context.Context) time.Duration {
	w.mu.Lock()
	next := w.wanted
	w.mu.Unlock()
	if changed(w.target, next) {
		w.drop()
		w.fails, w.timeouts = 0, 0
	}
	if w.target.PID != next.PID {
		w.hungReads, w.hungWrites = 0, 0
	}
	w.target = next
	if w.call != nil {
		return w.await(ctx)
	}
	if w.session == nil {
		return w.login(ctx)
	}
	s := w.session
	w.begin(state.ProbeRead, func() outcome {
		r, err := s.Read()
		return outcome{reading: r, session: s, err: err}
	})
	return w.await(ctx)
}

// changed says whether the connection to one target is of no use for the other.
func changed(a, b Target) bool {
	return a.PID != b.PID || a.Engine != b.Engine || a.Namespace != b.Namespace || a.Spec != b.Spec
}

// login connects, logs in and reads for the first time.
func (w *worker) login(ctx context.Context) time.Duration {
	e := w.prober.engines[w.target.Engine]
	greeted := e.greet != nil
	if greeted {
		if f := w.connect(ctx, e); f != nil {
			return w.backoff()
		}
	}
	l, f := w.credentials(ctx)
	if f != nil {
		w.unable(f, greeted)
		return max(w.backoff(), authPause)
	}
	if wait, stopped := w.refused(); stopped || wait > 0 {
		l.wipe()
		w.unable(nil, greeted)
		return authPause
	}
	conn, err := w.open(ctx)
	if err != nil {
		l.wipe()
		w.failed(state.ProbeRead, 0, asFailure(err))
		w.down()
		return w.backoff()
	}
	w.conn = conn
	t, let := w.target, &atomic.Bool{}
	w.let = let
	w.begin(state.ProbeRead, func() outcome {
		defer l.wipe()
		s, err := e.login(conn, t, l)
		if err != nil {
			return outcome{err: err}
		}
		let.Store(true)
		l.wipe()
		r, err := s.Read()
		return outcome{reading: r, session: s, err: err}
	})
	return w.await(ctx)
}

// open dials within the time of a request.
func (w *worker) open(ctx context.Context) (*guarded, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := w.prober.dial(ctx, w.target)
	if err != nil {
		return nil, err
	}
	return guard(conn), nil
}

// connect is the probe without login.
func (w *worker) connect(ctx context.Context, e engine) *Failure {
	began := time.Now()
	err := func() error {
		conn, err := w.open(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		if err := conn.SetDeadline(began.Add(timeout)); err != nil {
			return err
		}
		return e.greet(conn, w.target)
	}()
	if err != nil && ctx.Err() == nil {
		f := asFailure(err)
		w.failed(state.ProbeConnect, time.Since(began), f)
		w.down()
		return f
	}
	w.succeeded(state.ProbeConnect, time.Since(began))
	return nil
}

// credentials reads the secret.
func (w *worker) credentials(ctx context.Context) (*Login, *Failure) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	l, err := w.prober.secrets.Login(ctx, w.target)
	if err != nil {
		return nil, &Failure{Reason: ReasonSecret, Detail: err.Error()}
	}
	w.secret = w.prober.refusals.fingerprint(l)
	return l, nil
}

// begin puts a request in flight.
func (w *worker) begin(kind string, f func() outcome) {
	w.conn.allow(maxReply)
	w.began = time.Now()
	w.call = start(kind, f)
}

// await gives the request in flight its time.
func (w *worker) await(ctx context.Context) time.Duration {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-w.call.done:
	case <-ctx.Done():
		return 0
	case <-t.C:
		return w.late()
	}
	c := w.call
	w.call = nil
	if c.kind == state.ProbeWrite {
		w.wrote(c)
		return w.target.Spec.Read
	}
	if c.out.session != nil {
		w.session = c.out.session
		w.prober.refusals.accept(w.target.ID)
	}
	if c.out.err != nil {
		return w.readFailed(c)
	}
	w.answered(c)
	if !w.writeDue() {
		return w.target.Spec.Read
	}
	s, t2 := w.session, w.target
	w.begin(state.ProbeWrite, func() outcome { return outcome{session: s, err: s.Write(t2.ID)} })
	return w.await(ctx)
}

// readFailed notes a failed login or read.
func (w *worker) readFailed(c *call) time.Duration {
	f := asFailure(c.out.err)
	w.failed(c.kind, c.took, f)
	login := w.session == nil
	if !f.Answered || login || f.Reason == ReasonAuth {
		w.drop()
	}
	switch f.Reason {
	case ReasonAuth:
		// A session that has lost its rights says nothing of the secret: the next
		// login does.
		if login {
			w.prober.refusals.refuse(w.target.ID, w.secret, f.Locked)
		}
		w.timeouts = 0
		w.unable(nil, w.prober.engines[w.target.Engine].greet != nil)
		return max(w.backoff(), authPause)
	case ReasonDenied, ReasonSchema:
		w.prober.refusals.accept(w.target.ID)
		w.mu.Lock()
		w.forget()
		up := true
		w.active.Up = &up
		w.mu.Unlock()
		return w.backoff()
	case ReasonTimeout:
		w.down()
		return w.afterTimeout(c.kind)
	}
	w.down()
	return w.backoff()
}

// answered notes what a read has found.
func (w *worker) answered(c *call) {
	w.fails, w.timeouts, w.hungReads = 0, 0, 0
	w.succeeded(c.kind, c.took)
	r := c.out.reading
	if r.partial != nil {
		w.failed(c.kind, c.took, r.partial)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	up := true
	a := &w.active
	a.Up, a.Stopped, a.Note = &up, "", r.note
	if w.hungWrites >= maxHung {
		hung := fmt.Sprintf("%d heartbeats in a row had no answer: the next waits %v", w.hungWrites, patience(w.hungWrites))
		a.Note = strings.TrimPrefix(a.Note+"; "+hung, "; ")
	}
	a.Role, a.ReadOnly, a.Lag, a.LagBytes = r.role, r.readOnly, r.lag, r.lagBytes
	a.HeartbeatAge, a.HeartbeatPeriod = r.heartbeatAge, 0
	if r.heartbeatAge != nil {
		a.HeartbeatPeriod = w.target.Spec.WritePeriod
	}
}

func (w *worker) writeDue() bool {
	return w.target.Spec.Write == state.WriteReplicated && w.prober.engines[w.target.Engine].writes &&
		w.active.Role == state.RolePrimary && !time.Now().Before(w.writeAt)
}

// wrote notes how a heartbeat fared.
func (w *worker) wrote(c *call) {
	if c.out.err == nil {
		w.timeouts, w.writeFails, w.hungWrites = 0, 0, 0
		w.writeAt = time.Now().Add(w.target.Spec.WritePeriod)
		w.succeeded(c.kind, c.took)
		return
	}
	f := asFailure(c.out.err)
	w.failed(c.kind, c.took, f)
	if !f.Answered {
		w.drop()
	}
	w.postponeWrite()
}

// drop ends the connection and waits for the request on it to be over. A
// session with nothing in flight says goodbye.
func (w *worker) drop() {
	if w.conn == nil {
		return
	}
	if w.session != nil && w.call == nil {
		w.conn.goodbye(w.session.Close)
	}
	// Where that fails the connection is closed already.
	_ = w.conn.Close()
	if w.call != nil {
		<-w.call.done
		w.missed(w.call)
	}
	w.conn, w.session, w.call = nil, nil, nil
}

// down notes that the server does not answer.
func (w *worker) down() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget()
	up := false
	w.active.Up = &up
}

// forget clears what only an answer tells. It is called with mu held.
func (w *worker) forget() {
	a := &w.active
	a.Up, a.Role, a.ReadOnly, a.Lag, a.LagBytes, a.HeartbeatAge, a.HeartbeatPeriod, a.Note = nil, "", nil, nil, nil, nil, 0, ""
}

func (w *worker) succeeded(kind string, took time.Duration) { w.note(kind, took, nil) }

func (w *worker) failed(kind string, took time.Duration, f *Failure) { w.note(kind, took, f) }

// note keeps how a probe fared.
func (w *worker) note(kind string, took time.Duration, f *Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.active.Probes, func(p state.ActiveProbe) bool { return p.Kind == kind })
	if i < 0 {
		i = len(w.active.Probes)
		w.active.Probes = append(w.active.Probes, state.ActiveProbe{Kind: kind})
	}
	p := &w.active.Probes[i]
	p.Ended, p.Took, p.Err = time.Now(), took, ""
	if f == nil {
		return
	}
	p.Err = f.Error()
	if w.failures[kind] == nil {
		w.failures[kind] = map[string]uint64{}
	}
	w.failures[kind][f.Reason]++
}

// asFailure returns err in our own words.
func asFailure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return transportFailure(err)
}
