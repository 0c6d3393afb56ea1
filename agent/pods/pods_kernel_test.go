//go:build kernel

package pods

import (
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

const cgroupMount = "/sys/fs/cgroup"

// realServer is a server to start.
type realServer struct {
	user   string
	args   []string
	ownNet bool
}

// start runs a server in a cgroup of its own until the test ends and returns
// its first process.
func (s realServer) start(t *testing.T, cgroup string) int {
	t.Helper()
	dir := filepath.Join(cgroupMount, cgroup)
	require.NoError(t, os.Mkdir(dir, 0o755))
	fd, err := os.Open(dir)
	require.NoError(t, err)
	defer fd.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(fd.Fd()), Credential: credential(t, s.user), Setpgid: true,
	}
	if s.ownNet {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		// Its children go too, one by one: cgroup.kill is Linux 5.14.
		require.Eventually(t, func() bool {
			procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			require.NoError(t, err)
			for _, p := range strings.Fields(string(procs)) {
				pid, err := strconv.Atoi(p)
				require.NoError(t, err)
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
			return os.Remove(dir) == nil
		}, 30*time.Second, 50*time.Millisecond)
	})
	return cmd.Process.Pid
}

func credential(t *testing.T, name string) *syscall.Credential {
	u, err := user.Lookup(name)
	require.NoError(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	require.NoError(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// ownedDir makes an empty directory that belongs to a user.
func ownedDir(t *testing.T, path, name string) {
	c := credential(t, name)
	require.NoError(t, os.MkdirAll(path, 0o700))
	require.NoError(t, os.Chown(path, int(c.Uid), int(c.Gid)))
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: credential(t, name)}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// addVeth puts one end of a new veth into a process's network namespace and
// returns the index of the other.
func addVeth(t *testing.T, name string, pid int) int {
	t.Helper()
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}))
	outer, err := netlink.LinkByName(name)
	require.NoError(t, err)
	inner, err := netlink.LinkByName(name + "p")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetNsPid(inner, pid))
	t.Cleanup(func() {
		if link, err := netlink.LinkByName(name); err == nil {
			require.NoError(t, netlink.LinkDel(link))
		}
	})
	return outer.Attrs().Index
}

// instanceIn waits for the instance of a cgroup.
func instanceIn(t *testing.T, s *Standalone, cgroup string) state.Instance {
	t.Helper()
	var found state.Instance
	require.Eventually(t, func() bool {
		r, err := s.Instances(t.Context())
		require.NoError(t, err)
		for _, in := range r.Instances {
			if in.Cgroup.Path == "/"+cgroup && len(in.Ports) > 0 {
				found = in
				return true
			}
		}
		return false
	}, 2*time.Minute, 200*time.Millisecond)
	return found
}

func TestRealServersAreFound(t *testing.T) {
	s := NewStandalone(Options{})
	var scratch, cgroup unix.Stat_t
	require.NoError(t, unix.Stat("/scratch", &scratch))
	device := state.Device{Major: unix.Major(scratch.Dev), Minor: unix.Minor(scratch.Dev)}

	t.Run("PostgreSQL in a network namespace of its own", func(t *testing.T) {
		bin, data := "/usr/lib/postgresql/15/bin/", "/scratch/pg"
		ownedDir(t, data, "postgres")
		command(t, "postgres", bin+"initdb", "--no-sync", "-D", data, "-A", "trust")
		pid := realServer{user: "postgres", ownNet: true, args: []string{bin + "postgres", "-D", data, "-p", "5433",
			"-c", "listen_addresses=0.0.0.0", "-c", "unix_socket_directories=" + data}}.start(t, "pods-pg")
		index := addVeth(t, "pg0", pid)
		in := instanceIn(t, s, "pods-pg")
		require.NoError(t, unix.Stat(filepath.Join(cgroupMount, "pods-pg"), &cgroup))
		require.Equal(t, state.Cgroup{Version: 2, Path: "/pods-pg", ID: cgroup.Ino}, in.Cgroup)
		require.Equal(t, []any{"/pods-pg", "pods-pg", state.PostgreSQL, pid, []uint16{5433}, data, device, false, index},
			[]any{in.ID, in.Name, in.Engine, in.MainPID, in.Ports, in.DataDir, in.DataDevice, in.HostNetwork, in.HostLink})
		require.Eventually(t, func() bool { return len(instanceIn(t, s, "pods-pg").PIDs) > 3 }, time.Minute, 200*time.Millisecond,
			"the postmaster's children are the instance's")
	})

	t.Run("MariaDB under a shell, with its links coming and going", func(t *testing.T) {
		data := "/scratch/my"
		ownedDir(t, data, "mysql")
		command(t, "mysql", "mariadb-install-db", "--no-defaults", "--datadir="+data, "--skip-test-db")
		shell := realServer{user: "mysql", ownNet: true, args: []string{"/bin/sh", "-c",
			"mariadbd --no-defaults --datadir=" + data + " --socket=" + data + "/sock --port=3307 --bind-address=0.0.0.0; exit $?"}}.start(t, "pods-my")
		in := instanceIn(t, s, "pods-my")
		require.Equal(t, state.MariaDB, in.Engine)
		require.Equal(t, []uint16{3307}, in.Ports)
		require.Equal(t, data, strings.TrimSuffix(in.DataDir, "/"))
		require.Equal(t, device, in.DataDevice)
		require.NotEqual(t, shell, in.MainPID)
		require.Equal(t, []int{shell, in.MainPID}, in.PIDs)
		require.Empty(t, in.Cgroup.Shared)
		require.Zero(t, in.HostLink, "no veth yet")
		index := addVeth(t, "my0", in.MainPID)
		require.Equal(t, index, instanceIn(t, s, "pods-my").HostLink)
		addVeth(t, "my1", in.MainPID)
		require.Zero(t, instanceIn(t, s, "pods-my").HostLink, "which of two is not known")
	})

	t.Run("Redis in the host's network, whose program has another name", func(t *testing.T) {
		ownedDir(t, "/scratch/redis", "redis")
		realServer{user: "redis", args: []string{"/usr/bin/redis-server", "--port", "6380", "--dir", "/scratch/redis", "--save", ""}}.start(t, "pods-redis")
		in := instanceIn(t, s, "pods-redis")
		require.Equal(t, state.Redis, in.Engine)
		require.Equal(t, []uint16{6380}, in.Ports)
		require.True(t, in.HostNetwork)
		require.Zero(t, in.HostLink)
		require.Empty(t, in.Cgroup.Shared)
	})
}

func TestALinkBetweenTwoPodsIsNoHostLink(t *testing.T) {
	sleep := realServer{user: "root", ownNet: true, args: []string{"/bin/sleep", "600"}}
	one, two := sleep.start(t, "pods-one"), sleep.start(t, "pods-two")
	addVeth(t, "between", one)
	outer, err := netlink.LinkByName("between")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetNsPid(outer, two))
	// The host has a veth too at the index the link's peer has in the other pod.
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "decoy", Index: outer.Attrs().Index}, PeerName: "decoyp"}))
	t.Cleanup(func() {
		link, err := netlink.LinkByName("decoy")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkDel(link))
	})
	before, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	for range 20 {
		for _, pid := range []int{one, two} {
			index, err := NewStandalone(Options{}).scanner.opts.PeerLink(pid)
			require.NoError(t, err)
			require.Zero(t, index)
		}
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	require.NoError(t, err)
	for _, task := range append(tasks, "/proc/self/ns/net") {
		if now, err := os.Readlink(task); err == nil {
			require.Equal(t, before, now, "no thread stays in a pod's namespace")
		}
	}
}

func TestAnUnknownListenerIsCountedAndNotListed(t *testing.T) {
	count := func() int {
		r, err := NewStandalone(Options{}).Instances(t.Context())
		require.NoError(t, err)
		require.Empty(t, r.Instances)
		return r.UnknownListeners
	}
	before := count()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	require.Equal(t, before, count(), "the agent's own listener is not counted")

	file, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	cmd := exec.Command("/bin/sleep", "600")
	cmd.ExtraFiles = []*os.File{file}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	})
	require.NoError(t, file.Close())
	require.NoError(t, l.Close())
	require.Equal(t, before+1, count())
}
