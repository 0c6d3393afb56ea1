package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Calls are the system calls by which a server receives and sends.
type Calls int

// The calls of the servers known.
const (
	RecvSend  Calls = iota // recvfrom and sendto: PostgreSQL, MySQL, MariaDB
	ReadWrite              // read and write: Redis, servers written in Go
	Messages               // recvmsg and sendmsg: MongoDB
)

// Step is bytes that one side sends; the other receives all of them before the
// next step.
type Step struct {
	FromServer bool
	// Pieces are what the server receives or sends by one call each. A client
	// sends them by one.
	Pieces [][]byte
}

// Scenario is one connection's conversation, and what must be counted of it.
type Scenario struct {
	Name  string
	Calls Calls
	Steps []Step
	// Want is how often each operation must be counted, failed ones with a "!"
	// behind the name.
	Want map[string]uint64
	// Detail is what else is to be known of it.
	Detail Detail
	// Needs is what the timer must be able to do for Want beyond telling the
	// messages of a client one by one; empty where that is all.
	Needs string
}

// Detail is what a scenario holds beyond operations. Zero values say nothing
// where the protocol does not tell.
type Detail struct {
	// Statements is how many there are, where requests hold several.
	Statements uint64
	// Rows are those returned or affected.
	Rows uint64
	// Codes are the errors' codes.
	Codes []string
	// Transactions are their outcomes: commit, rollback, unknown.
	Transactions []string
	// Stream says that bytes go by that belong to no request.
	Stream bool
}

// Client and Server make a step of one piece for each argument.
func Client(pieces ...[]byte) Step { return Step{Pieces: pieces} }

// Server is the same for what the server sends.
func Server(pieces ...[]byte) Step { return Step{FromServer: true, Pieces: pieces} }

// Play has the conversation on a connection to the listener, whose server side
// is this process too. It returns when both sides are closed.
func Play(ctx context.Context, l *net.TCPListener, s Scenario) (err error) {
	dialed, err := (&net.Dialer{}).DialContext(ctx, "tcp4", l.Addr().String())
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	client := dialed.(*net.TCPConn)
	server, err := l.AcceptTCP()
	if err != nil {
		return errors.Join(fmt.Errorf("accept: %w", err), client.Close())
	}
	deadline := time.Now().Add(20 * time.Second)
	if d, ok := ctx.Deadline(); ok {
		deadline = d
	}
	if err := errors.Join(client.SetDeadline(deadline), server.SetDeadline(deadline)); err != nil {
		return errors.Join(err, client.Close(), server.Close())
	}
	for i, step := range s.Steps {
		if err := play(client, server, s.Calls, step); err != nil {
			return errors.Join(fmt.Errorf("step %d: %w", i+1, err), client.Close(), server.Close())
		}
	}
	if err := client.Close(); err != nil {
		return errors.Join(fmt.Errorf("close client: %w", err), server.Close())
	}
	// A server learns of the end by asking for more.
	n, err := receive(server, s.Calls, make([]byte, 1))
	if err == nil && n != 0 {
		err = fmt.Errorf("the server was to receive nothing more and got %d bytes", n)
	}
	return errors.Join(err, server.Close())
}

// play does one step.
func play(client, server *net.TCPConn, calls Calls, step Step) error {
	var all []byte
	for _, p := range step.Pieces {
		all = append(all, p...)
	}
	done := make(chan error, 1)
	if !step.FromServer {
		go func() {
			_, err := client.Write(all)
			done <- err
		}()
		var err error
		for _, p := range step.Pieces {
			if err = receiveFull(server, calls, len(p)); err != nil {
				break
			}
		}
		return errors.Join(err, <-done)
	}
	go func() {
		got := make([]byte, len(all))
		var err error
		for n := 0; n < len(got) && err == nil; {
			var m int
			m, err = client.Read(got[n:])
			n += m
		}
		done <- err
	}()
	var err error
	for _, p := range step.Pieces {
		if err = send(server, calls, p); err != nil {
			break
		}
	}
	return errors.Join(err, <-done)
}

// receiveFull receives n bytes, by more than one call where they do not come at
// once.
func receiveFull(c *net.TCPConn, calls Calls, n int) error {
	buffer := make([]byte, n)
	for len(buffer) > 0 {
		got, err := receive(c, calls, buffer)
		if err != nil {
			return err
		}
		if got == 0 {
			return fmt.Errorf("the client closed %d bytes too early", len(buffer))
		}
		buffer = buffer[got:]
	}
	return nil
}

// receive asks once the socket is ready, so that a piece is one call.
func receive(c *net.TCPConn, calls Calls, buffer []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		switch calls {
		case RecvSend:
			n, _, failed = unix.Recvfrom(int(fd), buffer, 0)
		case ReadWrite:
			n, failed = unix.Read(int(fd), buffer)
		case Messages:
			n, _, _, _, failed = unix.Recvmsg(int(fd), buffer, nil, 0)
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("receive: %w", err)
	}
	return n, nil
}

func send(c *net.TCPConn, calls Calls, data []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	for len(data) > 0 {
		var n int
		var failed error
		err := raw.Write(func(fd uintptr) bool {
			n, failed = sendOnce(int(fd), calls, data)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err := errors.Join(err, failed); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		data = data[n:]
	}
	return nil
}

func sendOnce(fd int, calls Calls, data []byte) (int, error) {
	switch calls {
	case ReadWrite:
		return unix.Write(fd, data)
	case Messages:
		return unix.SendmsgN(fd, data, nil, nil, 0)
	}
	// sendto without an address; package unix has none that returns the count.
	return sendto(fd, data)
}
