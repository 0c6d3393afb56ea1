package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// What a controller, or anybody who can reach the port, may use of this agent.
const (
	// retryListen is how often the certificate, or the port, is tried again.
	retryListen = 3 * time.Second
	// maxConnections bounds file descriptors; there is one controller at work.
	maxConnections = 64
	maxStreams     = 32
	// maxMessage holds a Policy of more pods than a node may have.
	maxMessage = 4 << 20
	// maxAge is how long a connection lives. The controller connects again and
	// its certificate is checked again: one that was withdrawn or has expired
	// is of no use for longer.
	maxAge = time.Hour
	// logEvery is how often at most a refused peer is logged.
	logEvery = 10 * time.Second
)

// ServeTLS serves controllers over mutual TLS 1.3 on Config.Listen until ctx
// ends; with no such address it only waits for that. There is no way to serve
// them without TLS. Certificates that are missing and a port that is taken are
// logged and waited for: databases and the unix socket do not depend on them.
func (s *Server) ServeTLS(ctx context.Context) error {
	cfg := s.agent.cfg
	if cfg.Listen == "" {
		<-ctx.Done()
		return nil
	}
	certs := newCertificates(cfg.TLSDir, cfg.ControllerName, s.log)
	if !certs.await(ctx.Done(), retryListen) {
		return nil
	}
	l, err := s.listen(ctx, cfg.Listen)
	if err != nil {
		return nil // ctx ended
	}
	s.log.Info("serving controllers", "component", "tls", "address", l.Addr().String(), "controller", cfg.ControllerName)
	return s.serveTLS(ctx, l, certs)
}

// listen tries until the port is free. The error is that of ctx.
func (s *Server) listen(ctx context.Context, address string) (net.Listener, error) {
	t := time.NewTicker(retryListen)
	defer t.Stop()
	for said := ""; ; {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil {
			return l, nil
		}
		if err.Error() != said && ctx.Err() == nil {
			said = err.Error()
			s.log.Error("no controller can reach this agent: choose another --listen, or end what holds the port", "component", "tls", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C:
		}
	}
}

// serveTLS serves on l until ctx ends, and closes it.
func (s *Server) serveTLS(ctx context.Context, l net.Listener, certs *certificates) error {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return certs.current()
		},
	}
	door := &doorkeeper{TransportCredentials: credentials.NewTLS(config), log: s.log}
	g := grpc.NewServer(
		grpc.Creds(door),
		grpc.UnaryInterceptor(s.guard), grpc.StreamInterceptor(s.guardStream), grpc.WaitForHandlers(true),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(16<<10),
		// A Watch stream may be silent for an hour: pings tell whether its
		// reader lives, in both directions.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionAge: maxAge, MaxConnectionAgeGrace: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	agentpb.RegisterAgentServer(g, fenced{s})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(netutil.LimitListener(l, maxConnections)); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve controllers: %w", err)
	}
	return nil
}

// fenced is the edge towards controllers: whatever changes something must come
// with the epoch of the newest of them.
type fenced struct{ *Server }

// Apply implements agentpb.AgentServer.
func (s fenced) Apply(ctx context.Context, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	leave, err := s.agent.fence.enter(ctx, r.GetEpoch(), r.GetWithdraw() || r.GetDryRun())
	if err != nil {
		return nil, statusOf(err)
	}
	defer leave()
	return s.Server.Apply(ctx, r)
}

// doorkeeper says who was not let in. It is credentials.TransportCredentials.
type doorkeeper struct {
	credentials.TransportCredentials
	log *slog.Logger

	mu sync.Mutex
	// next is when the next line may be written, for peers with a certificate
	// and without: those who scan ports must not hide a controller at the door.
	next [2]time.Time
	held [2]int
}

// ServerHandshake implements credentials.TransportCredentials.
func (d *doorkeeper) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := d.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		d.refused(raw.RemoteAddr(), err)
	}
	return conn, info, err
}

// refused logs one handshake that failed, unless the last line is fresh.
func (d *doorkeeper) refused(from net.Addr, err error) {
	who := peerOf(err)
	i := 0
	if who == "" {
		i = 1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if now.Before(d.next[i]) {
		d.held[i]++
		return
	}
	d.next[i] = now.Add(logEvery)
	d.log.Warn("peer refused", "component", "tls", "from", from.String(), "certificate", who, "err", err, "unlogged", d.held[i])
	d.held[i] = 0
}

// peerOf describes the certificate that err is about, "" where there is none.
func peerOf(err error) string {
	var leaf *x509.Certificate
	var wrong *wrongPeer
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.As(err, &wrong):
		leaf = wrong.leaf
	case errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0:
		leaf = unverified.UnverifiedCertificates[0]
	default:
		return ""
	}
	return describe(leaf)
}
