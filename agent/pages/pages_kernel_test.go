//go:build kernel

package pages

import (
	"maps"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const testBytes = 8 << 20

// TestMain lets the test binary be a process that wrote to shared memory and
// unmapped most of it again, as a forked backend that ended would leave it.
func TestMain(m *testing.M) {
	if os.Getenv("PAGES_HOLDER") == "" {
		// Automatic NUMA balancing would move pages back to where they are looked
		// at, while the test counts them.
		if err := os.WriteFile("/proc/sys/kernel/numa_balancing", []byte("0"), 0); err != nil {
			panic(err)
		}
		os.Exit(m.Run())
	}
	mem := share()
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
	// The pages stay in the segment, and leave this process's page tables.
	if err := unix.Madvise(mem, unix.MADV_DONTNEED); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("ready\n")
	time.Sleep(time.Hour)
}

func share() []byte {
	mem, err := unix.Mmap(-1, 0, testBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(err)
	}
	return mem
}

// holder starts one bound to the CPU of a node, so that its memory lies there.
func holder(t *testing.T, node int) int {
	t.Helper()
	cmd := exec.Command("taskset", "-c", strconv.Itoa(node), "/proc/self/exe")
	cmd.Path, cmd.Args[3] = "/usr/bin/taskset", os.Args[0]
	cmd.Env = append(os.Environ(), "PAGES_HOLDER=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	})
	_, err = out.Read(make([]byte, 8))
	require.NoError(t, err)
	return cmd.Process.Pid
}

func TestSharedMemoryThatNobodyHasMappedMoves(t *testing.T) {
	pid := holder(t, 0)
	moved := func(node int) int64 {
		left, err := Shared("/proc", []int{pid, pid}, node)
		require.NoError(t, err)
		return left
	}
	require.Zero(t, moved(1))
	require.Equal(t, map[int32]int{1: testBytes / os.Getpagesize()}, where(t, pid))
	require.Zero(t, moved(0))
	require.Equal(t, map[int32]int{0: testBytes / os.Getpagesize()}, where(t, pid))
}

func TestReservedPagesThatWereNeverUsedMove(t *testing.T) {
	fd, err := unix.MemfdCreate("reserved", 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "reserved")
	defer f.Close()
	require.NoError(t, unix.Fallocate(fd, 0, 0, testBytes))
	s := segment{file: "/proc/self/fd/" + strconv.Itoa(fd), length: testBytes}
	for _, node := range []int{1, 0} {
		left, err := s.move(node, false)
		require.NoError(t, err)
		require.Zero(t, left)
		require.Equal(t, map[int32]int{int32(node): testBytes / os.Getpagesize()}, pagesOf(t, f))
	}
}

// where counts the pages of pid's segment by node.
func where(t *testing.T, pid int) map[int32]int {
	t.Helper()
	found, err := segments("/proc/" + strconv.Itoa(pid))
	require.NoError(t, err)
	counts := map[int32]int{}
	for _, s := range found {
		if s.length != testBytes {
			continue
		}
		f, err := os.OpenFile(s.file, os.O_RDWR, 0)
		require.NoError(t, err)
		defer f.Close()
		maps.Copy(counts, pagesOf(t, f))
	}
	return counts
}

// pagesOf counts the pages of a file in memory by node.
func pagesOf(t *testing.T, f *os.File) map[int32]int {
	t.Helper()
	mem, err := unix.Mmap(int(f.Fd()), 0, testBytes, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(mem)) }()
	counts := map[int32]int{}
	for i := 0; i < len(mem); i += os.Getpagesize() {
		sink(mem[i])
		address, status := uintptr(unsafe.Pointer(&mem[i])), int32(-1)
		_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, 1, uintptr(unsafe.Pointer(&address)), 0, uintptr(unsafe.Pointer(&status)), 0)
		require.Zero(t, errno)
		counts[status]++
	}
	return counts
}

func TestPrivateMemoryMoves(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, testBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(mem)) }()
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
	for _, node := range []int{1, 0} {
		require.NoError(t, Private("/proc", []int{os.Getpid()}, []int{1 - node}, []int{node}))
		there := 0
		for i := 0; i < len(mem); i += os.Getpagesize() {
			// Automatic NUMA balancing hides pages from move_pages until they
			// are touched again (before 6.6).
			sink(mem[i])
			address, status := uintptr(unsafe.Pointer(&mem[i])), int32(-1)
			_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, 1, uintptr(unsafe.Pointer(&address)), 0, uintptr(unsafe.Pointer(&status)), 0)
			require.Zero(t, errno)
			if int(status) == node {
				there++
			}
		}
		require.Equal(t, testBytes/os.Getpagesize(), there)
	}
}
