package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// Members of query_settings.follow.
const (
	followCgroups = 1
	followPIDs    = 2
	followReads   = 4
)

// Members of connection.flags.
const (
	connIgnored = 0x0001
	connServer  = 0x0002
	connStream  = 0x0004
	connOpen    = 0x0010
)

// Values of connection.phase.
const (
	phaseIdle    = 0
	phaseRequest = 1
)

// maxServers is SERVERS of query.h. Half of the places are kept free, so that one
// is found for each new server while those it replaces still count.
const maxServers = 1024

// Set makes the given servers the watched ones. It is meant to be called every
// few seconds with the full list: a server that stays keeps its counters, one
// that is new begins with none, one that is gone is forgotten with its
// counters. A server whose protocol has changed is another one.
//
// A call also drops what the kernel could not: processes and connections that
// ended unseen. After an error some servers may be watched and others not; the
// next call makes up for it.
func (s *Statements) Set(w []Watched) error {
	if err := checkWatched(w); err != nil {
		return fmt.Errorf("set watched servers: %w", err)
	}
	next, fresh := s.plan(w)
	s.mu.Lock()
	previous := s.servers
	s.servers = next
	s.ids = make(map[uint32]string, len(next))
	for id, server := range next {
		s.ids[server.slot] = id
	}
	s.mu.Unlock()
	err := errors.Join(s.apply(previous, fresh), s.sweep())
	if err != nil {
		return fmt.Errorf("set watched servers: %w", err)
	}
	return nil
}

// checkWatched refuses lists that cannot be told apart in the kernel.
func checkWatched(w []Watched) error {
	ids, cgroups, pids := map[string]bool{}, map[uint64]string{}, map[int]string{}
	if len(w) > maxServers/2 {
		return fmt.Errorf("%d servers, %d at most can be watched", len(w), maxServers/2)
	}
	for _, server := range w {
		if server.ID == "" || ids[server.ID] {
			return fmt.Errorf("server %q is unnamed or named twice", server.ID)
		}
		ids[server.ID] = true
		if server.Protocol < ProtocolPostgres || server.Protocol > ProtocolMongo {
			return fmt.Errorf("server %q: protocol %d is unknown", server.ID, server.Protocol)
		}
		if server.CgroupID != 0 {
			if other, ok := cgroups[server.CgroupID]; ok {
				return fmt.Errorf("servers %q and %q have the same cgroup %d: watch them by their processes", other, server.ID, server.CgroupID)
			}
			cgroups[server.CgroupID] = server.ID
			continue
		}
		for _, pid := range server.PIDs {
			if other, ok := pids[pid]; ok && other != server.ID {
				return fmt.Errorf("servers %q and %q have the same process %d", other, server.ID, pid)
			}
			pids[pid] = server.ID
		}
	}
	return nil
}

// plan gives each server its slot: the one it had, or a new one. fresh holds
// the servers whose sockets have to be looked at.
func (s *Statements) plan(w []Watched) (next map[string]*served, fresh map[string]bool) {
	next, fresh = make(map[string]*served, len(w)), map[string]bool{}
	for _, server := range w {
		server.PIDs, server.Ports = slices.Clone(server.PIDs), slices.Clone(server.Ports)
		old, ok := s.servers[server.ID]
		if ok && old.Protocol == server.Protocol {
			next[server.ID] = &served{Watched: server, slot: old.slot, digests: old.digests}
			fresh[server.ID] = old.CgroupID != server.CgroupID || !sameSet(old.Ports, server.Ports)
			continue
		}
		next[server.ID] = &served{Watched: server, slot: s.nextSlot(next), digests: map[uint32]bool{}}
		fresh[server.ID] = true
	}
	return next, fresh
}

// nextSlot returns a slot never given before, whose place in the kernel's arrays
// is nobody's: neither of those watched until now nor of those in next.
func (s *Statements) nextSlot(next map[string]*served) uint32 {
	taken := map[uint32]bool{}
	for _, servers := range []map[string]*served{s.servers, next} {
		for _, server := range servers {
			taken[server.slot%maxServers] = true
		}
	}
	for s.slots++; taken[s.slots%maxServers]; s.slots++ {
	}
	return s.slots
}

// sameSet tells whether two lists name the same ports.
func sameSet(a, b []uint16) bool {
	return maps.Equal(portSet(a), portSet(b))
}

func portSet(ports []uint16) map[uint16]bool {
	set := make(map[uint16]bool, len(ports))
	for _, p := range ports {
		set[p] = true
	}
	return set
}

// apply brings the kernel's maps from the previous servers to the present ones.
// What a server is recognised by is written last, so that its connections are
// never judged by half of what is known of it.
func (s *Statements) apply(previous map[string]*served, fresh map[string]bool) error {
	var settings queryCoreQuerySettings
	cgroups, ports := map[uint64]queryCoreServer{}, map[queryCorePortKey]uint8{}
	for _, server := range s.servers {
		for _, port := range server.Ports {
			ports[queryCorePortKey{Slot: server.slot, Port: port}] = 1
			settings.Ports |= 1 << (port % 64)
		}
		if server.CgroupID != 0 {
			settings.Follow |= followCgroups
			cgroups[server.CgroupID] = server.value()
		} else {
			settings.Follow |= followPIDs
		}
		if server.Protocol.reads() {
			settings.Follow |= followReads
		}
	}
	errs := []error{
		s.writeRules(previous),
		syncMap(s.coll.Maps["ports"], ports),
		s.writeSettings(settings),
	}
	known, err := s.followed()
	errs = append(errs, err)
	before := s.markSockets(fresh, known, nil, &errs)
	errs = append(errs, syncMap(s.coll.Maps["cgroups"], cgroups), s.followProcesses(known))
	// Once more for what was opened between the look and the watch.
	s.markSockets(fresh, known, before, &errs)
	return errors.Join(errs...)
}

// writeRules writes what is wanted of each server, and for new ones makes the
// counters in their place begin at zero.
func (s *Statements) writeRules(previous map[string]*served) error {
	for id, server := range s.servers {
		place, rules := server.slot%maxServers, server.rules()
		if err := s.coll.Maps["rules"].Put(&place, &rules); err != nil {
			return fmt.Errorf("write rules of server %q: %w", id, err)
		}
		if old, ok := previous[id]; ok && old.slot == server.slot {
			continue
		}
		zero := queryCoreServerTraffic{Slot: server.slot}
		if err := s.coll.Maps["traffic"].Put(&place, &zero); err != nil {
			return fmt.Errorf("clear traffic of server %q: %w", id, err)
		}
	}
	return nil
}

// syncMap makes the contents of a map those wanted.
func syncMap[K, V comparable](m *ebpf.Map, wanted map[K]V) error {
	present, err := contents[K, V](m)
	if err != nil {
		return err
	}
	for k := range present {
		if _, ok := wanted[k]; ok {
			continue
		}
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", m, err)
		}
	}
	for k, v := range wanted {
		if old, ok := present[k]; ok && old == v {
			continue
		}
		if err := m.Put(&k, &v); err != nil {
			return fmt.Errorf("write to %s: %w", m, err)
		}
	}
	return nil
}

// contents reads a whole map. Entries that come or go meanwhile may be missing.
func contents[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	all := map[K]V{}
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		all[k] = v
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return all, nil
}

// followed returns the processes the kernel follows now, by slot.
func (s *Statements) followed() (map[uint32]queryCoreServer, error) {
	return contents[uint32, queryCoreServer](s.coll.Maps["pids"])
}

// followProcesses adds the processes of the servers without a cgroup of their
// own to those the kernel follows. known is what it followed before.
func (s *Statements) followProcesses(known map[uint32]queryCoreServer) error {
	m := s.coll.Maps["pids"]
	for _, server := range s.servers {
		if server.CgroupID != 0 {
			continue
		}
		for _, pid := range server.PIDs {
			key, value := uint32(pid), server.value()
			if known[key] == value {
				continue
			}
			if err := m.Put(&key, &value); err != nil {
				return fmt.Errorf("follow process %d of server %q: %w", pid, server.ID, err)
			}
			// It may have ended before we wrote, and its exit taken nothing away.
			if s.proc.alive(pid) {
				continue
			}
			if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("forget process %d of server %q: %w", pid, server.ID, err)
			}
		}
	}
	return nil
}

// descriptor names an open file of a process.
type descriptor struct{ pid, fd int }

// markSockets tells the kernel which side of its sockets a process is on that
// was not watched when it opened them. Only the tracepoint of system calls needs
// to be told, for the others see the socket. It returns the roles it found; those
// it is given are not written again.
func (s *Statements) markSockets(fresh map[string]bool, known map[uint32]queryCoreServer,
	before map[descriptor]bool, errs *[]error) map[descriptor]bool {
	if !s.syscalls {
		return nil
	}
	found := map[descriptor]bool{}
	tables := newSocketTables(s.proc)
	for _, server := range s.servers {
		for _, pid := range server.PIDs {
			_, followed := known[uint32(pid)]
			if !fresh[server.ID] && (server.CgroupID != 0 || followed) {
				continue
			}
			roles, err := tables.roles(pid, portSet(server.Ports))
			if err != nil {
				*errs = append(*errs, err)
				continue
			}
			for fd, role := range roles {
				d := descriptor{pid, fd}
				found[d] = role
				if was, ok := before[d]; ok && was == role {
					continue
				}
				if err := s.markSocket(server, d, role); err != nil {
					*errs = append(*errs, err)
				}
			}
		}
	}
	return found
}

// markSocket writes the role of one descriptor, and leaves alone a connection
// that is in step already.
func (s *Statements) markSocket(server *served, d descriptor, serverSide bool) error {
	m := s.coll.Maps["connections"]
	key := uint64(d.pid)<<32 | uint64(uint32(d.fd))
	value := queryCoreConnection{Slot: server.slot, Protocol: uint8(server.Protocol), Flags: connIgnored}
	if serverSide {
		value.Flags = connServer
		var old queryCoreConnection
		if err := m.Lookup(&key, &old); err == nil && old.Slot == server.slot &&
			old.Flags&connIgnored == 0 && (old.Flags&connServer != 0 || !server.Protocol.reads()) {
			return nil
		}
	}
	if err := m.Put(&key, &value); err != nil {
		return fmt.Errorf("mark descriptor %d of process %d of server %q: %w", d.fd, d.pid, server.ID, err)
	}
	return nil
}
