package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// Operation is the latency distribution of one kind of statement since Set
// first named its server.
type Operation struct {
	// Name is one of operationNames.
	Name string
	// Error says that the server answered with an error.
	Error bool
	// Count is the sum of Classic, and of Native.
	Count          uint64
	SumNanoseconds uint64
	// Classic has one more element than ClassicBounds: Classic[i] counts the
	// statements that took at most ClassicBounds()[i] and more than the bound
	// before, the last one those above all bounds.
	Classic []uint64
	// Native counts by the bounds of a Prometheus native histogram of schema 3:
	// the key i stands for (2^((i-1)/8), 2^(i/8)] seconds. Shorter than 2^-20 s
	// is counted under -160, longer than 128 s under 57.
	Native map[int]uint64
	// FirstByte is the time to the first byte of the reply.
	FirstByte Distribution
	// BlockedNanoseconds is the time for which the client took no more of the
	// reply. ModeFentry sees all of it; the others what servers with non-blocking
	// sockets wait.
	BlockedNanoseconds uint64
	// RequestBytes and ResponseBytes are those of these statements.
	RequestBytes, ResponseBytes uint64
	// Rows were returned or affected, where the end of the reply says so.
	Rows uint64
	// Statements are what the requests held: more than Count where clients
	// pipeline.
	Statements uint64
}

// Distribution is a latency distribution of schema 1.
type Distribution struct {
	// Count is the sum of Native.
	Count          uint64
	SumNanoseconds uint64
	// Native counts by the bounds of a Prometheus native histogram of schema 1:
	// the key i stands for (2^((i-1)/2), 2^(i/2)] seconds. Shorter than 2^-20 s is
	// counted under -40, longer than 2^7.5 s under 15.
	Native map[int]uint64
}

const (
	nativeLowest = -160 // NATIVE_LOWEST
	coarseLowest = -40  // COARSE_LOWEST

	// readAttempts bounds how often a histogram is read again because a
	// statement was counted while it was copied.
	readAttempts = 32
)

// ClassicBounds returns the upper bounds of Operation.Classic.
func ClassicBounds() []time.Duration {
	const us, ms = time.Microsecond, time.Millisecond
	return []time.Duration{
		50 * us, 100 * us, 250 * us, 500 * us,
		1 * ms, 2500 * us, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		time.Second, 2500 * ms, 10 * time.Second,
	}
}

// operationNames lists the operations by their numbers, enum query_operation.
func operationNames() []string {
	return []string{
		"other", "select", "insert", "update", "delete", "replace", "call", "ddl", "txn", "set",
		"show", "copy", "prepare", "fetch", "ping", "admin", "auth", "tls", "read", "write",
	}
}

// lossNames lists the reasons by their numbers, enum query_loss.
func lossNames() []string {
	return []string{
		"connections_full", "operations_full", "pids_full", "unresolved", "unreadable", "tls_unseen",
		"digests_full", "errors_full", "texts", "records", "sessions", "budget", "aborted", "preempted",
	}
}

// Read returns what has been counted for a server since Set first named it,
// without operations that did not occur. The slices are the caller's.
func (s *Statements) Read(id string) ([]Operation, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	server, ok := s.servers[id]
	if !ok {
		return nil, fmt.Errorf("read statements: server %q is not watched", id)
	}
	var ops []Operation
	for number, name := range operationNames() {
		for _, failed := range []uint8{0, 1} {
			key := queryCoreOperationKey{Slot: server.slot, Operation: uint8(number), Error: failed}
			v, err := readOperation(s.coll.Maps["operations"], key)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read %s statements of server %q: %w", name, id, err)
			}
			op := operation(v)
			if op.Count == 0 {
				continue // just made, its first statement is about to be counted
			}
			op.Name, op.Error = name, failed == 1
			ops = append(ops, op)
		}
	}
	return ops, nil
}

// readOperation reads one operation. The kernel copies it while statements are
// counted; see struct histogram for why equal counts mean a whole copy.
func readOperation(m *ebpf.Map, key queryCoreOperationKey) (*queryCoreOperationValue, error) {
	var v queryCoreOperationValue
	for range readAttempts {
		if err := m.Lookup(&key, &v); err != nil {
			return nil, err
		}
		if total(v.Duration.Classic[:]) == total(v.Duration.Native[:]) {
			return &v, nil
		}
	}
	level(&v.Duration)
	return &v, nil
}

// level makes the two counts of a histogram agree by taking the statements that
// one of them has too many from its fullest buckets. It is only reached when
// statements are counted faster than memory is copied.
func level(h *queryCoreHistogram) {
	classic, native := total(h.Classic[:]), total(h.Native[:])
	for ; classic > native; classic-- {
		*fullest(h.Classic[:])--
	}
	for ; native > classic; native-- {
		*fullest(h.Native[:])--
	}
}

func fullest(counts []uint64) *uint64 {
	most := &counts[0]
	for i := range counts {
		if counts[i] > *most {
			most = &counts[i]
		}
	}
	return most
}

func total(counts []uint64) uint64 {
	var sum uint64
	for _, n := range counts {
		sum += n
	}
	return sum
}

// operation turns the counters of the kernel into histograms of Prometheus.
func operation(v *queryCoreOperationValue) Operation {
	h := &v.Duration
	op := Operation{
		Count:              total(h.Classic[:]),
		SumNanoseconds:     h.Sum,
		Classic:            append([]uint64(nil), h.Classic[:]...),
		Native:             map[int]uint64{},
		FirstByte:          distribution(&v.First),
		BlockedNanoseconds: v.Blocked,
		RequestBytes:       v.In,
		ResponseBytes:      v.Out,
		Rows:               v.Rows,
		Statements:         v.Statements,
	}
	for i, n := range h.Native {
		if n > 0 {
			op.Native[i+nativeLowest] = n
		}
	}
	return op
}

func distribution(d *queryCoreDistribution) Distribution {
	out := Distribution{Count: total(d.Coarse[:]), SumNanoseconds: d.Sum, Native: map[int]uint64{}}
	for i, n := range d.Coarse {
		if n > 0 {
			out.Native[i+coarseLowest] = n
		}
	}
	return out
}

// Lost returns how often something was not counted as it should be, by reason,
// since the timer was opened:
//
//	connections_full  a connection was not followed, its statements are missing
//	operations_full   a statement was not counted for lack of a histogram
//	pids_full         a new process was not followed
//	unresolved        a statement prepared before it was watched counts as "other"
//	unreadable        a request's first bytes could not be read, it is missing
//	tls_unseen        a MySQL connection is encrypted and cannot be followed
//	digests_full      a statement was not counted under a digest
//	errors_full       an error was not counted under its code
//	texts, records, sessions
//	                  an event of that kind found the ring full
//	budget            an event was not made: its server had its share of the second
//	aborted           a connection closed before the reply was complete
//	preempted         a text was not read: another program took its place
//
// All reasons are in the map, also those with zero.
func (s *Statements) Lost() (map[string]uint64, error) {
	lost := map[string]uint64{}
	for number, name := range lossNames() {
		var perCPU []uint64
		if err := s.coll.Maps["losses"].Lookup(uint32(number), &perCPU); err != nil {
			return nil, fmt.Errorf("read losses %s: %w", name, err)
		}
		lost[name] = total(perCPU)
	}
	return lost, nil
}
