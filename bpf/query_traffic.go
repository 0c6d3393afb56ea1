package bpf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrDigestsFull says that the kernel has no room for another digest.
var ErrDigestsFull = errors.New("no room for another digest")

// errNoRoom is what the kernel answers when a hash map is full.
const errNoRoom = unix.E2BIG

// Traffic is what a server's connections carried besides its operations.
type Traffic struct {
	// StreamInBytes and StreamOutBytes are those of replication and subscriptions.
	StreamInBytes, StreamOutBytes uint64
	// SeenBytes and SocketBytes are what the timer saw of the connections it
	// follows and what their sockets counted; SocketBytes is 0 where the kernel
	// does not tell.
	SeenBytes, SocketBytes uint64
	// Slow counts statements at or above Watched.Slow.
	Slow uint64
}

// Transaction is how long transactions took that ended alike.
type Transaction struct {
	// Outcome is one of outcomeNames.
	Outcome string
	Distribution
}

// ErrorCount is how often a server answered with one error.
type ErrorCount struct {
	// Code is a SQLSTATE, a number, or the first eight letters of an error of
	// Redis; empty where the reply did not tell.
	Code  string
	Count uint64
}

// Open is what is going on on a server's connections.
type Open struct {
	Connections int
	// InFlight are requests without a complete reply.
	InFlight       int
	OldestInFlight time.Duration
	// Transactions are those open after the last reply.
	Transactions      int
	OldestTransaction time.Duration
}

// outcomeNames lists the outcomes of a transaction by their numbers, OUTCOME_....
func outcomeNames() []string { return []string{"unknown", "commit", "rollback"} }

// Traffic returns what a server's connections carried since Set first named it.
func (s *Statements) Traffic(id string) (Traffic, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	server, ok := s.servers[id]
	if !ok {
		return Traffic{}, fmt.Errorf("read traffic: server %q is not watched", id)
	}
	var v queryCoreServerTraffic
	place := server.slot % maxServers
	if err := s.coll.Maps["traffic"].Lookup(&place, &v); err != nil {
		return Traffic{}, fmt.Errorf("read traffic of server %q: %w", id, err)
	}
	return Traffic{
		StreamInBytes: v.StreamIn, StreamOutBytes: v.StreamOut,
		SeenBytes: v.Seen, SocketBytes: v.Carried, Slow: v.Slow,
	}, nil
}

// Transactions returns a server's transactions by outcome, those that did not
// occur left out.
func (s *Statements) Transactions(id string) ([]Transaction, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	server, ok := s.servers[id]
	if !ok {
		return nil, fmt.Errorf("read transactions: server %q is not watched", id)
	}
	var all []Transaction
	for number, name := range outcomeNames() {
		key := queryCoreDigestKey{Slot: server.slot, Digest: uint32(number)}
		var v queryCoreDistribution
		err := s.coll.Maps["transactions"].Lookup(&key, &v)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read transactions of server %q: %w", id, err)
		}
		all = append(all, Transaction{Outcome: name, Distribution: distribution(&v)})
	}
	return all, nil
}

// Errors returns how often each server answered with which error, by Watched.ID.
func (s *Statements) Errors() (map[string][]ErrorCount, error) {
	all, err := contents[queryCoreErrorKey, uint64](s.coll.Maps["errors"])
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	counts := map[string][]ErrorCount{}
	for key, n := range all {
		if id, ok := s.ids[key.Slot]; ok && n > 0 {
			counts[id] = append(counts[id], ErrorCount{Code: errorCode(key.Code), Count: n})
		}
	}
	return counts, nil
}

const codeNumber = 1 << 63 // CODE_NUMBER

// errorCode turns a code of the kernel into text: a number, or up to eight
// characters of which all that are not letters or digits are dropped, as they come
// from outside.
func errorCode(code uint64) string {
	if code&codeNumber != 0 {
		return strconv.FormatUint(code&^codeNumber, 10)
	}
	var b strings.Builder
	for ; code != 0; code >>= 8 {
		c := byte(code)
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Open returns what is going on on each server's connections, by Watched.ID.
// Servers without a connection are not in it.
func (s *Statements) Open() (map[string]Open, error) {
	all, err := contents[uint64, queryCoreConnection](s.coll.Maps["connections"])
	if err != nil {
		return nil, err
	}
	now := monotonic()
	s.mu.RLock()
	defer s.mu.RUnlock()
	open := map[string]Open{}
	for _, c := range all {
		id, ok := s.ids[c.Slot]
		if !ok || c.Flags&connIgnored != 0 {
			continue
		}
		o := open[id]
		o.add(&c, now)
		open[id] = o
	}
	return open, nil
}

func (o *Open) add(c *queryCoreConnection, now time.Duration) {
	o.Connections++
	if c.Phase == phaseRequest || c.Phase != phaseIdle && c.Flags&connOpen != 0 {
		o.InFlight++
		o.OldestInFlight = max(o.OldestInFlight, now-time.Duration(c.Started))
	}
	if c.Transaction != 0 {
		o.Transactions++
		o.OldestTransaction = max(o.OldestTransaction, now-time.Duration(c.Transaction))
	}
}

// monotonic is the clock that the programs read, CLOCK_MONOTONIC.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("clock_gettime of CLOCK_MONOTONIC: " + err.Error()) // it cannot
	}
	return time.Duration(t.Nano())
}
