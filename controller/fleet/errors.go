package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason is why an agent cannot be asked, in the form of a condition's reason.
type Reason string

// The reasons.
const (
	// Missing means that no agent pod runs on the node.
	Missing Reason = "AgentMissing"
	// NotReady means that the agent's pod does not report ready.
	NotReady Reason = "AgentNotReady"
	// Connecting means that the first attempt is still under way.
	Connecting Reason = "AgentConnecting"
	// Unreachable means that there is no connection.
	Unreachable Reason = "AgentUnreachable"
	// Certificate means that one side does not accept the other's certificate,
	// or that ours cannot be read.
	Certificate Reason = "AgentCertificate"
	// TooOld means that the agent's protocol lacks what is needed.
	TooOld Reason = "AgentTooOld"
	// Stale means that the agent is connected and silent.
	Stale Reason = "AgentStale"
	// WrongNode means that the agent says it runs on another node.
	WrongNode Reason = "AgentWrongNode"
	// Replaced means that the agent was connected to again since it was seen.
	Replaced Reason = "AgentReplaced"
	// NotLeading means that this controller does not hold the lease.
	NotLeading Reason = "NotLeading"
)

// Error says why the agent of a node cannot be asked. Nothing was sent to it.
type Error struct {
	Node   string
	Reason Reason
	// Err is the cause; nil where the reason says it all.
	Err error
}

func (e *Error) Error() string {
	says := fmt.Sprintf("the agent on node %q ", e.Node)
	switch e.Reason {
	case Missing:
		says = fmt.Sprintf("no agent runs on node %q", e.Node)
	case NotReady:
		says += "is not ready"
	case Connecting:
		says += "is being connected to"
	case Unreachable:
		says += "cannot be reached"
	case Certificate:
		says += "and the controller do not accept each other's certificates"
	case TooOld:
		says += "is too old for this controller"
	case Stale:
		says += "is connected but silent"
	case WrongNode:
		says += "says that it runs elsewhere"
	case Replaced:
		says += "was connected to again since it was seen"
	case NotLeading:
		says = "this controller does not lead"
	}
	if e.Err != nil {
		says += ": " + Text(e.Err)
	}
	return says
}

func (e *Error) Unwrap() error { return e.Err }

// Text returns what err says, without the wrapping of gRPC.
func Text(err error) string {
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return s.Message()
	}
	return err.Error()
}

// Uncertain says whether a request that came back with err may have been carried
// out all the same. It is false where nothing was sent and where the agent
// answered that it refuses.
func Uncertain(err error) bool {
	var unsent *Error
	if err == nil || errors.As(err, &unsent) {
		return false
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.OutOfRange:
		return false
	}
	return true
}

// reasonOf tells what ended a session. handshake is the error of the TLS
// handshake where that failed.
func reasonOf(err, handshake error) Reason {
	var own *Error
	if errors.As(err, &own) {
		return own.Reason
	}
	var files *filesError
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.As(handshake, &files), errors.As(handshake, &verify), errors.As(handshake, &alert):
		return Certificate
	case handshake != nil && strings.Contains(handshake.Error(), "tls: "):
		return Certificate
	case strings.Contains(err.Error(), "remote error: tls: "):
		// With TLS 1.3 the client learns only at its first read that its
		// certificate was refused; gRPC keeps no more than the text.
		return Certificate
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		return Certificate
	case status.Code(err) == codes.Unimplemented:
		return TooOld
	case errors.Is(err, context.DeadlineExceeded):
		return Stale
	}
	return Unreachable
}
