package pods

const (
	// firstSweep bounds the descriptors read by a scanner's first scan, which
	// has every listener of the node to find the owner of.
	firstSweep = 1 << 16
	// laterSweep bounds the descriptors read by each scan after it.
	laterSweep = 1 << 12
)

// sweep is the search for the owners of listening sockets that belong to no
// known server. It goes through the processes in the order of their pids, reads
// a bounded number of descriptors per scan and goes on there in the next one.
type sweep struct {
	// limit bounds the next scan, later those after it.
	limit, later int
	// owners holds the process that was found to hold a socket.
	owners map[uint64]int
	// next is the first process the next scan looks at.
	next int
}

// unknownListeners returns the number of processes, other than the agent, that
// hold a listening TCP socket no known server holds. Of the processes that
// share a socket, as workers do with the one they were forked from, one counts.
func (v *view) unknownListeners() int {
	netns := v.networkNamespaces()
	pending := v.unownedSockets()
	v.findOwners(pending, netns, v.sweep.limit)
	v.sweep.limit = v.sweep.later
	self := v.proc.self()
	owners := make(map[int]bool)
	for _, pid := range v.sweep.owners {
		if pid != self {
			owners[pid] = true
		}
	}
	return len(owners)
}

// networkNamespaces returns the namespace of each process and reads the
// listening sockets of each namespace.
func (v *view) networkNamespaces() map[int]uint64 {
	out := make(map[int]uint64, len(v.processes))
	for _, p := range v.processes {
		id, err := v.proc.netns(p.pid)
		if err != nil {
			continue
		}
		if _, err := v.listenersIn(id, p.pid); err == nil {
			out[p.pid] = id
		}
	}
	return out
}

// unownedSockets forgets the owners that are gone and returns the sockets whose
// owner is not known, with their number by network namespace.
func (v *view) unownedSockets() map[uint64]uint64 {
	alive := make(map[int]bool, len(v.processes))
	for _, p := range v.processes {
		alive[p.pid] = true
	}
	ours := make(map[uint64]bool)
	for _, srv := range v.servers {
		for _, inode := range srv.sockets {
			ours[inode] = true
		}
	}
	pending := make(map[uint64]uint64)
	owners := make(map[uint64]int)
	for netns, l := range v.listening {
		for _, inode := range l.inodes {
			pid, ok := v.sweep.owners[inode]
			switch {
			case ours[inode]:
			case ok && alive[pid]:
				owners[inode] = pid
			default:
				pending[inode] = netns
			}
		}
	}
	v.sweep.owners = owners
	return pending
}

// findOwners looks for the holders of the pending sockets.
func (v *view) findOwners(pending map[uint64]uint64, netns map[int]uint64, limit int) {
	inNetNS := make(map[uint64]int)
	for _, id := range pending {
		inNetNS[id]++
	}
	begin := 0
	for begin < len(v.processes) && v.processes[begin].pid < v.sweep.next {
		begin++
	}
	for i := range v.processes {
		if len(pending) == 0 || v.ctx.Err() != nil {
			return
		}
		p := v.processes[(begin+i)%len(v.processes)]
		v.sweep.next = p.pid
		if limit <= 0 {
			return
		}
		if inNetNS[netns[p.pid]] == 0 {
			continue
		}
		// One process is read to its end even where it has more descriptors
		// than are left: it would else be begun again for ever.
		read, _, err := v.proc.sockets(p.pid, maxDescriptors, func(inode uint64) {
			if id, ok := pending[inode]; ok {
				v.sweep.owners[inode] = p.pid
				delete(pending, inode)
				inNetNS[id]--
			}
		})
		if err == nil {
			limit -= read
		}
	}
	v.sweep.next = 0
}
