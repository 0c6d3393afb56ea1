package pages

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const mapsText = `55d0c0000000-55d0c0100000 r-xp 00000000 fe:01 1234 /usr/lib/postgresql/15/bin/postgres
7f0000000000-7f0004000000 rw-s 00000000 00:01 1053 /dev/zero (deleted)
7f0005000000-7f0005001000 rw-s 00000000 00:01 5 /SYSV0052e2c1 (deleted)
7f0006000000-7f0006001000 rw-s 00000000 00:1a 9 /dev/shm/PostgreSQL.1234
7f0007000000-7f0007001000 rw-p 00000000 00:01 1053 /dev/zero (deleted)
7f0008000000-7f0008001000 rw-s 00000000 fe:01 77 /data/mapped.file
7f0009000000-7f0009001000 rw-p 00000000 00:00 0
`

func TestOnlySharedMemoryIsFound(t *testing.T) {
	got, err := parseMaps(strings.NewReader(mapsText), "/m")
	require.NoError(t, err)
	require.Equal(t, []segment{
		{"00:01", "1053", "/m/7f0000000000-7f0004000000", 64 << 20, nil},
		{"00:01", "5", "/m/7f0005000000-7f0005001000", 4096, nil},
		{"00:1a", "9", "/m/7f0006000000-7f0006001000", 4096, nil},
	}, got)
}

// process makes the directory of a process whose root leads to target, or is
// empty.
func process(t *testing.T, target string) string {
	t.Helper()
	dir := t.TempDir()
	if target == "" {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "root/dev/shm"), 0o755))
	} else {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, "root")))
	}
	return dir
}

func TestSharedMemoryThatNobodyHasMappedIsFoundInAPodsOwnFileSystem(t *testing.T) {
	// The host's /dev/shm is another file system than that of the test's files.
	pod, host := process(t, ""), process(t, "/")
	shm := filepath.Join(pod, "root/dev/shm")
	segmentFile := filepath.Join(shm, "PostgreSQL.1")
	require.NoError(t, os.WriteFile(segmentFile, []byte("x"), 0o600))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(shm, "link")))
	require.NoError(t, unix.Mkfifo(filepath.Join(shm, "pipe"), 0o600))
	found, release, err := posix(pod, host)
	require.NoError(t, err)
	defer release()
	require.Len(t, found, 1)
	require.Equal(t, segmentFile, found[0].file)
	require.EqualValues(t, 1, found[0].length)

	t.Run("and opened while it is the same file", func(t *testing.T) {
		f, err := found[0].open()
		require.NoError(t, err)
		require.NoError(t, f.Close())
	})
	require.NoError(t, os.Rename(segmentFile, filepath.Join(shm, "kept")))
	replace := map[string]func() error{
		"not a link in its place":   func() error { return os.Symlink("kept", segmentFile) },
		"not a pipe in its place":   func() error { return unix.Mkfifo(segmentFile, 0o600) },
		"not a file in its place":   func() error { return os.WriteFile(segmentFile, nil, 0o600) },
		"not when it was taken out": func() error { return nil },
	}
	for name, put := range replace {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, put())
			_, err := found[0].open()
			require.True(t, gone(err), "%v", err)
			require.NoError(t, os.RemoveAll(segmentFile))
		})
	}
}

func TestSharedMemoryThatMayBeOthersIsNotListed(t *testing.T) {
	withFile := func(t *testing.T) string {
		dir := process(t, "")
		require.NoError(t, os.WriteFile(filepath.Join(dir, "root/dev/shm/PostgreSQL.1"), []byte("x"), 0o600))
		return dir
	}
	linked := func(t *testing.T) string {
		dir := process(t, "")
		require.NoError(t, os.Remove(filepath.Join(dir, "root/dev/shm")))
		require.NoError(t, os.Symlink(filepath.Join(withFile(t), "root/dev/shm"), filepath.Join(dir, "root/dev/shm")))
		return dir
	}
	tests := map[string]struct{ pod, host string }{
		"the host's own file system":         {withFile(t), process(t, "")},
		"a host that cannot be looked at":    {withFile(t), t.TempDir()},
		"a process without one":              {t.TempDir(), process(t, "/")},
		"a link that leads out of the pod's": {linked(t), process(t, "/")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found, release, err := posix(tt.pod, tt.host)
			require.NoError(t, err)
			release()
			require.Empty(t, found)
		})
	}
}

func TestMemoryThatShrinksIsAnError(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "segment"))
	require.NoError(t, err)
	defer f.Close()
	size := os.Getpagesize()
	require.NoError(t, f.Truncate(int64(2*size)))
	mem, err := unix.Mmap(int(f.Fd()), 0, 2*size, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(mem)) }()
	require.NoError(t, touch(mem, []int{0, size}))
	require.NoError(t, f.Truncate(int64(size)))
	require.ErrorContains(t, touch(mem, []int{0, size}), "shared memory shrank while it was moved")
	require.False(t, debug.SetPanicOnFault(false), "the setting is as it was")
	require.Panics(t, func() { _ = touch(mem[:1], []int{1}) }, "a mistake of the agent's own stays one")
}

func TestSwapIsSeen(t *testing.T) {
	const heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	root := t.TempDir()
	require.False(t, swaps(root), "a kernel without it")
	for text, want := range map[string]bool{heading: false, heading + "/dev/vdb  partition\t8388604\t\t0\t\t-2\n": true} {
		require.NoError(t, os.WriteFile(filepath.Join(root, "swaps"), []byte(text), 0o600))
		require.Equal(t, want, swaps(root), text)
	}
	require.NoError(t, os.Remove(filepath.Join(root, "swaps")))
	require.NoError(t, os.Mkdir(filepath.Join(root, "swaps"), 0o755))
	require.True(t, swaps(root), "what cannot be read")
}

func TestDamagedMapsAreRefused(t *testing.T) {
	for _, line := range []string{
		"zz-7f00 rw-s 0 00:01 5 /dev/zero (deleted)",
		"7f00 rw-s 0 00:01 5 /dev/zero (deleted)",
		"7f01-7f00 rw-s 0 00:01 5 /dev/zero (deleted)",
	} {
		_, err := parseMaps(strings.NewReader(line), "/m")
		require.ErrorContains(t, err, "7f0", line)
	}
}

func TestAProcessThatEndedIsNoError(t *testing.T) {
	left, err := Shared(t.TempDir(), []int{1}, 0)
	require.NoError(t, err)
	require.Zero(t, left)
	require.NoError(t, Private("/proc", []int{1 << 30}, []int{0}, []int{0}))
}

func TestAProcessThatIsEndingIsNoError(t *testing.T) {
	cmd := exec.Command("/bin/true")
	require.NoError(t, cmd.Start())
	// Dead, and not yet waited for: the state in which its memory is gone.
	require.NoError(t, unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
	require.NoError(t, Private("/proc", []int{cmd.Process.Pid}, []int{0}, []int{0}))
	require.NoError(t, cmd.Wait())
}

func TestNodesOutOfRangeAreRefused(t *testing.T) {
	require.ErrorContains(t, Private("/proc", nil, []int{-1}, []int{0}), "-1")
	require.ErrorContains(t, Private("/proc", nil, []int{0}, []int{maxNodes}), "1024")
}

func FuzzParseMaps(f *testing.F) {
	f.Add(mapsText)
	f.Fuzz(func(t *testing.T, text string) {
		found, err := parseMaps(strings.NewReader(text), "/m")
		if err != nil {
			return
		}
		for _, s := range found {
			require.Positive(t, s.length)
		}
	})
}
