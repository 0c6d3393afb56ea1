package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

const (
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 10 * time.Second
	// buffer is the size of a connection's read and write buffer. gRPC's own
	// default would cost 64 KiB for each agent.
	buffer = 4 << 10
	// maxReply is more than a node can have to say in brief.
	maxReply = 16 << 20
)

// errSilent ends a session in which nothing came for too long.
var errSilent = errors.New("no status came in time")

// peer is the connection to one agent.
type peer struct {
	fleet   *Fleet
	node    string
	address string
	cancel  context.CancelFunc
	done    chan struct{}

	mu sync.Mutex
	// client is nil until the first status of a session proved who answers.
	client agentpb.AgentClient
	last   Status
	print  uint64
	fail   *Error
}

// status returns the last status of the session, or why there is none.
func (p *peer) status() (Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.client != nil:
		return p.last, nil
	case p.fail != nil:
		return Status{}, p.fail
	}
	return Status{}, &Error{Node: p.node, Reason: Connecting}
}

// caller returns what to ask the agent with, in that session where it is not 0.
func (p *peer) caller(session uint64) (agentpb.AgentClient, error) {
	if _, err := p.status(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil || session != 0 && session != p.last.Session {
		return nil, &Error{Node: p.node, Reason: Replaced}
	}
	return p.client, nil
}

// run connects, listens and connects again until ctx ends.
func (p *peer) run(ctx context.Context, wait time.Duration) {
	defer close(p.done)
	pause := p.fleet.pause
	for sleep(ctx, wait) {
		begun := time.Now()
		h := &handshaker{files: p.fleet.files}
		err := p.session(ctx, h)
		if ctx.Err() != nil {
			break
		}
		p.failed(err, h.failure())
		if time.Since(begun) > lastPause {
			pause = p.fleet.pause
		}
		wait = pause/2 + time.Duration(rand.Int64N(int64(pause)))
		pause = min(2*pause, lastPause)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.client = nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// session is the life of one connection. It returns why that ended.
func (p *peer) session(ctx context.Context, h *handshaker) error {
	conn, err := grpc.NewClient("passthrough:///"+p.address,
		grpc.WithTransportCredentials(h),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout, Backoff: backoff.Config{BaseDelay: time.Hour, MaxDelay: time.Hour}}),
		grpc.WithReadBufferSize(buffer), grpc.WithWriteBufferSize(buffer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(p.fleet.stale, func() { cancel(errSilent) })
	defer silent.Stop()
	client := agentpb.NewAgentClient(conn)
	stream, err := client.Watch(ctx, &agentpb.WatchRequest{Interval: durationpb.New(watchInterval), Brief: true})
	if err != nil {
		return p.ended(ctx, err)
	}
	id := p.fleet.sessions.Add(1)
	for {
		reply, err := stream.Recv()
		if err != nil {
			return p.ended(ctx, err)
		}
		if err := p.check(reply); err != nil {
			return err
		}
		silent.Reset(p.fleet.stale)
		p.heard(client, id, reply)
	}
}

// ended tells a connection that was given up from one that broke.
func (p *peer) ended(ctx context.Context, err error) error {
	if !errors.Is(context.Cause(ctx), errSilent) {
		return err
	}
	if _, e := p.status(); e != nil {
		return &Error{Node: p.node, Reason: Unreachable, Err: errSilent}
	}
	return &Error{Node: p.node, Reason: Stale, Err: errSilent}
}

// check makes sure that the answer comes from the agent that is meant.
func (p *peer) check(r *agentpb.StatusReply) error {
	if v := r.GetProtocolVersion(); v < minVersion {
		return &Error{Node: p.node, Reason: TooOld, Err: fmt.Errorf("it speaks version %d of the protocol (release %q) and version %d is needed: upgrade it", v, r.GetVersion(), minVersion)}
	}
	if r.GetNodeName() != p.node {
		return &Error{Node: p.node, Reason: WrongNode, Err: fmt.Errorf("it calls its node %q: check its --node flag and who answers at %s", r.GetNodeName(), p.address)}
	}
	return nil
}

func (p *peer) heard(client agentpb.AgentClient, session uint64, r *agentpb.StatusReply) {
	print := fingerprint(r)
	p.mu.Lock()
	first := p.client == nil
	news := first || print != p.print
	p.client, p.last, p.print, p.fail = client, Status{Reply: r, At: time.Now(), Session: session}, print, nil
	p.mu.Unlock()
	if first {
		p.fleet.log.Info("agent connected", "component", "fleet", "node", p.node, "address", p.address, "version", r.GetVersion())
	}
	if news {
		p.fleet.onChange(p.node)
	}
}

func (p *peer) failed(err, handshake error) {
	reason := reasonOf(err, handshake)
	fail := &Error{Node: p.node, Reason: reason, Err: err}
	var own *Error
	if errors.As(err, &own) {
		fail = own
	}
	p.mu.Lock()
	news := p.fail == nil || p.fail.Reason != reason
	p.client, p.fail, p.last = nil, fail, Status{}
	p.mu.Unlock()
	if news {
		p.fleet.log.Warn("agent not connected", "component", "fleet", "node", p.node, "address", p.address, "reason", string(reason), "err", Text(err))
		p.fleet.onChange(p.node)
	}
}
