package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	hostNS = 4026531840
	podNS  = 4026532222
)

// fakeProcess is one process of a fakeNode.
type fakeProcess struct {
	pid, parent int
	exe         string // "" is a kernel thread
	args        []string
	// group is the path in every hierarchy, unless groups has another for a
	// version 1 controller.
	group  string
	groups map[string]string
	netns  uint64
	// tcp are the listening sockets the process holds, inode to port; inherited
	// and local are inodes of TCP and unix listeners it holds besides.
	tcp       map[uint64]uint16
	inherited []uint64
	local     []uint64
	start     int // start time in ticks; 0 means some time of its own
	// mounts is /proc/PID/mountinfo.
	mounts string
	// plain is a number of descriptors that are no sockets.
	plain int
}

// fakeNode writes a /proc and a cgroup tree.
type fakeNode struct {
	tb        testing.TB
	dir       string
	data      string // what every process's cwd points to
	layout    string // "v2", "v1", "hybrid"
	processes []fakeProcess
	// dirs are cgroups without processes.
	dirs  []string
	links map[int]int // Options.PeerLink by pid
}

func newFakeNode(tb testing.TB, layout string) *fakeNode {
	n := &fakeNode{tb: tb, dir: tb.TempDir(), layout: layout, links: make(map[int]int)}
	n.data = filepath.Join(n.dir, "data")
	require.NoError(tb, os.MkdirAll(n.data, 0o755))
	n.add(fakeProcess{pid: 1, exe: "/usr/lib/systemd/systemd", group: "/init.scope"})
	return n
}

func (n *fakeNode) add(ps ...fakeProcess) *fakeNode {
	for _, p := range ps {
		if p.netns == 0 {
			p.netns = hostNS
		}
		n.processes = append(n.processes, p)
	}
	return n
}

func (n *fakeNode) remove(pid int) {
	n.processes = slices.DeleteFunc(n.processes, func(p fakeProcess) bool { return p.pid == pid })
	require.NoError(n.tb, os.RemoveAll(filepath.Join(n.dir, "proc", strconv.Itoa(pid))))
}

func (n *fakeNode) options() Options {
	n.build()
	return Options{
		ProcRoot: filepath.Join(n.dir, "proc"), CgroupRoot: filepath.Join(n.dir, "cgroup"),
		PeerLink: func(pid int) (int, error) { return n.links[pid], nil },
	}
}

func (n *fakeNode) write(name, text string) {
	path := filepath.Join(n.dir, name)
	require.NoError(n.tb, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(n.tb, os.WriteFile(path, []byte(text), 0o644))
}

func (n *fakeNode) link(name, target string) {
	path := filepath.Join(n.dir, name)
	require.NoError(n.tb, os.MkdirAll(filepath.Dir(path), 0o755))
	os.Remove(path)
	require.NoError(n.tb, os.Symlink(target, path))
}

// build writes the trees, again after a change.
func (n *fakeNode) build() {
	require.NoError(n.tb, os.RemoveAll(filepath.Join(n.dir, "proc")))
	n.buildGroups()
	for _, p := range n.processes {
		n.buildProcess(p)
	}
}

func (n *fakeNode) controllers() []string {
	if n.layout == "v2" {
		return nil
	}
	return []string{"cpu", "cpuset", "memory", "freezer", "blkio"}
}

func (p fakeProcess) groupOf(controller string) string {
	if path, ok := p.groups[controller]; ok {
		return path
	}
	return p.group
}

func (n *fakeNode) buildGroups() {
	procs := make(map[string]string)
	for _, c := range n.controllers() {
		procs["cgroup/"+c] = ""
		for _, p := range n.processes {
			procs["cgroup/"+c+p.groupOf(c)] += strconv.Itoa(p.pid) + "\n"
		}
		for _, dir := range n.dirs {
			procs["cgroup/"+c+dir] += ""
		}
	}
	switch n.layout {
	case "v2":
		n.write("cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
		for _, p := range n.processes {
			procs["cgroup"+p.group] += strconv.Itoa(p.pid) + "\n"
		}
		for _, dir := range n.dirs {
			procs["cgroup"+dir] += ""
		}
	case "hybrid":
		n.write("cgroup/unified/cgroup.controllers", "\n")
	}
	for dir, text := range procs {
		n.write(dir+"/cgroup.procs", text)
	}
}

func (n *fakeNode) buildProcess(p fakeProcess) {
	dir := fmt.Sprintf("proc/%d/", p.pid)
	comm := "kthread"
	if p.exe != "" {
		comm = executableName(p.exe)
		n.link(dir+"exe", p.exe)
		n.link(dir+"cwd", n.data)
	}
	if p.start == 0 {
		p.start = 1000 + p.pid
	}
	n.write(dir+"stat", fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 100 200\n", p.pid, comm, p.parent, p.start))
	n.write(dir+"cmdline", strings.Join(p.args, "\x00")+"\x00")
	n.link(dir+"ns/net", fmt.Sprintf("net:[%d]", p.netns))
	var cgroup strings.Builder
	for i, c := range n.controllers() {
		fmt.Fprintf(&cgroup, "%d:%s:%s\n", i+2, c, p.groupOf(c))
	}
	if n.layout != "v1" {
		fmt.Fprintf(&cgroup, "0::%s\n", p.group)
	}
	n.write(dir+"cgroup", cgroup.String())
	n.write(dir+"mountinfo", p.mounts)
	n.buildSockets(dir, p)
	fd := 0
	next := func(target string) { n.link(dir+"fd/"+strconv.Itoa(fd), target); fd++ }
	next("/dev/null")
	for range p.plain {
		next("/dev/null")
	}
	next("socket:[77]") // not a listener
	for inode := range p.tcp {
		next(fmt.Sprintf("socket:[%d]", inode))
	}
	for _, inode := range slices.Concat(p.inherited, p.local) {
		next(fmt.Sprintf("socket:[%d]", inode))
	}
}

// buildSockets writes the tables of the process's network namespace.
func (n *fakeNode) buildSockets(dir string, p fakeProcess) {
	tcp := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	tcp6, local := tcp, "Num       RefCount Protocol Flags    Type St Inode Path\n"
	for _, other := range n.processes {
		if other.netns != p.netns {
			continue
		}
		for inode, port := range other.tcp {
			// Odd inodes are IPv6.
			if inode%2 == 1 {
				tcp6 += fmt.Sprintf("   0: 00000000000000000000000000000000:%04X 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 %d 1 0 100 0 0 10 0\n", port, inode)
			} else {
				tcp += fmt.Sprintf("   0: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 %d 1 0 100 0 0 10 0\n", port, inode)
			}
		}
		for _, inode := range other.local {
			local += fmt.Sprintf("0000000000000000: 00000002 00000000 00010000 0001 01 %d /run/server.sock\n", inode)
		}
	}
	tcp += "   9: 0100007F:9999 0100007F:1538 01 00000000:00000000 00:00000000 00000000   999        0 77 1 0 100 0 0 10 0\n"
	n.write(dir+"net/tcp", tcp)
	n.write(dir+"net/tcp6", tcp6)
	n.write(dir+"net/unix", local)
}

// postgres returns a postmaster in a cgroup.
func postgres(pid, parent int, group string, port uint16) fakeProcess {
	return fakeProcess{
		pid: pid, parent: parent, group: group, exe: "/usr/lib/postgresql/15/bin/postgres",
		tcp: map[uint64]uint16{uint64(pid)*10 + 1: port, uint64(pid)*10 + 2: port},
	}
}

// child returns a process that runs some program.
func child(pid, parent int, group, exe string) fakeProcess {
	return fakeProcess{pid: pid, parent: parent, group: group, exe: exe}
}

// ids returns the ids of a result.
func ids(r Result) []string {
	var out []string
	for _, in := range r.Instances {
		out = append(out, in.ID)
	}
	return out
}
