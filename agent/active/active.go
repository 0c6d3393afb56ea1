package active

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// timeout is how long one request may take, serverTimeout when the server is
	// to give it up by itself, so that its answer comes first.
	timeout       = 2 * time.Second
	serverTimeout = 1900 * time.Millisecond
	lockTimeout   = time.Second
	// maxTimeouts in a row close the connection, maxStrikes refused logins end
	// all attempts.
	maxTimeouts = 3
	maxStrikes  = 3
	// maxBackoff is the longest pause between attempts, authPause the least after
	// a refused login and between two looks at a secret that was refused.
	maxBackoff = time.Minute
	authPause  = 30 * time.Second
	// maxRemembered bounds the instances whose refused logins are remembered.
	maxRemembered = 4096
)

// Target is one instance that is to be probed.
type Target struct {
	ID string
	// Namespace is where the secret is; empty outside Kubernetes.
	Namespace string
	Engine    state.Engine
	// PID is the server's first process, PIDs are all of the instance's.
	PID   int
	PIDs  []int
	Ports []uint16
	Spec  state.ProbeSpec
}

// Login is what to log in with.
type Login struct {
	Username string
	Password []byte
	// CA is a PEM bundle for state.TLSVerifyCA.
	CA []byte
}

// wipe overwrites the password.
func (l *Login) wipe() { clear(l.Password) }

// Secrets reads logins. The caller owns the result and overwrites it. An error
// is shown to people: it says which key or name is missing and holds no value.
type Secrets interface {
	Login(ctx context.Context, t Target) (*Login, error)
}

// Dial opens a connection to a target's server.
type Dial func(ctx context.Context, t Target) (net.Conn, error)

// Prober probes targets. Set and Results may be called from any goroutine and
// do not block; nothing is probed before Run.
type Prober struct {
	secrets Secrets
	dial    Dial
	engines map[state.Engine]engine
	// jitter returns a share (0 to 1) at random.
	jitter func() float64
	// key keeps the fingerprints of secrets from being worth anything.
	key [32]byte
	// changed wakes Run after Set.
	changed chan struct{}

	mu      sync.Mutex
	targets map[string]Target
	workers map[string]*worker
	strikes map[string]*strikes
}

// strikes are the refused logins of one instance.
type strikes struct {
	// secret is the fingerprint of what was refused, n how often in a row.
	secret [32]byte
	n      int
	used   time.Time
}

// New returns a prober that reads logins from secrets and connects by dial.
func New(secrets Secrets, dial Dial) *Prober {
	p := &Prober{
		secrets: secrets, dial: dial, engines: engines(), jitter: mathrand.Float64,
		changed: make(chan struct{}, 1), targets: map[string]Target{},
		workers: map[string]*worker{}, strikes: map[string]*strikes{},
	}
	// It never returns an error: a machine without randomness ends here.
	_, _ = rand.Read(p.key[:])
	return p
}

// Able reports whether servers of that engine can be probed.
func Able(e state.Engine) bool {
	_, ok := engines()[e]
	return ok
}

// Set replaces what is to be probed. A target that is already probed keeps its
// connection unless its server or how it is asked has changed.
func (p *Prober) Set(targets []Target) {
	p.mu.Lock()
	p.targets = make(map[string]Target, len(targets))
	for _, t := range targets {
		p.targets[t.ID] = t
	}
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Results returns what is known now, by instance id. The caller owns it.
func (p *Prober) Results() map[string]*state.Active {
	p.mu.Lock()
	workers := maps.Clone(p.workers)
	p.mu.Unlock()
	out := make(map[string]*state.Active, len(workers))
	for id, w := range workers {
		out[id] = w.result()
	}
	return out
}

// Run probes until ctx ends; then all connections are closed and it returns nil.
func (p *Prober) Run(ctx context.Context) error {
	for {
		p.follow(ctx)
		select {
		case <-ctx.Done():
			p.Set(nil)
			p.follow(ctx)
			return nil
		case <-p.changed:
		}
	}
}

// follow ends and begins workers so that there is one for each target.
func (p *Prober) follow(ctx context.Context) {
	p.mu.Lock()
	targets := maps.Clone(p.targets)
	var gone []*worker
	for id, w := range p.workers {
		if _, ok := targets[id]; !ok {
			gone = append(gone, w)
			delete(p.workers, id)
		}
	}
	p.mu.Unlock()
	for _, w := range gone {
		w.cancel()
	}
	for _, w := range gone {
		// So that there are never two connections to one instance.
		<-w.done
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, t := range targets {
		if w, ok := p.workers[id]; ok {
			w.retarget(t)
		} else if ctx.Err() == nil {
			p.workers[id] = p.startWorker(ctx, t)
		}
	}
}

// startWorker is called with mu held.
func (p *Prober) startWorker(ctx context.Context, t Target) *worker {
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{prober: p, strikes: p.remembered(t.ID), wanted: t, target: t, cancel: cancel, done: make(chan struct{})}
	w.failures = map[string]map[string]uint64{}
	go w.run(ctx)
	return w
}

// remembered returns the strikes of an instance, and forgets those used longest
// ago where there are too many. It is called with mu held.
func (p *Prober) remembered(id string) *strikes {
	s, ok := p.strikes[id]
	if !ok {
		s = &strikes{}
		if len(p.strikes) >= maxRemembered {
			oldest := slices.MinFunc(slices.Collect(maps.Keys(p.strikes)), func(a, b string) int {
				return p.strikes[a].used.Compare(p.strikes[b].used)
			})
			delete(p.strikes, oldest)
		}
		p.strikes[id] = s
	}
	s.used = time.Now()
	return s
}

// fingerprint tells one content of a secret from another.
func (p *Prober) fingerprint(l *Login) [32]byte {
	h := hmac.New(sha256.New, p.key[:])
	for _, part := range [][]byte{[]byte(l.Username), l.Password, l.CA} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
		clear(sum[:])
	}
	return [32]byte(h.Sum(nil))
}
