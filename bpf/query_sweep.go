package bpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// sweep drops from the kernel's maps what belongs to no server or process any
// more.
func (s *Statements) sweep() error {
	live := map[uint32]bool{}
	byPID := map[uint32]bool{}
	for _, server := range s.servers {
		live[server.slot] = true
		byPID[server.slot] = server.CgroupID == 0
	}
	ended := s.endedProcesses()
	errs := []error{
		drop(s.coll.Maps["pids"], func(pid uint32, v queryCoreServer) bool {
			return !byPID[v.Slot] || ended(pid)
		}),
		sweepKeys(s.coll.Maps["operations"], func(k queryCoreOperationKey) bool { return !live[k.Slot] }),
		sweepKeys(s.coll.Maps["digests"], func(k queryCoreDigestKey) bool { return !live[k.Slot] }),
		sweepKeys(s.coll.Maps["transactions"], func(k queryCoreDigestKey) bool { return !live[k.Slot] }),
		sweepKeys(s.coll.Maps["errors"], func(k queryCoreErrorKey) bool { return !live[k.Slot] }),
	}
	if s.mode == ModeTracepoint {
		// By socket, its close has seen to it; by process and descriptor, nobody has.
		errs = append(errs, drop(s.coll.Maps["connections"], func(key uint64, v queryCoreConnection) bool {
			if live[v.Slot] && !ended(uint32(key>>32)) && s.proc.isSocket(int(key>>32), int(uint32(key)), v.Socket) {
				return false
			}
			// The descriptor may be another connection's since.
			var now queryCoreConnection
			if err := s.coll.Maps["connections"].Lookup(&key, &now); err != nil || now.Socket != v.Socket || now.Started != v.Started {
				return false
			}
			s.logout(key, &v)
			return true
		}))
	}
	return errors.Join(errs...)
}

// logout tells ReadEvents of a connection whose process has ended. While nobody
// reads, logouts beyond maxLogouts are dropped.
func (s *Statements) logout(key uint64, c *queryCoreConnection) {
	id, ok := s.ids[c.Slot]
	if !ok || c.Flags&(connIgnored|connStream) == connIgnored {
		return
	}
	select {
	case s.logouts <- Session{ID: id, Connection: key, Event: SessionLogout, At: time.Now()}:
	default:
	}
}

// endedProcesses returns a test that asks for each process once.
func (s *Statements) endedProcesses() func(uint32) bool {
	asked := map[uint32]bool{}
	return func(pid uint32) bool {
		ended, ok := asked[pid]
		if !ok {
			ended = !s.proc.alive(int(pid))
			asked[pid] = ended
		}
		return ended
	}
}

// drop deletes the entries for which gone holds.
func drop[K comparable, V any](m *ebpf.Map, gone func(K, V) bool) error {
	all, err := contents[K, V](m)
	if err != nil {
		return err
	}
	for k, v := range all {
		if !gone(k, v) {
			continue
		}
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", m, err)
		}
	}
	return nil
}

// sweepKeys deletes the entries of servers that are gone. It walks the keys only:
// a value may be large. A statement that ends while its server is being forgotten
// may leave a counter, which the next sweep takes.
func sweepKeys[K comparable](m *ebpf.Map, gone func(K) bool) error {
	var found []K
	var key K
	err := m.NextKey(nil, &key)
	// The map holds a bounded number of keys, but deletions may start a walk anew.
	for range m.MaxEntries() {
		if err != nil {
			break
		}
		if gone(key) {
			found = append(found, key)
		}
		previous := key
		err = m.NextKey(&previous, &key)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("walk %s: %w", m, err)
	}
	for _, key := range found {
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", m, err)
		}
	}
	return nil
}
