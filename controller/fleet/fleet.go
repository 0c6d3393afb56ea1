package fleet

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

const (
	// watchInterval is how often an agent repeats its status without news.
	watchInterval = 5 * time.Second
	// staleAfter is the age from which a status says nothing: three were missed.
	staleAfter = 3 * watchInterval
	// firstPause and lastPause bound the wait before connecting again.
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
	// spread is how far apart connections begin when many do at once, for each.
	spread = 3 * time.Millisecond
	// minVersion is the first protocol with epochs, leases and policies.
	minVersion = 2
)

// Endpoint is where the agent of one node is to be found.
type Endpoint struct {
	Node string
	// Address is host:port.
	Address string
	// PodUID tells a new agent on the same address from the one before.
	PodUID string
	// Ready is what the pod reports of itself. An agent that is not ready is
	// connected to all the same, since a fault there must be ended.
	Ready bool
}

// Options are what a Fleet is made with.
type Options struct {
	// TLSDir holds tls.crt, tls.key and ca.crt.
	TLSDir string
	// ServerName is the DNS name that an agent's certificate must carry.
	ServerName string
	// OnChange is called with a node's name when its agent has something new to
	// say or can or cannot be reached any more. It must not block. It may be nil.
	OnChange func(node string)
	Log      *slog.Logger
}

// Fleet is the connections to all agents.
type Fleet struct {
	files    *files
	onChange func(string)
	log      *slog.Logger
	stale    time.Duration
	pause    time.Duration
	epoch    atomic.Uint64
	sessions atomic.Uint64

	mu        sync.Mutex
	endpoints map[string]Endpoint
	peers     map[string]*peer
}

// New returns a Fleet without agents that does not lead.
func New(o Options) *Fleet {
	f := &Fleet{
		files:    &files{dir: o.TLSDir, serverName: o.ServerName, log: o.Log},
		onChange: o.OnChange, log: o.Log, stale: staleAfter, pause: firstPause,
		endpoints: map[string]Endpoint{}, peers: map[string]*peer{},
	}
	if f.onChange == nil {
		f.onChange = func(string) {}
	}
	return f
}

// Set says which agents there are. One whose address or pod changed is connected
// to again; one that is not listed is let go. It does not wait for connections.
func (f *Fleet) Set(all []Endpoint) {
	f.mu.Lock()
	want := make(map[string]Endpoint, len(all))
	for _, e := range all {
		want[e.Node] = e
	}
	var gone []*peer
	var changed []string
	for node, old := range f.endpoints {
		e, ok := want[node]
		if ok && e == old {
			continue
		}
		changed = append(changed, node)
		if p := f.peers[node]; p != nil && (!ok || e.Address != old.Address || e.PodUID != old.PodUID) {
			p.cancel()
			gone = append(gone, p)
			delete(f.peers, node)
		}
	}
	for node := range want {
		if _, ok := f.endpoints[node]; !ok {
			changed = append(changed, node)
		}
	}
	f.endpoints = want
	f.startMissing()
	f.mu.Unlock()
	for _, p := range gone {
		<-p.done
	}
	for _, node := range changed {
		f.onChange(node)
	}
}

// startMissing connects to every agent that has no connection, when leading.
// The caller holds mu.
func (f *Fleet) startMissing() {
	if f.epoch.Load() == 0 {
		return
	}
	missing := len(f.endpoints) - len(f.peers)
	for node, e := range f.endpoints {
		if f.peers[node] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		p := &peer{fleet: f, node: node, address: e.Address, cancel: cancel, done: make(chan struct{})}
		f.peers[node] = p
		go p.run(ctx, time.Duration(rand.Int64N(int64(missing)*int64(spread)+1)))
	}
}

// SetEpoch says under which epoch this controller leads; 0 means that it does
// not, and then all connections are closed before SetEpoch returns.
func (f *Fleet) SetEpoch(epoch uint64) {
	f.epoch.Store(epoch)
	f.mu.Lock()
	var gone []*peer
	if epoch == 0 {
		for node, p := range f.peers {
			p.cancel()
			gone = append(gone, p)
			delete(f.peers, node)
		}
	}
	f.startMissing()
	f.mu.Unlock()
	for _, p := range gone {
		<-p.done
	}
}

// Epoch returns the epoch under which this controller leads, 0 when it does not.
func (f *Fleet) Epoch() uint64 { return f.epoch.Load() }

// Close closes all connections and forgets the agents.
func (f *Fleet) Close() {
	f.Set(nil)
	f.SetEpoch(0)
}

// find returns the connection to a node's agent, or why there is none.
func (f *Fleet) find(node string) (*peer, Endpoint, error) {
	if f.epoch.Load() == 0 {
		return nil, Endpoint{}, &Error{Node: node, Reason: NotLeading}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.endpoints[node]
	if !ok || f.peers[node] == nil {
		return nil, Endpoint{}, &Error{Node: node, Reason: Missing}
	}
	return f.peers[node], e, nil
}

// Status is what an agent said last.
type Status struct {
	// Reply is shared: it must not be changed.
	Reply *agentpb.StatusReply
	// At is when it came, by this process's clock.
	At time.Time
	// Session names the connection it came over.
	Session uint64
}

// Status returns what the agent of a node said last. With Reason NotReady the
// status is returned as well; with every other error it is empty.
func (f *Fleet) Status(node string) (Status, error) {
	p, e, err := f.find(node)
	if err != nil {
		return Status{}, err
	}
	s, err := p.status()
	if err != nil {
		return Status{}, err
	}
	if time.Since(s.At) > f.stale {
		return Status{}, &Error{Node: node, Reason: Stale}
	}
	if !e.Ready {
		return s, &Error{Node: node, Reason: NotReady}
	}
	return s, nil
}

// Apply asks the agent of a node for something under the epoch of this
// controller and waits for its answer, at most until ctx ends. Where session is
// not 0, nothing is sent unless the connection is still that one. The request is
// not changed. An *Error means that nothing was sent; of other errors Uncertain
// tells whether the agent may have done it.
func (f *Fleet) Apply(ctx context.Context, node string, session uint64, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	p, _, err := f.find(node)
	if err != nil {
		return nil, err
	}
	c, err := p.caller(session)
	if err != nil {
		return nil, err
	}
	epoch := f.epoch.Load()
	if epoch == 0 {
		return nil, &Error{Node: node, Reason: NotLeading}
	}
	stamped := proto.Clone(r).(*agentpb.ApplyRequest)
	stamped.Epoch = epoch
	return c.Apply(ctx, stamped)
}

// Count says how many agents are "connected" and how many are not for which
// reason.
func (f *Fleet) Count() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[string]int{}
	for _, p := range f.peers {
		if _, err := p.status(); err != nil {
			counts[string(reasonOf(err, nil))]++
		} else {
			counts["connected"]++
		}
	}
	return counts
}
