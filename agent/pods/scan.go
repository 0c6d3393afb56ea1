package pods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/mooring-dev/mooring/agent/state"
)

// maxDescriptors bounds what is read of one server's descriptors. Linux allows
// a process at most fs.nr_open of them, by default 1,048,576.
const maxDescriptors = 1 << 20

// scanner looks for servers. It remembers between scans only what saves work.
type scanner struct {
	opts Options
	proc procFS
	// byExecutable is the table of engines by base name of the executable.
	byExecutable map[string]engine

	mu sync.Mutex
	// known holds what a server listened on when it was last looked at.
	known map[int]knownServer
	sweep sweep
}

// knownServer is the sockets of one server, right as long as the process and
// the listening sockets of its network namespace are the same.
type knownServer struct {
	start   uint64
	netns   uint64
	inodes  []uint64 // of all listeners in the namespace
	sockets []uint64 // of those, the server's own
}

// server is a process of a known engine that listens.
type server struct {
	pid        int
	executable string
	engine     state.Engine
	netns      uint64
	// sockets are the inodes of its listening TCP sockets.
	sockets []uint64
	ports   []uint16
	cgroup  state.Cgroup
}

// userProcess is a process with an executable.
type userProcess struct {
	pid        int
	executable string
}

// view is what one scan saw.
type view struct {
	*scanner
	ctx       context.Context
	groups    hierarchy
	hostNetNS uint64
	processes []userProcess
	servers   []server
	listening map[uint64]*listeners
	stats     map[int]procStat
	links     map[uint64]int
	problems  []string
}

func newScanner(o Options) *scanner {
	s := &scanner{
		opts: o.withDefaults(), byExecutable: make(map[string]engine), known: make(map[int]knownServer),
		sweep: sweep{limit: firstSweep, later: laterSweep},
	}
	s.proc = procFS{root: s.opts.ProcRoot}
	for _, e := range engines() {
		for _, name := range e.executables {
			s.byExecutable[name] = e
		}
	}
	return s
}

// scan finds the servers. The caller holds the lock until it is done with the
// view.
func (s *scanner) scan(ctx context.Context) (*view, error) {
	v := &view{
		scanner: s, ctx: s.proc.context(ctx),
		listening: make(map[uint64]*listeners), stats: make(map[int]procStat), links: make(map[uint64]int),
	}
	var err error
	if v.groups, err = readHierarchy(s.opts.CgroupRoot); err != nil {
		return nil, err
	}
	if v.hostNetNS, err = s.proc.netns(s.opts.HostPID); err != nil {
		return nil, fmt.Errorf("read the host's network namespace from process %d (the agent needs root, CAP_SYS_PTRACE and the host's pid namespace): %w", s.opts.HostPID, err)
	}
	if err := v.readProcesses(); err != nil {
		return nil, err
	}
	if err := v.findServers(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *view) readProcesses() error {
	pids, err := v.proc.pids(v.ctx)
	if err != nil {
		return err
	}
	denied := 0
	for _, pid := range pids {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		name, err := v.proc.executable(v.ctx, pid)
		if errors.Is(err, fs.ErrPermission) {
			denied++
		}
		if err == nil {
			v.processes = append(v.processes, userProcess{pid: pid, executable: name})
		}
	}
	if denied > 0 {
		v.problemf("%d of %d processes may be databases and could not be looked at: the agent needs root and CAP_SYS_PTRACE", denied, len(pids))
	}
	return nil
}

func (v *view) problemf(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

// findServers looks at the processes of known engines. A server's children run
// its executable too; the first process is the one whose parent does not.
func (v *view) findServers() error {
	engineOf := make(map[int]state.Engine)
	for _, p := range v.processes {
		if e, ok := v.byExecutable[p.executable]; ok {
			engineOf[p.pid] = e.name
		}
	}
	seen := make(map[int]knownServer)
	for _, p := range v.processes {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		name, ok := engineOf[p.pid]
		if !ok {
			continue
		}
		st, err := v.stat(p.pid)
		if err != nil || engineOf[st.parent] == name {
			continue
		}
		srv, known, err := v.inspect(p, st)
		switch {
		case err != nil && !vanished(err):
			v.problemf("process %d (%s): %v", p.pid, p.executable, err)
		case err == nil && srv != nil:
			v.servers = append(v.servers, *srv)
			seen[p.pid] = known
		}
	}
	v.known = seen
	return nil
}

// stat returns the stat line of a process as first read in this scan.
func (v *view) stat(pid int) (procStat, error) {
	if st, ok := v.stats[pid]; ok {
		return st, nil
	}
	st, err := v.proc.stat(pid)
	if err == nil {
		v.stats[pid] = st
	}
	return st, err
}

// inspect returns the server a process is, nil when it does not listen or is
// something else with the same executable.
func (v *view) inspect(p userProcess, st procStat) (*server, knownServer, error) {
	e := v.byExecutable[p.executable]
	if e.notServer != nil {
		args, err := v.proc.args(v.ctx, p.pid)
		if err != nil || e.notServer(args) {
			return nil, knownServer{}, err
		}
	}
	srv := &server{pid: p.pid, executable: p.executable, engine: e.name}
	var err error
	if srv.netns, err = v.proc.netns(p.pid); err != nil {
		return nil, knownServer{}, err
	}
	known, err := v.ownListeners(p.pid, st.start, srv.netns)
	if err != nil {
		return nil, knownServer{}, err
	}
	srv.sockets = known.sockets
	for _, inode := range known.sockets {
		srv.ports = append(srv.ports, v.listening[srv.netns].ports[inode])
	}
	slices.Sort(srv.ports)
	srv.ports = slices.Compact(srv.ports)
	if len(srv.ports) == 0 {
		if local, err := v.listensLocally(p.pid); err != nil || !local {
			return nil, knownServer{}, err
		}
	}
	data, err := os.ReadFile(v.proc.path(p.pid, "cgroup"))
	if err != nil {
		return nil, knownServer{}, err
	}
	m, err := parseMembership(data)
	if err != nil {
		return nil, knownServer{}, err
	}
	srv.cgroup, err = v.groups.resolve(m)
	return srv, known, err
}

// ownListeners returns the listening TCP sockets of a process. A server may
// hold ten thousand connections, so its descriptors are read again only when
// the listening sockets of its network namespace are others than last time.
func (v *view) ownListeners(pid int, start, netns uint64) (knownServer, error) {
	all, err := v.listenersIn(netns, pid)
	if err != nil {
		return knownServer{}, err
	}
	last, ok := v.known[pid]
	if ok && last.start == start && last.netns == netns && slices.Equal(last.inodes, all.inodes) {
		return last, nil
	}
	now := knownServer{start: start, netns: netns, inodes: all.inodes}
	_, complete, err := v.proc.sockets(pid, maxDescriptors, func(inode uint64) {
		if _, ok := all.ports[inode]; ok {
			now.sockets = append(now.sockets, inode)
		}
	})
	if err == nil && !complete {
		err = fmt.Errorf("has more than %d descriptors", maxDescriptors)
	}
	slices.Sort(now.sockets)
	now.sockets = slices.Compact(now.sockets)
	return now, err
}

// listenersIn returns the listening sockets of a network namespace, read once
// per scan through one of its processes.
func (v *view) listenersIn(netns uint64, pid int) (*listeners, error) {
	if l, ok := v.listening[netns]; ok {
		return l, nil
	}
	l, err := v.proc.tcpListeners(pid)
	if err == nil {
		v.listening[netns] = l
	}
	return l, err
}

// listensLocally reports whether a process holds a listening unix socket.
func (v *view) listensLocally(pid int) (bool, error) {
	all, err := v.proc.unixListeners(pid)
	if err != nil {
		return false, err
	}
	found := false
	_, _, err = v.proc.sockets(pid, maxDescriptors, func(inode uint64) { found = found || all[inode] })
	return found, err
}

// link returns the host's end of the network namespace's veth.
func (v *view) link(srv server) int {
	if srv.netns == v.hostNetNS {
		return 0
	}
	index, ok := v.links[srv.netns]
	if !ok {
		var err error
		index, err = v.opts.PeerLink(srv.pid)
		if err != nil && !vanished(err) {
			v.problemf("process %d (%s): find its network link: %v", srv.pid, srv.executable, err)
		}
		v.links[srv.netns] = index
	}
	return index
}
