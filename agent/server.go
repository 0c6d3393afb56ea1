package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/chaos"
)

// Server is the gRPC edge of an Agent.
type Server struct {
	agentpb.UnimplementedAgentServer
	agent *Agent
	log   *slog.Logger
}

// NewServer returns the edge of a.
func NewServer(a *Agent, log *slog.Logger) *Server { return &Server{agent: a, log: log} }

// ServeUnix serves gRPC on the agent's unix socket until ctx ends. Only root
// may connect: the socket's mode is 0600. A socket left by a killed agent is
// replaced; one on which somebody answers is an error.
func (s *Server) ServeUnix(ctx context.Context) error {
	path := s.agent.cfg.Socket
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("another agent answers on %s; stop it first or choose another --socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(s.guard), grpc.StreamInterceptor(s.guardStream), grpc.WaitForHandlers(true))
	agentpb.RegisterAgentServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}

// guard turns a panic in a handler into an error, so that one bad request does
// not take the agent with it.
func (s *Server) guard(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	defer s.caught(info.FullMethod, &err)
	return next(ctx, req)
}

// guardStream is guard for Watch and Records.
func (s *Server) guardStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.caught(info.FullMethod, &err)
	return next(srv, stream)
}

// caught is deferred by a guard.
func (s *Server) caught(method string, err *error) {
	if r := recover(); r != nil {
		s.log.Error("request panicked", "component", "server", "kind", method, "err", fmt.Sprint(r), "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "the agent hit a bug: %v", r)
	}
}

// Apply implements agentpb.AgentServer.
func (s *Server) Apply(ctx context.Context, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	reply, err := s.apply(ctx, r)
	if err != nil {
		return nil, statusOf(err)
	}
	if !r.GetDryRun() {
		s.agent.Look(context.WithoutCancel(ctx))
	}
	return reply, nil
}

func (s *Server) apply(ctx context.Context, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	if r.GetWithdraw() {
		f, err := s.agent.StopFault(r.GetUid())
		if err != nil {
			return nil, err
		}
		return &agentpb.ApplyReply{Instance: utf8Only(f.Instance), Fault: faultToPB(*f)}, nil
	}
	switch d := r.GetDesired().(type) {
	case *agentpb.ApplyRequest_Placement:
		var node *int
		if d.Placement.Node != nil {
			n := int(d.Placement.GetNode())
			node = &n
		}
		out, err := s.agent.Place(ctx, r.GetInstance(), d.Placement.GetPolicy(), node, PlaceOptions{Everywhere: d.Placement.GetAllNodes(), DryRun: r.GetDryRun(), PodUID: r.GetPodUid()})
		return outcomeToPB(out), err
	case *agentpb.ApplyRequest_Size:
		want := cgroup.Size{CPUMillicores: d.Size.CpuMillicores, MemoryBytes: d.Size.MemoryBytes}
		out, err := s.agent.Resize(ctx, r.GetInstance(), want, ResizeOptions{Force: r.GetForce(), Raw: r.GetRaw(), DryRun: r.GetDryRun(), PodUID: r.GetPodUid()})
		return outcomeToPB(out), err
	case *agentpb.ApplyRequest_Fault:
		return s.applyFault(ctx, r, d.Fault)
	case *agentpb.ApplyRequest_Policy:
		declared, unread := declaredOf(d.Policy, s.agent.cfg.Version)
		if err := s.agent.SetPolicy(ctx, d.Policy.GetDigest(), declared, r.GetDryRun(), unread...); err != nil {
			return nil, err
		}
		return &agentpb.ApplyReply{}, nil
	}
	return nil, invalid(errors.New("the request names no placement, size, fault or policy that this agent knows"))
}

func (s *Server) applyFault(ctx context.Context, r *agentpb.ApplyRequest, d *agentpb.FaultSpec) (*agentpb.ApplyReply, error) {
	if err := checkTimes(d); err != nil {
		return nil, invalid(fmt.Errorf("fault %q: %w", r.GetUid(), err))
	}
	spec := chaos.Spec{
		UID: r.GetUid(), Kind: d.GetKind(), Instance: r.GetInstance(),
		Params: d.GetParams(), Duration: d.GetDuration().AsDuration(),
	}
	o := FaultOptions{NotAfter: timeOf(d.GetNotAfter()), Lease: d.GetLease().AsDuration(), DryRun: r.GetDryRun(), PodUID: r.GetPodUid()}
	f, changes, err := s.agent.StartFault(ctx, spec, o)
	if err != nil {
		return nil, err
	}
	return &agentpb.ApplyReply{Instance: utf8Only(f.Instance), Changes: onlyUTF8(changes), Fault: faultToPB(*f)}, nil
}

// stillProbing is the answer before the first snapshot.
const stillProbing = "the agent is still probing the node; try again in a few seconds"

// Status implements agentpb.AgentServer.
func (s *Server) Status(context.Context, *agentpb.StatusRequest) (*agentpb.StatusReply, error) {
	return s.status()
}

func (s *Server) status() (*agentpb.StatusReply, error) {
	snap := s.agent.Snapshot()
	if snap == nil {
		return nil, status.Error(codes.FailedPrecondition, stillProbing)
	}
	return snapshotToPB(snap), nil
}

// Capabilities implements agentpb.AgentServer.
func (s *Server) Capabilities(context.Context, *agentpb.CapabilitiesRequest) (*agentpb.CapabilitiesReply, error) {
	reply, err := s.status()
	if err != nil {
		return nil, err
	}
	return &agentpb.CapabilitiesReply{Capabilities: reply.GetCapabilities()}, nil
}

// statusOf is the one place where errors become gRPC codes.
func statusOf(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, ErrRefused):
		code = codes.FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, err.Error())
}
