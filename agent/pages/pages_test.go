package pages

import (
	"os"
	"os/exec"
	"path/filepath"
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
		{"00:01", "1053", "/m/7f0000000000-7f0004000000", 64 << 20},
		{"00:01", "5", "/m/7f0005000000-7f0005001000", 4096},
		{"00:1a", "9", "/m/7f0006000000-7f0006001000", 4096},
	}, got)
}

func TestSharedMemoryThatNobodyHasMappedIsFoundInAPodsOwnFileSystem(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"1/root/dev", "7/root/dev/shm", "8/root/dev"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	// Another file system, as a pod has it: procfs stands in for the host's.
	require.NoError(t, os.Symlink("/proc", filepath.Join(root, "1/root/dev/shm")))
	require.NoError(t, os.WriteFile(filepath.Join(root, "7/root/dev/shm/PostgreSQL.1"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(root, "7/root/dev/shm/link")))
	found, err := posix(filepath.Join(root, "7"), filepath.Join(root, "1"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, filepath.Join(root, "7/root/dev/shm/PostgreSQL.1"), found[0].file)
	require.EqualValues(t, 1, found[0].length)
	// The host's own file system, and a process without one.
	for _, host := range []string{"7", "8"} {
		found, err = posix(filepath.Join(root, host), filepath.Join(root, "7"))
		require.NoError(t, err)
		require.Empty(t, found)
	}
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
