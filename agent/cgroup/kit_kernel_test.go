//go:build kernel || kernelv1

package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// eventually is how long tests wait for the kernel; the VM is slow.
const (
	eventually = 20 * time.Second
	often      = 50 * time.Millisecond
)

const mib = int64(1) << 20

// TestMain turns the test binary into the process that is put into cgroups
// when it is asked to be one.
func TestMain(m *testing.M) {
	if size := os.Getenv("MOORING_TEST_INHABITANT"); size != "" {
		inhabit(size)
		return
	}
	os.Exit(m.Run())
}

// inhabit waits to be let in, touches memory, says so, and then spins until
// its input ends.
func inhabit(size string) {
	n, err := strconv.Atoi(size)
	if err != nil {
		panic(err)
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return
	}
	memory, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	fmt.Println("ready")
	go func() {
		_, _ = io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	for i := 0; ; i++ {
		memory[i%len(memory)]++
	}
}

// startIn starts a process that holds some memory and uses CPU in the cgroups
// whose directories are given.
func startIn(t *testing.T, sizeMiB int, dirs ...string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "MOORING_TEST_INHABITANT="+strconv.Itoa(sizeMiB), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, dir := range dirs {
		put(t, filepath.Join(dir, "cgroup.procs"), strconv.Itoa(cmd.Process.Pid))
	}
	_, err = io.WriteString(in, "go\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return cmd.Process.Pid
}

// makeDir makes a cgroup that is removed when the test ends.
func makeDir(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		require.Eventually(t, func() bool {
			err := unix.Rmdir(dir)
			return err == nil || errors.Is(err, unix.ENOENT)
		}, eventually, often, "remove %s", dir)
	})
}

func put(t *testing.T, file, value string) {
	t.Helper()
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err, file)
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value+"\n"))
	require.NoError(t, err, "write %q to %s", value, file)
}

func get(t *testing.T, elements ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elements...))
	require.NoError(t, err)
	return strings.TrimSuffix(string(b), "\n")
}

// apply prepares and applies changes as the executor does, and returns them
// with their pre-images.
func apply(t *testing.T, class change.Class, files ...change.FileChange) []change.Change {
	t.Helper()
	changes := make([]change.Change, len(files))
	for i := range files {
		changes[i] = change.Change{Class: class, File: &files[i]}
		require.NoError(t, Files{}.Prepare(&changes[i]))
		require.NoError(t, Files{}.Apply(changes[i]))
	}
	return changes
}

func revert(t *testing.T, changes []change.Change) {
	t.Helper()
	for i := len(changes) - 1; i >= 0; i-- {
		require.NoError(t, Files{}.Revert(changes[i]))
		require.NoError(t, Files{}.Revert(changes[i]), "a second time")
	}
}

// usageGrows says whether the cgroup uses CPU time over a moment.
func usageGrows(t *testing.T, g *Group) bool {
	t.Helper()
	before, err := g.Stat()
	require.NoError(t, err)
	deadline := time.Now().Add(500 * time.Millisecond)
	for time.Now().Before(deadline) {
		time.Sleep(often)
	}
	after, err := g.Stat()
	require.NoError(t, err)
	return after.CPUUsage-before.CPUUsage > 20*time.Millisecond
}

func pointer(n int64) *int64 { return &n }

// nodeShare returns the share of the cgroup's memory that lies on a node.
func nodeShare(s Stat, node int) float64 {
	var sum int64
	for _, b := range s.NodeBytes {
		sum += b
	}
	if sum == 0 {
		return 0
	}
	return float64(s.NodeBytes[node]) / float64(sum)
}
