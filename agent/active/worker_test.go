package active

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
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
	// denies is how a login with another password is refused, after slow.
	denies *Failure
	slow   time.Duration
	// released has the reads that block be answered.
	released chan struct{}
	// kept is what one prober leaves to the next.
	kept []byte

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
	f.logins++
	f.at = append(f.at, time.Now())
	f.passwords = append(f.passwords, l.Password)
	slow := f.slow
	f.mu.Unlock()
	time.Sleep(slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	if string(l.Password) != f.password {
		return nil, f.denies
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
		select {
		case <-s.conn.gone:
			return reading{}, net.ErrClosed
		case <-f.released:
			return primary()
		}
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
	return &fake{password: "right", denies: &Failure{Reason: ReasonAuth, Detail: "SQLSTATE 28P01"}, answers: primary, writeTo: func() error { return nil },
		secret: map[string][]byte{KeyUsername: []byte("mooring"), KeyPassword: []byte("right")}}
}

// probing runs a prober of one target over f inside a bubble.
func probing(t *testing.T, f *fake, s state.ProbeSpec, do func(t *testing.T, p *Prober)) {
	synctest.Test(t, func(t *testing.T) {
		f.released = make(chan struct{}) // of the bubble
		p := New(f, f.dial)
		require.NoError(t, p.Restore(f.kept, func(data []byte) { f.kept = data }))
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

func TestAWrongPasswordIsConfirmedOnceAndThenStopped(t *testing.T) {
	f := newFake()
	f.secret[KeyPassword] = []byte("wrong")
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(5 * time.Minute)
		require.Equal(t, 1, f.logins)
		require.Contains(t, p.Results()["a"].Note, "once more")
		require.Empty(t, p.Results()["a"].Stopped)
		after(time.Hour)
		require.Equal(t, 2, f.logins)
		require.GreaterOrEqual(t, f.at[1].Sub(f.at[0]), confirmAfter)
		r := p.Results()["a"]
		require.Contains(t, r.Stopped, "until the secret")
		require.Equal(t, uint64(2), of(p, state.ProbeRead).Failures[ReasonAuth])
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
		require.Equal(t, 2, f.logins)

		// Another one that is wrong, too, is the third in a row and not confirmed.
		f.set(func() { f.secret[KeyPassword] = []byte("worse") })
		after(time.Hour)
		require.Equal(t, 3, f.logins)
		require.NotEmpty(t, p.Results()["a"].Stopped)

		f.set(func() { f.secret[KeyPassword] = []byte("right") })
		after(time.Minute)
		r = p.Results()["a"]
		require.Empty(t, r.Stopped)
		require.True(t, *r.Up)
		require.Equal(t, 4, f.logins)
		require.NotContains(t, string(f.kept), "secret", "what was let in is forgotten")
	})
}

func TestARestartedAgentGivesNoFurtherAttempts(t *testing.T) {
	f := newFake()
	f.secret[KeyPassword] = []byte("wrong")
	for _, minutes := range []time.Duration{1, 1, 1, 60, 60, 60} {
		probing(t, f, spec(), func(t *testing.T, p *Prober) {
			after(minutes * time.Minute)
			require.LessOrEqual(t, f.logins, 2)
			require.NotContains(t, string(f.kept), "wrong")
		})
	}
	require.Equal(t, 2, f.logins, "the first, and the one that confirms it")
	f.secret[KeyPassword] = []byte("right")
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(time.Minute)
		require.True(t, *p.Results()["a"].Up)
	})
}

func TestASlowRefusalIsOne(t *testing.T) {
	// A server that delays what it refuses, and one that does so for longer than
	// it is waited for.
	for _, slow := range []time.Duration{time.Minute, 10 * time.Minute} {
		f := newFake()
		f.secret[KeyPassword], f.slow = []byte("wrong"), slow
		probing(t, f, spec(), func(t *testing.T, p *Prober) {
			after(24 * time.Hour)
			require.Equal(t, 2, f.logins)
			require.NotEmpty(t, p.Results()["a"].Stopped)
		})
	}
}

func TestALockedAccountIsLeftAloneAtOnce(t *testing.T) {
	for _, number := range []uint16{3955, 4150} {
		f := newFake()
		f.secret[KeyPassword] = []byte("wrong")
		require.ErrorAs(t, mysqlFailure(&mysql.MySQLError{Number: number}, false), &f.denies)
		probing(t, f, spec(), func(t *testing.T, p *Prober) {
			after(24 * time.Hour)
			require.Equal(t, 1, f.logins)
			r := p.Results()["a"]
			require.NotEmpty(t, r.Stopped)
			require.Nil(t, r.Up, "the server is not down")
		})
	}
}

func TestAllRefusalsAreOnes(t *testing.T) {
	reason := func(err error) string { return asFailure(err).Reason }
	for _, number := range []uint16{1045, 1698, 1862, 3118, 3955, 4150, 4151} {
		require.Equal(t, ReasonAuth, reason(mysqlFailure(&mysql.MySQLError{Number: number}, false)), number)
	}
	for _, code := range []string{"28P01", "28000"} {
		require.Equal(t, ReasonAuth, reason(postgresFailure(&pgconn.PgError{Code: code}, false)), code)
	}
	for _, line := range []string{"WRONGPASS invalid", "NOAUTH Authentication required.", "ERR invalid password"} {
		require.Equal(t, ReasonAuth, reason(redisFailure([]byte(line))), line)
	}
}

func TestASessionThatLosesItsRightsLogsInAnew(t *testing.T) {
	f := newFake()
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(6 * time.Second)
		f.set(func() {
			f.answers = func() (reading, error) {
				return reading{}, &Failure{Reason: ReasonAuth, Detail: "NOAUTH", Answered: true}
			}
		})
		after(5 * time.Second)
		f.set(func() { f.answers = primary })
		after(time.Minute)
		require.Equal(t, 2, f.logins)
		require.True(t, *p.Results()["a"].Up)
		require.Empty(t, f.kept, "no login was refused")
	})
}

func TestWhatWasKeptIsBoundedAndReadWithCare(t *testing.T) {
	r := newRefusals()
	require.Error(t, r.restore([]byte("{")))
	require.Error(t, r.restore([]byte(`{"refused": {"a": {"secret": "s", "count": 2}}}`)), "without its key it says nothing")
	require.NoError(t, r.restore(nil))
	r.save = func(data []byte) {
		next := newRefusals()
		require.NoError(t, next.restore(data))
		require.Equal(t, r.key, next.key)
		require.LessOrEqual(t, len(next.by), maxRemembered)
	}
	for i := range maxRemembered - 1 {
		r.by[strconv.Itoa(i)] = refusal{Secret: "s", Count: 2, At: time.Now()}
	}
	r.refuse("a", "s", true)
	r.refuse("b", "s", false)
	require.Len(t, r.by, maxRemembered)
	_, stopped := r.judge("a", "s")
	require.True(t, stopped)
	wait, stopped := r.judge("b", "s")
	require.False(t, stopped)
	require.Positive(t, wait)
	// A clock that was set back makes nothing wait for longer than anew.
	data, err := json.Marshal(keptRefusals{Key: r.key[:], Refused: map[string]refusal{"c": {Secret: "s", Count: 1, At: time.Now().AddDate(1, 0, 0)}}})
	require.NoError(t, err)
	require.NoError(t, r.restore(data))
	wait, _ = r.judge("c", "s")
	require.LessOrEqual(t, wait, confirmAfter)
}

func TestEnginesThatCanBeProbed(t *testing.T) {
	require.Equal(t, []state.Engine{state.MariaDB, state.MySQL, state.Percona, state.PostgreSQL, state.Redis, state.Valkey}, Engines())
	for _, f := range state.Engines() {
		require.Equal(t, slices.Contains(Engines(), f.Engine), Able(f.Engine), f.Engine)
	}
	f := newFake()
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(6 * time.Second)
		require.Equal(t, 1, f.logins)
		p.Set([]Target{{ID: "a", Engine: state.TiDB, PID: 1, Spec: spec()}})
		after(time.Minute)
		require.Equal(t, 1, f.logins)
		require.Zero(t, f.open)
		r := p.Results()["a"]
		require.Nil(t, r.Up)
		require.Contains(t, of(p, state.ProbeRead).Err, `engine: "tidb" cannot be probed`)
		require.Contains(t, of(p, state.ProbeRead).Err, "valkey")
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
		// Each may be a session that the server is still at. Two are closed soon,
		// the others after 4, 8, 16 and 32 minutes.
		require.InDelta(t, 6, f.logins, 1)
		require.Equal(t, 1, f.open)
		require.Contains(t, p.Results()["a"].Note, "kept waiting")
		close(f.released)
		after(6 * time.Second)
		require.True(t, *p.Results()["a"].Up, "the one that was kept has its answer")
		require.Empty(t, p.Results()["a"].Note)
		require.InDelta(t, 6, f.logins, 1)
	})
}

func TestAnotherProcessIsNotWaitedFor(t *testing.T) {
	f := newFake()
	f.answers = nil
	probing(t, f, spec(), func(t *testing.T, p *Prober) {
		after(2 * time.Minute)
		require.Contains(t, p.Results()["a"].Note, "kept waiting")
		f.set(func() { f.answers = primary })
		p.Set([]Target{{ID: "a", Engine: state.PostgreSQL, PID: 7, Spec: spec()}})
		after(10 * time.Second)
		require.True(t, *p.Results()["a"].Up)
		require.Equal(t, 1, f.mostOpen)
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
	yes, age := true, 3*time.Second
	probing(t, f, s, func(t *testing.T, p *Prober) {
		after(61 * time.Second)
		require.InDelta(t, 3, f.writes, 1)
		f.set(func() {
			f.answers = func() (reading, error) {
				return reading{role: state.RoleReplica, readOnly: &yes, heartbeatAge: &age}, nil
			}
		})
		require.Zero(t, p.Results()["a"].HeartbeatPeriod, "a primary has no age of one")
		after(5 * time.Second)
		before := f.writes
		require.Equal(t, []time.Duration{age, 20 * time.Second}, []time.Duration{*p.Results()["a"].HeartbeatAge, p.Results()["a"].HeartbeatPeriod})
		after(10 * time.Minute)
		require.Equal(t, before, f.writes)
		f.set(func() { f.answers = func() (reading, error) { return reading{}, net.ErrClosed } })
		after(time.Minute)
		require.Nil(t, p.Results()["a"].HeartbeatAge)
		require.Zero(t, p.Results()["a"].HeartbeatPeriod)
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
		require.Less(t, f.writes, 10, "each may be a session that the server is still at")
		require.Contains(t, p.Results()["a"].Note, "heartbeats in a row")
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
