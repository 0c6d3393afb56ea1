package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Digests that the kernel gives by itself. What MapText names is numbered from
// FirstDigest on.
const (
	// DigestNone are requests without a text: pings, logins, fetches, and the
	// preparation of statements, whose executions count instead.
	DigestNone uint32 = 1
	// DigestTLS are requests over an encrypted connection.
	DigestTLS uint32 = 2
	// DigestUnsampled are statements whose text is not known.
	DigestUnsampled uint32 = 3
	// DigestOther is for the caller's use: statements of digests not kept apart.
	DigestOther uint32 = 4
	// FirstDigest is the lowest number of a digest of the caller's.
	FirstDigest uint32 = 16
)

// DigestCounts is what has been counted of one digest of one server.
type DigestCounts struct {
	Digest uint32
	Errors uint64
	Rows   uint64
	Distribution
}

// MapText says which digest the text of that hash belongs to: statements of a
// server that have it count there from now on. It makes the digest's counter where
// there is none. The kernel may forget texts that are not used; then they come as
// Text or as an uncounted Record again.
//
// The error wraps ErrDigestsFull when there is no room for another digest.
func (s *Statements) MapText(id string, hash uint64, digest uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	server, ok := s.servers[id]
	if !ok {
		return fmt.Errorf("map text: server %q is not watched", id)
	}
	if digest < DigestOther {
		return fmt.Errorf("map text: digest %d is the kernel's own", digest)
	}
	if !server.digests[digest] {
		key := queryCoreDigestKey{Slot: server.slot, Digest: digest}
		err := s.coll.Maps["digests"].Update(&key, &queryCoreDigestValue{}, ebpf.UpdateNoExist)
		if errors.Is(err, errNoRoom) {
			return fmt.Errorf("map text: %w: %w", ErrDigestsFull, err)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("map text: make counter of digest %d: %w", digest, err)
		}
		server.digests[digest] = true
	}
	key := queryCoreTextKey{Hash: hash, Slot: server.slot}
	if err := s.coll.Maps["texts"].Put(&key, &digest); err != nil {
		return fmt.Errorf("map text: %w", err)
	}
	return nil
}

// Digests returns what has been counted of a server's digests, the kernel's own
// included, those without any statement left out.
func (s *Statements) Digests(id string) ([]DigestCounts, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	server, ok := s.servers[id]
	if !ok {
		return nil, fmt.Errorf("read digests: server %q is not watched", id)
	}
	all := make([]DigestCounts, 0, len(server.digests)+3)
	numbers := []uint32{DigestNone, DigestTLS, DigestUnsampled}
	for digest := range server.digests {
		numbers = append(numbers, digest)
	}
	for _, digest := range numbers {
		counts, err := s.digest(server, digest)
		if err != nil {
			return nil, fmt.Errorf("read digests of server %q: %w", id, err)
		}
		if counts.Count > 0 {
			all = append(all, counts)
		}
	}
	return all, nil
}

// digest reads one digest; one that has no counter has counted nothing.
func (s *Statements) digest(server *served, digest uint32) (DigestCounts, error) {
	key := queryCoreDigestKey{Slot: server.slot, Digest: digest}
	var v queryCoreDigestValue
	if err := s.coll.Maps["digests"].Lookup(&key, &v); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return DigestCounts{}, err
	}
	return DigestCounts{Digest: digest, Errors: v.Errors, Rows: v.Rows, Distribution: distribution(&v.Duration)}, nil
}

// DropDigest removes a digest's counter and returns what it had. Statements of its
// texts come as uncounted Records from then on, until MapText maps them anew.
func (s *Statements) DropDigest(id string, digest uint32) (DigestCounts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	server, ok := s.servers[id]
	if !ok {
		return DigestCounts{}, fmt.Errorf("drop digest: server %q is not watched", id)
	}
	key := queryCoreDigestKey{Slot: server.slot, Digest: digest}
	var v queryCoreDigestValue
	// Taken out and read in one step where the kernel can (5.14), so that nothing
	// counted between the two is lost.
	err := s.coll.Maps["digests"].LookupAndDelete(&key, &v)
	if errors.Is(err, ebpf.ErrNotSupported) {
		if err = s.coll.Maps["digests"].Lookup(&key, &v); err == nil {
			err = s.coll.Maps["digests"].Delete(&key)
		}
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return DigestCounts{}, fmt.Errorf("drop digest %d of server %q: %w", digest, id, err)
	}
	delete(server.digests, digest)
	return DigestCounts{Digest: digest, Errors: v.Errors, Rows: v.Rows, Distribution: distribution(&v.Duration)}, nil
}
