package bpf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// verifyID cannot be the ID of a server: those are printable.
const verifyID = "\x00verify"

// verifyTimeout bounds a Verify whose context has no deadline.
const verifyTimeout = 5 * time.Second

// Verify proves that the probe fires and times: it watches the calling process,
// speaks one PostgreSQL query through a loopback connection of its own and
// requires that it was counted, once, with a duration within the time it took.
// The servers that are watched stay so and keep their counters.
//
// It fails if this process is numbered otherwise in /proc than in the kernel,
// which is so in a container that does not share the node's PID namespace.
func (s *Statements) Verify(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("verify statement timer (%s): %w", s.mode, err)
		}
	}()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen on loopback: %w", err)
	}
	defer func() { err = errors.Join(err, listener.Close()) }()

	servers := s.watched()
	port := uint16(listener.Addr().(*net.TCPAddr).Port)
	self := Watched{ID: verifyID, Protocol: ProtocolPostgres, PIDs: []int{os.Getpid()}, Ports: []uint16{port}}
	defer func() { err = errors.Join(err, s.Set(servers)) }()
	if err := s.Set(append(servers, self)); err != nil {
		return err
	}
	took, err := converse(ctx, listener)
	if err != nil {
		return fmt.Errorf("converse over loopback: %w", err)
	}
	return s.checkVerified(took)
}

// watched returns the list Set was last given, in any order.
func (s *Statements) watched() []Watched {
	var list []Watched
	for _, id := range slices.Sorted(maps.Keys(s.servers)) {
		list = append(list, s.servers[id].Watched)
	}
	return list
}

// checkVerified compares what was counted with one select that took at most took.
func (s *Statements) checkVerified(took time.Duration) error {
	ops, err := s.Read(verifyID)
	if err != nil {
		return err
	}
	if len(ops) == 0 {
		return errors.New("a query went through a socket and was not seen; " +
			"the agent must share the node's PID namespace (hostPID)")
	}
	op := ops[0]
	if len(ops) != 1 || op.Name != "select" || op.Error || op.Count != 1 {
		return fmt.Errorf("one query was counted as %+v", ops)
	}
	if counted := time.Duration(op.SumNanoseconds); counted <= 0 || counted > took {
		return fmt.Errorf("a query that took at most %v was timed as %v", took, counted)
	}
	return nil
}

// The query and its answer as PostgreSQL would send it: CommandComplete and
// ReadyForQuery.
const (
	verifyQuery = "Q\x00\x00\x00\x0dSELECT 1\x00"
	verifyReply = "C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I"
)

// converse sends the query and answers it, on the server's side by the system
// calls a server uses: the runtime's own are read and write. It returns a time
// that the statement cannot have exceeded.
func converse(ctx context.Context, listener net.Listener) (time.Duration, error) {
	client, err := (&net.Dialer{}).DialContext(ctx, "tcp4", listener.Addr().String())
	if err != nil {
		return 0, err
	}
	defer client.Close() // nothing is buffered, an error of close means nothing
	server, err := listener.Accept()
	if err != nil {
		return 0, err
	}
	defer server.Close() // likewise
	if deadline, ok := ctx.Deadline(); ok {
		if err := errors.Join(client.SetDeadline(deadline), server.SetDeadline(deadline)); err != nil {
			return 0, err
		}
	}
	started := time.Now()
	if _, err := client.Write([]byte(verifyQuery)); err != nil {
		return 0, err
	}
	if err := answer(server.(*net.TCPConn)); err != nil {
		return 0, err
	}
	took := time.Since(started)
	_, err = client.Read(make([]byte, len(verifyReply)))
	return took, err
}

// answer receives what there is and sends the reply.
func answer(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		_, _, failed = unix.Recvfrom(int(fd), make([]byte, 8192), 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Send(int(fd), []byte(verifyReply), 0)
		return true
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}
