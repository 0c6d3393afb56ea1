package active

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// fake is a server and its secret, and counts what is done to them.
type fake struct {
	mu       sync.Mutex
	password string
	secret   map[string][]byte
	noSecret error
	// answers returns what a read finds; nil blocks until the connection ends.
	answers func() (reading, error)
	writeTo func() error
	refused error // dialling

	logins, reads, writes, dials, open, mostOpen, inFlight, mostInFlight int
	at                                                                   []time.Time
	passwords                                                            [][]byte
}

type fakeConn struct {
	net.Conn
	f    *fake
	once sync.Once
	gone chan struct{}
}

func (c *fakeConn) Close() error {
	c.once.Do(func() {
		c.f.mu.Lock()
		c.f.open--
		c.f.mu.Unlock()
		close(c.gone)
	})
	return c.Conn.Close()
}

func (f *fake) Login(context.Context, Target) (*Login, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.noSecret != nil {
		return nil, f.noSecret
	}
	data := map[string][]byte{}
	for k, v := range f.secret {
		data[k] = slices.Clone(v)
	}
	return LoginOf(data, state.TLSDisable)
}

func (f *fake) dial(context.Context, Target) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.refused != nil {
		return nil, f.refused
	}
	a, _ := net.Pipe()
	f.open++
	f.mostOpen = max(f.mostOpen, f.open)
	return &fakeConn{Conn: a, f: f, gone: make(chan struct{})}, nil
}

// fakeSession is one login.
type fakeSession struct {
	f    *fake
	conn *fakeConn
}

func (f *fake) login(conn net.Conn, _ Target, l *Login) (session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logins++
	f.at = append(f.at, time.Now())
	f.passwords = append(f.passwords, l.Password)
	if string(l.Password) != f.password {
		return nil, &Failure{Reason: ReasonAuth, Detail: "SQLSTATE 28P01"}
	}
	return &fakeSession{f: f, conn: conn.(*guarded).Conn.(*fakeConn)}, nil
}

func (s *fakeSession) Read() (reading, error) {
	f := s.f
	f.mu.Lock()
	f.reads++
	f.inFlight++
	f.mostInFlight = max(f.mostInFlight, f.inFlight)
	answers := f.answers
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.inFlight--; f.mu.Unlock() }()
	if answers == nil {
		<-s.conn.gone
		return reading{}, net.ErrClosed
	}
	return answers()
}

func (s *fakeSession) Write(string) error {
	f := s.f
	f.mu.Lock()
	f.writes++
	writeTo := f.writeTo
	f.mu.Unlock()
	if writeTo == nil {
		<-s.conn.gone
		return net.ErrClosed
	}
	return writeTo()
}

func (s *fakeSession) Close() {}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func primary() (reading, error) {
	no := false
	return reading{role: state.RolePrimary, readOnly: &no}, nil
}

// spec reads every five seconds and does not write.
func spec() state.ProbeSpec {
	return state.ProbeSpec{Secret: "s", Read: 5 * time.Second, Write: state.WriteOff, TLS: state.TLSDisable}
}

func newFake() *fake {
	return &fake{password: "right", answers: primary, writeTo: func() error { return nil },
		secret: map[string][]byte{KeyUsername: []byte("mooring"), KeyPassword: []byte("right")}}
}

// probing runs a prober of one target over f inside a bubble.
func probing(t *testing.T, f *fake, s state.ProbeSpec, do func(t *testing.T, p *Prober)) {
	synctest.Test(t, func(t *testing.T) {
		p := New(f, f.dial)
		p.engines = map[state.Engine]engine{state.PostgreSQL: {login: f.login, writes: true}}
		p.jitter = func() float64 { return 0.5 }
		p.Set([]Target{{ID: "a", Engine: state.PostgreSQL, PID: 1, Spec: s}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		do(t, p)
		cancel()
		require.NoError(t, <-done)
		require.Zero(t, f.open, "no connection outlives the prober")
	})
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func of(p *Prober, kind string) state.ActiveProbe {
	for _, a := range p.Results()["a"].Probes {
		if a.Kind == kind {
			return a
		}
	}
	return state.ActiveProbe{}
}

func TestReadsOverOneConnection(t *testing.T) {
	f := newFake()
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(61 * time.Second)
		r := p.Results()["a"]
		require.True(t, *r.Up)
		require.Equal(t, state.RolePrimary, r.Role)
		require.False(t, *r.ReadOnly)
		require.Equal(t, 1, f.logins)
		require.Equal(t, 12, f.reads)
		require.Equal(t, 0, f.writes, "a write must be asked for")
		require.Equal(t, 1, f.mostOpen)
		require.Equal(t, make([]byte, len("right")), f.passwords[0], "the password is overwritten after the login")
	})
}

func TestARoleChangeIsSeen(t *testing.T) {
	f := newFake()
	yes, lag, bytes := true, 3*time.Second, int64(4096)
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(6 * time.Second)
		require.Equal(t, state.RolePrimary, p.Results()["a"].Role)
		f.set(func() {
			f.answers = func() (reading, error) {
				return reading{role: state.RoleReplica, readOnly: &yes, lag: &lag, lagBytes: &bytes}, nil
			}
		})
		after(5 * time.Second)
		r := p.Results()["a"]
		require.Equal(t, state.RoleReplica, r.Role)
		require.Equal(t, lag, *r.Lag)
		require.Equal(t, bytes, *r.LagBytes)
		f.set(func() { f.answers = primary })
		after(5 * time.Second)
		require.Nil(t, p.Results()["a"].Lag, "what was of the replica is forgotten")
	})
}

func TestAWrongPasswordIsTriedThreeTimes(t *testing.T) {
	f := newFake()
	f.secret[KeyPassword] = []byte("wrong")
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(time.Hour)
		require.Equal(t, 3, f.logins)
		for i := 1; i < len(f.at); i++ {
			require.GreaterOrEqual(t, f.at[i].Sub(f.at[i-1]), authPause*9/10)
		}
		r := p.Results()["a"]
		require.Contains(t, r.Stopped, "three times")
		require.Equal(t, uint64(3), of(p, state.ProbeRead).Failures[ReasonAuth])
		require.Nil(t, r.Up, "nothing without a login tells whether it is up")
		for _, pw := range f.passwords {
			require.Equal(t, make([]byte, len("wrong")), pw)
		}

		// Gone and found again, it is still the same secret.
		p.Set(nil)
		after(time.Minute)
		require.Empty(t, p.Results())
		p.Set([]Target{{ID: "a", Engine: state.PostgreSQL, PID: 2, Spec: spec()}})
		after(time.Hour)
		require.Equal(t, 3, f.logins)

		f.set(func() { f.secret[KeyPassword] = []byte("right") })
		after(time.Minute)
		r = p.Results()["a"]
		require.Empty(t, r.Stopped)
		require.True(t, *r.Up)
		require.Equal(t, 4, f.logins)
	})
}

func TestASecretThatIsNotThere(t *testing.T) {
	f := newFake()
	f.noSecret = errors.New(`secret "s" is not there`)
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(10 * time.Minute)
		require.Zero(t, f.dials)
		require.Contains(t, of(p, state.ProbeRead).Err, "not there")
		f.set(func() { f.noSecret = nil; delete(f.secret, KeyPassword) })
		after(2 * time.Minute)
		require.Zero(t, f.dials)
		require.Contains(t, of(p, state.ProbeRead).Err, `no key "password"`)
		f.set(func() { f.secret[KeyPassword] = []byte("right") })
		after(2 * time.Minute)
		require.True(t, *p.Results()["a"].Up)
		require.NotZero(t, of(p, state.ProbeRead).Failures[ReasonSecret])
	})
}

func TestAServerThatNeverAnswersHasOneRequest(t *testing.T) {
	f := newFake()
	f.answers = nil
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(5 * time.Second)
		require.False(t, *p.Results()["a"].Up)
		require.Equal(t, uint64(1), of(p, state.ProbeRead).Failures[ReasonTimeout])
		after(9 * time.Second)
		require.Equal(t, 1, f.reads, "nothing is sent behind a request that is not answered")
		require.Equal(t, 1, f.open)
		after(9 * time.Second)
		require.Zero(t, f.open, "closed after three timeouts")
		after(time.Hour)
		require.Equal(t, 1, f.mostInFlight)
		require.Equal(t, 1, f.mostOpen)
		// At the longest back-off a connection every minute, and 16 s with it.
		require.InDelta(t, 3600/(60+16), f.logins, 5)
		f.set(func() { f.answers = primary })
		after(2 * time.Minute)
		require.True(t, *p.Results()["a"].Up)
	})
}

func TestALateAnswerCounts(t *testing.T) {
	f := newFake()
	f.answers = func() (reading, error) { time.Sleep(3 * time.Second); return primary() }
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(11 * time.Second)
		require.True(t, *p.Results()["a"].Up)
		require.Equal(t, 3*time.Second, of(p, state.ProbeRead).Took)
		require.Equal(t, 1, f.logins)
	})
}

func TestAServerThatIsGone(t *testing.T) {
	f := newFake()
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(6 * time.Second)
		f.set(func() {
			f.answers = func() (reading, error) { return reading{}, net.ErrClosed }
			f.refused = &Failure{Reason: ReasonGone, Detail: "connection refused"}
		})
		before := f.dials
		after(10 * time.Minute)
		r := p.Results()["a"]
		require.False(t, *r.Up)
		require.Empty(t, r.Role)
		require.InDelta(t, 12, f.dials-before, 3, "the back-off ends at a minute")
		f.set(func() { f.answers, f.refused = primary, nil })
		after(70 * time.Second)
		require.True(t, *p.Results()["a"].Up)
	})
}

func TestHeartbeatsAreWrittenToAPrimaryOnly(t *testing.T) {
	f, s := newFake(), spec()
	s.Write, s.WritePeriod = state.WriteReplicated, 20*time.Second
	yes := true
	probing(t, f, s, func(t *testing.T, p *Prober) {
		after(61 * time.Second)
		require.InDelta(t, 3, f.writes, 1)
		f.set(func() {
			f.answers = func() (reading, error) { return reading{role: state.RoleReplica, readOnly: &yes}, nil }
		})
		after(5 * time.Second)
		before := f.writes
		after(10 * time.Minute)
		require.Equal(t, before, f.writes)
	})
}

func TestAHungWriteDoesNotStack(t *testing.T) {
	f, s := newFake(), spec()
	s.Write, s.WritePeriod = state.WriteReplicated, 10*time.Second
	f.writeTo = nil
	probing(t, f, s, func(t *testing.T, p *Prober) {
		after(20 * time.Second)
		require.Equal(t, 1, f.writes)
		after(time.Hour)
		require.Equal(t, 1, f.mostOpen)
		require.NotZero(t, of(p, state.ProbeWrite).Failures[ReasonTimeout])
		require.True(t, *p.Results()["a"].Up, "reads are answered")
		require.Less(t, f.writes, 3600/60+5)
	})
}

func TestADriverThatPanicsIsAFailedProbe(t *testing.T) {
	f := newFake()
	f.answers = func() (reading, error) { panic("makeslice: len out of range") }
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(10 * time.Second)
		require.False(t, *p.Results()["a"].Up)
		require.NotContains(t, of(p, state.ProbeRead).Err, "makeslice")
		require.NotZero(t, of(p, state.ProbeRead).Failures[ReasonProtocol])
	})
}

func TestANewServerIsLoggedInToAnew(t *testing.T) {
	f := newFake()
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(6 * time.Second)
		p.Set([]Target{{ID: "a", Engine: state.PostgreSQL, PID: 1, PIDs: []int{1, 2}, Spec: spec()}})
		after(6 * time.Second)
		require.Equal(t, 1, f.logins, "other processes are the same server")
		p.Set([]Target{{ID: "a", Engine: state.PostgreSQL, PID: 7, Spec: spec()}})
		after(6 * time.Second)
		require.Equal(t, 2, f.logins)
		require.Equal(t, 1, f.mostOpen)
	})
}

func newReader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }
