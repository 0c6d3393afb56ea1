package active

import (
	"bufio"
	"io"
	"net"
	"strconv"
)

const (
	// maxBulk, maxList and maxDepth bound one value of a reply. INFO replication
	// with a hundred replicas is about 10 KiB.
	maxBulk  = 1 << 18
	maxList  = 4096
	maxDepth = 4
)

// errProtocol is what is not of the protocol.
var errProtocol = &Failure{Reason: ReasonProtocol, Detail: "what the server sent is not of its protocol"}

// resp speaks version 2 of Redis' protocol. The usual client allocates what a
// server says it is going to send, before it comes; this one reads only what a
// probe has a use for.
type resp struct {
	w io.Writer
	r *bufio.Reader
}

func newRESP(c net.Conn) *resp { return &resp{w: c, r: bufio.NewReader(c)} }

// value is text (also of a number; nil for a null) or a list.
type value struct {
	text []byte
	list []value
}

// do sends one command and returns its reply. An error of the server is a
// Failure that says Answered. The command is overwritten once it is sent.
func (r *resp) do(args ...string) (value, error) {
	n := 16
	for _, a := range args {
		n += len(a) + 24
	}
	// Never grown, so that a password is in it once.
	b := make([]byte, 0, n)
	b = append(strconv.AppendInt(append(b, '*'), int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		b = append(strconv.AppendInt(append(b, '$'), int64(len(a)), 10), "\r\n"...)
		b = append(append(b, a...), "\r\n"...)
	}
	_, err := r.w.Write(b)
	clear(b)
	if err != nil {
		return value{}, transportFailure(err)
	}
	return r.read(0)
}

// read reads one value.
func (r *resp) read(depth int) (value, error) {
	line, err := r.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return value{}, errProtocol
	}
	if err != nil {
		return value{}, transportFailure(err)
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return value{}, errProtocol
	}
	kind, rest := line[0], line[1:len(line)-2]
	switch kind {
	case '+', ':':
		return value{text: append([]byte{}, rest...)}, nil
	case '-':
		return value{}, redisFailure(rest)
	case '$':
		return r.bulk(rest)
	case '*':
		return r.array(rest, depth)
	}
	return value{}, errProtocol
}

func (r *resp) bulk(length []byte) (value, error) {
	n, err := strconv.Atoi(string(length))
	if err != nil || n < -1 || n > maxBulk {
		return value{}, errProtocol
	}
	if n == -1 {
		return value{}, nil
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return value{}, transportFailure(err)
	}
	if b[n] != '\r' || b[n+1] != '\n' {
		return value{}, errProtocol
	}
	return value{text: b[:n]}, nil
}

func (r *resp) array(length []byte, depth int) (value, error) {
	n, err := strconv.Atoi(string(length))
	if err != nil || n < -1 || n > maxList || depth >= maxDepth {
		return value{}, errProtocol
	}
	var v value
	for range max(n, 0) {
		e, err := r.read(depth + 1)
		if f, ok := err.(*Failure); ok && f.Answered {
			// An error inside a list leaves the rest of it unread.
			return value{}, errProtocol
		}
		if err != nil {
			return value{}, err
		}
		v.list = append(v.list, e)
	}
	return v, nil
}
