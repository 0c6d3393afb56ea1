package active

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// engine is how servers of one engine are spoken to.
type engine struct {
	// greet has the server say a first word without login; nil where the server
	// holds that against the client.
	greet func(conn net.Conn, t Target) error
	// login logs in over conn. It blocks until the connection is closed where
	// the server does not answer.
	login func(conn net.Conn, t Target, l *Login) (session, error)
	// writes says that there is a heartbeat for it.
	writes bool
}

// session is one login. Its methods block until the connection is closed where
// the server does not answer.
type session interface {
	Read() (reading, error)
	// Write writes the heartbeat row of the instance id.
	Write(id string) error
	// Close says goodbye to the server.
	Close()
}

// reading is what one read found.
type reading struct {
	role         string
	readOnly     *bool
	lag          *time.Duration
	lagBytes     *int64
	heartbeatAge *time.Duration
	// partial is why a part of it could not be read, note what would take to
	// read more.
	partial *Failure
	note    string
}

// engines is the table of what can be probed: engines that answer what is asked
// for role and delay, not all that speak one's protocol. TiDB, OceanBase and
// GoldenDB replicate in their own way behind MySQL's, openGauss and KingbaseES
// have the views of an older PostgreSQL under their own names.
func engines() map[state.Engine]engine {
	pg := engine{greet: greetPostgres, login: loginPostgres, writes: true}
	my := engine{login: loginMySQL, writes: true}
	kv := engine{greet: greetRedis, login: loginRedis}
	return map[state.Engine]engine{
		state.PostgreSQL: pg,
		state.MySQL:      my,
		state.MariaDB:    my,
		state.Percona:    my,
		state.Redis:      kv,
		state.Valkey:     kv,
	}
}

// Reasons for a failure, the values of a label.
const (
	// ReasonTimeout: no answer in time, or the server gave the statement up.
	ReasonTimeout = "timeout"
	// ReasonGone: nobody listens, or the connection ended.
	ReasonGone = "gone"
	// ReasonAuth: the login was refused.
	ReasonAuth = "auth"
	// ReasonSecret: there is no secret to log in with.
	ReasonSecret = "secret"
	// ReasonDenied: a privilege is missing.
	ReasonDenied = "denied"
	// ReasonSchema: the heartbeat table is missing or another one.
	ReasonSchema = "schema"
	// ReasonStarting: the server starts, recovers or shuts down.
	ReasonStarting = "starting"
	// ReasonBusy: it takes no more connections.
	ReasonBusy = "busy"
	// ReasonTLS: no TLS, or a certificate that the CA did not sign.
	ReasonTLS = "tls"
	// ReasonReadOnly: it takes no writes.
	ReasonReadOnly = "read_only"
	// ReasonProtocol: what it sent is not of its protocol, or too much.
	ReasonProtocol = "protocol"
	// ReasonEngine: servers of that engine cannot be probed.
	ReasonEngine = "engine"
	// ReasonError is any other error of the server.
	ReasonError = "error"
)

// Failure is why a probe failed.
type Failure struct {
	Reason string
	// Detail is in our own words, with an error code where the server gave one.
	Detail string
	// Answered says that the server answered with it and the connection is good.
	Answered bool
	// Locked says that the server has locked the account over refused logins.
	Locked bool
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Detail }

// errTooMuch is the end of a reply that is longer than a probe's may be.
var errTooMuch = errors.New("reply too long")

// transportFailure names what went wrong below the protocol.
func transportFailure(err error) *Failure {
	var timedOut net.Error
	switch {
	case errors.Is(err, errTooMuch):
		return &Failure{Reason: ReasonProtocol, Detail: fmt.Sprintf("a reply of more than %d bytes", maxReply)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timedOut) && timedOut.Timeout():
		return &Failure{Reason: ReasonTimeout, Detail: "no answer within 2s"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Failure{Reason: ReasonGone, Detail: "connection refused"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ENOTCONN):
		return &Failure{Reason: ReasonGone, Detail: "the connection ended"}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ESRCH):
		return &Failure{Reason: ReasonGone, Detail: "the process is gone"}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return &Failure{Reason: ReasonGone, Detail: "connection failed"}
	}
	return &Failure{Reason: ReasonProtocol, Detail: "what the server sent is not of its protocol"}
}

// call is one request in flight.
type call struct {
	kind string
	done chan struct{}
	// out and took are there once done is closed.
	out  outcome
	took time.Duration
}

type outcome struct {
	reading reading
	session session
	err     error
}

// start runs f beside the caller. A driver that panics over what a server sent
// is a failed probe.
func start(kind string, f func() outcome) *call {
	c := &call{kind: kind, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(c.done)
		defer func() {
			c.took = time.Since(began)
			if r := recover(); r != nil {
				c.out = outcome{err: &Failure{Reason: ReasonProtocol, Detail: "the driver gave up over what the server sent"}}
			}
		}()
		c.out = f()
	}()
	return c
}

// maxReply bounds what a server may send for one request.
const maxReply = 1 << 20

// guarded is a connection over which a server can send only so much.
type guarded struct {
	net.Conn
	left atomic.Int64
}

func guard(c net.Conn) *guarded {
	g := &guarded{Conn: c}
	g.allow(maxReply)
	return g
}

// allow lets the server send n bytes from now on.
func (g *guarded) allow(n int64) { g.left.Store(n) }

// Read implements net.Conn.
func (g *guarded) Read(b []byte) (int, error) {
	left := g.left.Load()
	if left <= 0 {
		return 0, errTooMuch
	}
	n, err := g.Conn.Read(b[:min(int64(len(b)), left)])
	g.left.Add(-int64(n))
	return n, err
}

// goodbye gives f a moment to take its leave.
func (g *guarded) goodbye(f func()) {
	defer func() { _ = recover() }() // the connection is closed next in any case
	if g.SetDeadline(time.Now().Add(200*time.Millisecond)) == nil {
		f()
	}
}

// unixSocket says whether a connection is to a unix socket.
func unixSocket(c net.Conn) bool {
	a := c.RemoteAddr()
	return a != nil && a.Network() == "unix"
}
