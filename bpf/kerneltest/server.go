package kerneltest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startTimeout is for the slowest place, an emulated CPU.
const startTimeout = 2 * time.Minute

// Database is a running server.
type Database struct {
	// Port is its TCP port on 127.0.0.1.
	Port uint16
	// Socket is the path of its Unix socket.
	Socket string
	// Cgroup holds all its processes and no others.
	Cgroup string
}

// Address returns where to dial.
func (d *Database) Address() string { return fmt.Sprintf("127.0.0.1:%d", d.Port) }

// Dir returns an empty folder for a server's data, on the test machine's
// scratch disk if there is one.
func Dir(t testing.TB) string {
	t.Helper()
	// Not t.TempDir: servers run as users who may not enter it.
	parent := os.TempDir()
	if _, err := os.Stat("/scratch"); err == nil {
		parent = "/scratch"
	}
	dir, err := os.MkdirTemp(parent, "kerneltest-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// Port returns a TCP port that was free a moment ago.
func Port(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// Run runs a client program to its end and returns what it wrote. Its failure
// is the test's.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return run(t, nil, name, args...)
}

func run(t testing.TB, as *syscall.Credential, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "LC_ALL=C")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %q:\n%s", name, args, out)
	return string(out)
}

// credential returns a user's ids. The server packages make the users.
func credential(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	require.NoError(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	require.NoError(t, err)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// ownedDir makes a folder that belongs to a user.
func ownedDir(t testing.TB, path string, owner *syscall.Credential) {
	t.Helper()
	require.NoError(t, os.Mkdir(path, 0o700))
	require.NoError(t, os.Chown(path, int(owner.Uid), int(owner.Gid)))
}

// start runs a server in a cgroup until the test ends, and returns once it
// accepts connections on its port.
func start(t testing.TB, d *Database, as *syscall.Credential, name string, args ...string) {
	t.Helper()
	group, err := os.Open(d.Cgroup)
	require.NoError(t, err)
	defer group.Close()
	var log bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: as, Pdeathsig: syscall.SIGQUIT, UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends does not matter, that it runs does
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // it may have ended
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		// No child of it may outlive the test.
		_ = os.WriteFile(filepath.Join(d.Cgroup, "cgroup.kill"), []byte("1"), 0)
	})
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(50 * time.Millisecond) {
		select {
		case <-ended:
			require.FailNow(t, "server ended", "%s %q:\n%s", name, args, log.String())
		default:
		}
		conn, err := net.Dial("tcp4", d.Address())
		if err == nil {
			require.NoError(t, conn.Close())
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(t, "server does not listen", "%s: %v", name, err)
		}
	}
}
