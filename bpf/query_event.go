package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"github.com/cilium/ebpf/ringbuf"
)

// Text is a statement's text that the kernel does not know yet.
type Text struct {
	// ID is the server's, Watched.ID.
	ID       string
	Protocol Protocol
	// Hash names the text for MapText.
	Hash uint64
	// Prepared says that it was prepared: its executions count under Hash.
	Prepared bool
	// Length is that of the message's text in bytes; Text is cut to 512.
	Length uint32
	// Text is the text with its literals. It is the reader's, and valid during
	// the call only.
	Text []byte
}

// Record is one finished statement.
type Record struct {
	ID string
	// Hash names its text; 0 where it has none or it was not read.
	Hash uint64
	// Digest is where the kernel counted it; 0 if Uncounted.
	Digest uint32
	// Uncounted says that the kernel counted it under its operation and under no
	// digest: the handler has to.
	Uncounted             bool
	Slow, Failed, Audited bool
	Operation             string
	Error                 bool
	// Code is as in ErrorCount.
	Code  string
	Ended time.Time
	// FirstByte is the time to the first byte of the reply, Blocked how long the
	// client took no more of it.
	Duration, FirstByte, Blocked      time.Duration
	RequestBytes, ResponseBytes, Rows uint64
	// Connection joins it to a Session.
	Connection uint64
	// Client is invalid for a local socket and where it is not known.
	Client netip.AddrPort
}

// SessionEvent is what happened to a connection.
type SessionEvent uint8

// The events.
const (
	SessionLogin SessionEvent = iota + 1
	SessionRefused
	SessionLogout
)

// Session is a login that was accepted or refused, or the end of a connection.
type Session struct {
	ID         string
	Connection uint64
	Client     netip.AddrPort
	// User and Database are as the client named them; empty where it did not or
	// the connection is encrypted.
	User, Database string
	Event          SessionEvent
	Code           string
	At             time.Time
}

// EventHandler takes what ReadEvents reads. Its methods are called by one
// goroutine and should be quick: what the kernel has no room for meanwhile is lost
// and counted (Lost).
type EventHandler interface {
	Text(*Text)
	Record(*Record)
	Session(*Session)
}

const (
	// perfBuffer is the buffer for each CPU where the kernel has no ring.
	perfBuffer = 256 << 10
	// maxHellos bounds the logins under way whose names are kept.
	maxHellos = 8192
	// maxLogouts is how many ended connections may wait for ReadEvents.
	maxLogouts = 4096
)

// Kinds of events and of sessions, and why a record was made: see query_event.h.
const (
	eventText = iota + 1
	eventRecord
	eventSession
)

// eventKinds lists the kinds of events by their numbers, enum event_kind.
func eventKinds() []string { return []string{"", "text", "record", "session"} }

const (
	recordUncounted = 1 << iota
	recordSlow
	recordFailed
	recordAudited
)

const (
	sessionHello = iota + 1
	sessionLogin
	sessionLogout
)

// source is a reader of the kernel's events.
type source interface {
	// read returns the next event, which is valid until the next call.
	read() ([]byte, error)
	close() error
}

// ReadEvents hands the kernel's events to h until ctx ends. It blocks and is to be
// called once at a time.
func (s *Statements) ReadEvents(ctx context.Context, h EventHandler) error {
	src, err := s.openEvents()
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = src.close() }) // wakes the reader
	defer stop()
	d := &dispatcher{s: s, h: h, hellos: map[uint64][2]string{}}
	for {
		raw, err := src.read()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return errors.Join(fmt.Errorf("read events: %w", err), src.close())
		default:
			d.dispatch(raw)
		}
		d.drainLogouts()
	}
}

// openEvents opens the ring, or the buffers of each CPU of the legacy programs.
func (s *Statements) openEvents() (source, error) {
	m := s.coll.Maps["events"]
	if m.Type() == ebpf.PerfEventArray {
		r, err := perf.NewReader(m, perfBuffer)
		if err != nil {
			return nil, err
		}
		return &perfSource{r: r}, nil
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, err
	}
	return &ringSource{r: r}, nil
}

// eventWait is how long a source waits for an event before it lets other work be
// done.
const eventWait = 200 * time.Millisecond

type ringSource struct {
	r   *ringbuf.Reader
	rec ringbuf.Record
}

func (s *ringSource) read() ([]byte, error) {
	s.r.SetDeadline(time.Now().Add(eventWait))
	err := s.r.ReadInto(&s.rec)
	return s.rec.RawSample, err
}

func (s *ringSource) close() error { return s.r.Close() }

type perfSource struct {
	r   *perf.Reader
	rec perf.Record
}

func (s *perfSource) read() ([]byte, error) {
	s.r.SetDeadline(time.Now().Add(eventWait))
	err := s.r.ReadInto(&s.rec)
	return s.rec.RawSample, err
}

func (s *perfSource) close() error { return s.r.Close() }

// dispatcher turns raw events into those of the handler.
type dispatcher struct {
	s *Statements
	h EventHandler
	// hellos are the names that logins under way came with, by connection.
	hellos map[uint64][2]string
	text   queryCoreTextEvent
	record queryCoreRecordEvent
	hello  queryCoreSessionEvent
}

// dispatch hands on one event. One of a server that is gone, or that is not whole,
// is dropped.
func (d *dispatcher) dispatch(raw []byte) {
	var head queryCoreEventHead
	if len(raw) < int(unsafe.Sizeof(head)) {
		return
	}
	fill(&head, raw)
	if int(head.Kind) < len(d.s.events) {
		d.s.events[head.Kind].Add(1)
	}
	d.s.mu.RLock()
	id, ok := d.s.ids[head.Slot]
	d.s.mu.RUnlock()
	if !ok {
		return
	}
	switch head.Kind {
	case eventText:
		d.dispatchText(id, raw)
	case eventRecord:
		d.dispatchRecord(id, raw)
	case eventSession:
		d.dispatchSession(id, raw)
	}
}

// fill copies raw into the memory of v, the rest of which becomes zero.
func fill[T any](v *T, raw []byte) {
	memory := unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
	clear(memory[copy(memory, raw):])
}

func (d *dispatcher) dispatchText(id string, raw []byte) {
	e := &d.text
	fill(e, raw)
	front := int(unsafe.Offsetof(e.Text))
	if int(e.Size) > len(e.Text)-8 || front+int(e.Size) > len(raw) {
		return
	}
	t := Text{
		ID: id, Protocol: Protocol(e.Head.Protocol), Hash: e.Hash, Prepared: e.Head.Detail != 0,
		Length: e.Length, Text: e.Text[:e.Size],
	}
	if textHash(t.Text, t.Length, d.s.syscalls) != t.Hash {
		return // overwritten meanwhile; its statements stay uncounted or unsampled
	}
	d.h.Text(&t)
	clear(e.Text[:])
}

func (d *dispatcher) dispatchRecord(id string, raw []byte) {
	e := &d.record
	fill(e, raw)
	why := e.Head.Detail
	d.h.Record(&Record{
		ID: id, Hash: e.Hash, Digest: e.Digest,
		Uncounted: why&recordUncounted != 0, Slow: why&recordSlow != 0,
		Failed: why&recordFailed != 0, Audited: why&recordAudited != 0,
		Operation: operationName(e.Head.Operation), Error: e.Head.Error != 0, Code: errorCode(e.Code),
		Ended: wallTime(e.Head.At), Duration: time.Duration(e.Duration),
		FirstByte: time.Duration(e.First), Blocked: time.Duration(e.Blocked),
		RequestBytes: e.In, ResponseBytes: e.Out, Rows: e.Rows,
		Connection: e.Head.Connection, Client: client(&e.Head),
	})
}

func (d *dispatcher) dispatchSession(id string, raw []byte) {
	e := &d.hello
	fill(e, raw)
	key := e.Head.Connection
	session := Session{ID: id, Connection: key, Client: client(&e.Head), Code: errorCode(e.Code), At: wallTime(e.Head.At)}
	switch e.Head.Detail {
	case sessionHello:
		if len(d.hellos) < maxHellos {
			d.hellos[key] = names(Protocol(e.Head.Protocol), e.Names[:])
		}
		return
	case sessionLogin:
		session.Event = SessionLogin
		if e.Head.Error != 0 {
			session.Event = SessionRefused
		}
		session.User, session.Database = d.hellos[key][0], d.hellos[key][1]
	case sessionLogout:
		session.Event = SessionLogout
	default:
		return
	}
	delete(d.hellos, key)
	d.h.Session(&session)
}

// drainLogouts hands on the connections that were found ended.
func (d *dispatcher) drainLogouts() {
	for {
		select {
		case session := <-d.s.logouts:
			delete(d.hellos, session.Connection)
			d.h.Session(&session)
		default:
			return
		}
	}
}

// names finds user and database in what a login began with. MySQL's are in fields
// of their own; PostgreSQL's are among the parameters, names and values in turn,
// and a database that is not named is the user's.
func names(p Protocol, raw []byte) [2]string {
	if p != ProtocolPostgres {
		return [2]string{word(raw[:len(raw)/2]), word(raw[len(raw)/2:])}
	}
	var found [2]string
	for len(raw) > 0 {
		key, rest, _ := bytes.Cut(raw, []byte{0})
		value, rest, whole := bytes.Cut(rest, []byte{0})
		if len(key) == 0 || !whole {
			break
		}
		switch string(key) {
		case "user":
			found[0] = word(value)
		case "database":
			found[1] = word(value)
		}
		raw = rest
	}
	if found[1] == "" {
		found[1] = found[0]
	}
	return found
}

// word returns the bytes up to the first zero.
func word(raw []byte) string {
	w, _, _ := bytes.Cut(raw, []byte{0})
	return string(w)
}

func operationName(number uint8) string {
	if names := operationNames(); int(number) < len(names) {
		return names[number]
	}
	return "other"
}

// client returns the address in a head; it is invalid where there is none.
func client(head *queryCoreEventHead) netip.AddrPort {
	const inet, inet6 = 2, 10 // AF_INET, AF_INET6
	switch head.Family {
	case inet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(head.Address[:4])), head.Port)
	case inet6:
		return netip.AddrPortFrom(netip.AddrFrom16(head.Address).Unmap(), head.Port)
	}
	return netip.AddrPort{}
}

// wallTime turns a time of the kernel's monotonic clock into one of the wall clock.
func wallTime(at uint64) time.Time { return time.Now().Add(time.Duration(at) - monotonic()) }
