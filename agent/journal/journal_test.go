package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func mustOpen(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	return j
}

// ids returns the open records as "id=data".
func ids(t testing.TB, j *Journal) []string {
	records, err := j.Records()
	require.NoError(t, err)
	out := []string{}
	for _, r := range records {
		out = append(out, r.ID+"="+string(r.Data))
	}
	return out
}

func asideFiles(t testing.TB, dir string) []string {
	found, err := filepath.Glob(filepath.Join(dir, "journal.damaged-*"))
	require.NoError(t, err)
	return found
}

func TestJournal(t *testing.T) {
	t.Run("a directory that is missing is made for its owner alone", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "a", "b")
		j := mustOpen(t, dir)
		fi, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), fi.Mode().Perm())
		require.Empty(t, ids(t, j))
		require.Empty(t, j.Damage())
	})
	t.Run("open records come back in order and closed ones do not", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir)
		for _, id := range []string{"a", "b", "c", "d"} {
			require.NoError(t, j.Append(id, []byte("1")))
		}
		require.NoError(t, j.Append("b", []byte("2")))
		require.NoError(t, j.Done("c"))
		require.NoError(t, j.Done("never seen"))
		want := []string{"a=1", "b=2", "d=1"}
		require.Equal(t, want, ids(t, j))
		require.NoError(t, j.Close())

		j = mustOpen(t, dir)
		require.Equal(t, want, ids(t, j))
		require.Empty(t, j.Damage())
	})
	t.Run("any bytes survive", func(t *testing.T) {
		dir := t.TempDir()
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		id := "line\nbreak \"quoted\" \xff ü"
		j := mustOpen(t, dir)
		require.NoError(t, j.Append(id, all))
		require.NoError(t, j.Append("empty", nil))
		require.NoError(t, j.Close())
		require.Equal(t, []string{id + "=" + string(all), "empty="}, ids(t, mustOpen(t, dir)))
	})
	t.Run("an empty id is refused", func(t *testing.T) {
		require.EqualError(t, mustOpen(t, t.TempDir()).Append("", nil), "append to journal: empty id")
	})
	t.Run("the caller's buffers are not kept", func(t *testing.T) {
		j := mustOpen(t, t.TempDir())
		data := []byte("old")
		require.NoError(t, j.Append("a", data))
		copy(data, "new")
		records, err := j.Records()
		require.NoError(t, err)
		copy(records[0].Data, "xxx")
		require.Equal(t, []string{"a=old"}, ids(t, j))
	})
	t.Run("a closed journal refuses everything", func(t *testing.T) {
		j := mustOpen(t, t.TempDir())
		require.NoError(t, j.Close())
		require.NoError(t, j.Close())
		require.ErrorIs(t, j.Append("a", nil), os.ErrClosed)
		require.ErrorIs(t, j.Done("a"), os.ErrClosed)
		_, err := j.Records()
		require.ErrorIs(t, err, os.ErrClosed)
	})
}

func TestLock(t *testing.T) {
	t.Run("a second opener is told which process holds the journal", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir)
		_, err := Open(dir)
		require.ErrorContains(t, err, fmt.Sprintf("in use by process %d", os.Getpid()))
		require.NoError(t, j.Append("a", nil), "the first opener is not disturbed")
	})
	t.Run("the journal can be opened again after it was closed", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, mustOpen(t, dir).Close())
		mustOpen(t, dir)
	})
	t.Run("a lock file without a number is not believed", func(t *testing.T) {
		dir := t.TempDir()
		mustOpen(t, dir)
		require.NoError(t, os.Truncate(filepath.Join(dir, "lock"), 0))
		_, err := Open(dir)
		require.ErrorContains(t, err, "in use by another process")
	})
}

func TestCompaction(t *testing.T) {
	t.Run("opening drops what was closed", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir)
		require.NoError(t, j.Append("keep", []byte("x")))
		for range 50 {
			require.NoError(t, j.Append("a", []byte("x")))
			require.NoError(t, j.Done("a"))
		}
		require.NoError(t, j.Close())
		require.NoError(t, mustOpen(t, dir).Close())
		b, err := os.ReadFile(filepath.Join(dir, "journal"))
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(b), "\n"))
	})
	t.Run("a journal that is never opened again stays small", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir)
		j.disk.sync = func(*os.File) error { return nil }
		require.NoError(t, j.Append("keep", []byte("x")))
		big := []byte(strings.Repeat("x", compactAt/8))
		for range 40 {
			require.NoError(t, j.Append("a", big))
		}
		fi, err := os.Stat(filepath.Join(dir, "journal"))
		require.NoError(t, err)
		require.Less(t, fi.Size(), int64(compactAt+compactAt/4))
		require.NoError(t, j.Done("a"))
		require.NoError(t, j.Close())
		require.Equal(t, []string{"keep=x"}, ids(t, mustOpen(t, dir)))
	})
	t.Run("a compaction that was killed half way is of no consequence", func(t *testing.T) {
		for _, left := range []string{"", "half a line", "00000005 deadbeef + \"x\"\n"} {
			dir := t.TempDir()
			j := mustOpen(t, dir)
			require.NoError(t, j.Append("a", []byte("1")))
			require.NoError(t, j.Close())
			temp := filepath.Join(dir, "journal.new")
			require.NoError(t, os.WriteFile(temp, []byte(left), 0o600))

			j = mustOpen(t, dir)
			require.Equal(t, []string{"a=1"}, ids(t, j))
			require.Empty(t, j.Damage())
			require.NoFileExists(t, temp)
		}
	})
}
