package active

import (
	"context"
	"fmt"
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
	// maxTimeouts in a row close the connection. Once maxHung connections were
	// closed over a request that was not answered, the next one is waited for: for
	// shortPatience at first, in the end for longPatience.
	maxTimeouts   = 3
	maxHung       = 2
	shortPatience = 4 * time.Minute
	longPatience  = time.Hour
	// maxBackoff is the longest pause between attempts, authPause the least
	// between two looks at a secret that is missing or was refused.
	maxBackoff = time.Minute
	authPause  = 30 * time.Second
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
	jitter   func() float64
	refusals *refusals
	// changed wakes Run after Set.
	changed chan struct{}

	mu      sync.Mutex
	targets map[string]Target
	workers map[string]*worker
}

// New returns a prober that reads logins from secrets and connects by dial.
func New(secrets Secrets, dial Dial) *Prober {
	return &Prober{
		secrets: secrets, dial: dial, engines: engines(), jitter: mathrand.Float64, refusals: newRefusals(),
		changed: make(chan struct{}, 1), targets: map[string]Target{}, workers: map[string]*worker{},
	}
}

// Restore takes over which logins an earlier agent saw refused, from what that
// one gave to save; data is nil where there is none. From then on save is called
// with what the next agent is to have whenever that changes: fingerprints of
// secrets and their key, never a password. save may block, and no login goes on
// meanwhile. Restore is for before Run. After an error nothing is taken over, and
// save is called all the same.
func (p *Prober) Restore(data []byte, save func([]byte)) error {
	p.refusals.save = save
	return p.refusals.restore(data)
}

// Engines returns the engines whose servers can be probed, in alphabetical order.
// The API admits a probe for these and no others.
func Engines() []state.Engine { return slices.Sorted(maps.Keys(engines())) }

// Able reports whether servers of that engine can be probed.
func Able(e state.Engine) bool {
	_, ok := engines()[e]
	return ok
}

// Set replaces what is to be probed. A target that is already probed keeps its
// connection unless its server or how it is asked has changed. One of an engine
// that cannot be probed has a result that says so, and is left alone.
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
	out := make(map[string]*state.Active, len(p.targets))
	for id, t := range p.targets {
		if !p.able(t) {
			out[id] = unknownEngine(t.Engine)
		}
	}
	p.mu.Unlock()
	for id, w := range workers {
		if out[id] == nil {
			out[id] = w.result()
		}
	}
	return out
}

// able says whether a target is one that can be probed.
func (p *Prober) able(t Target) bool {
	_, ok := p.engines[t.Engine]
	return ok
}

// unknownEngine is the result of a target that cannot be probed.
func unknownEngine(e state.Engine) *state.Active {
	f := Failure{Reason: ReasonEngine, Detail: fmt.Sprintf("%q cannot be probed, only %v", e, Engines())}
	return &state.Active{Probes: []state.ActiveProbe{{Kind: state.ProbeRead, Err: f.Error()}}}
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
	maps.DeleteFunc(targets, func(_ string, t Target) bool { return !p.able(t) })
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
	w := &worker{prober: p, wanted: t, target: t, cancel: cancel, done: make(chan struct{})}
	w.failures = map[string]map[string]uint64{}
	go w.run(ctx)
	return w
}
