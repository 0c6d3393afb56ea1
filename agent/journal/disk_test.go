package journal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// badDisk fails chosen calls.
type badDisk struct {
	real disk
	// fail decides about the next call; effect says whether a call that
	// fails has its effect all the same (half of it, for a write).
	fail func(call string) (fails, effect bool)
}

func (b *badDisk) disk() disk {
	do := func(call string, effect func() error) error {
		fails, has := b.fail(call)
		if !fails {
			return effect()
		}
		if has {
			_ = effect()
		}
		return unix.EIO
	}
	return disk{
		write: func(f *os.File, p []byte) error {
			fails, has := b.fail("write")
			if !fails {
				return b.real.write(f, p)
			}
			if has {
				_ = b.real.write(f, p[:len(p)/2])
			}
			return unix.ENOSPC
		},
		sync:     func(f *os.File) error { return do("sync", func() error { return b.real.sync(f) }) },
		truncate: func(f *os.File, n int64) error { return do("truncate", func() error { return b.real.truncate(f, n) }) },
		rename:   func(from, to string) error { return do("rename", func() error { return b.real.rename(from, to) }) },
	}
}

// failing returns a disk on which the calls named fail, with their effect.
func failing(calls map[string]bool) disk {
	b := &badDisk{real: realDisk(), fail: func(c string) (bool, bool) { return calls[c], true }}
	return b.disk()
}

func TestBadDisk(t *testing.T) {
	for _, broken := range [][]string{
		{"write"}, {"sync"}, {"write", "truncate"}, {"sync", "truncate"}, {"write", "sync", "truncate", "rename"},
	} {
		t.Run("an append that fails leaves nothing behind once the disk works again", func(t *testing.T) {
			dir, calls := t.TempDir(), map[string]bool{}
			j, err := open(dir, failing(calls))
			require.NoError(t, err)
			require.NoError(t, j.Append("a", []byte("1")))
			for _, c := range broken {
				calls[c] = true
			}
			require.Error(t, j.Append("b", []byte("1")))
			require.Error(t, j.Done("a"))
			require.Equal(t, []string{"a=1"}, ids(t, j))
			clear(calls)
			require.NoError(t, j.Append("c", []byte("1")))
			require.NoError(t, j.Close())

			j = mustOpen(t, dir)
			require.Equal(t, []string{"a=1", "c=1"}, ids(t, j))
			require.Empty(t, j.Damage())
		})
	}
	t.Run("a full disk says so and does not stop a start", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir)
		require.NoError(t, j.Append("a", []byte("1")))
		require.NoError(t, j.Append("b", []byte("1")))
		require.NoError(t, j.Close())

		calls := map[string]bool{"write": true}
		j, err := open(dir, failing(calls))
		require.NoError(t, err)
		require.Equal(t, []string{"a=1", "b=1"}, ids(t, j))
		require.ErrorIs(t, j.Append("c", nil), unix.ENOSPC)
		clear(calls)
		require.NoError(t, j.Done("a"))
		require.NoError(t, j.Close())
		require.Equal(t, []string{"b=1"}, ids(t, mustOpen(t, dir)))
	})
	t.Run("a full disk at the very first start stops appends only", func(t *testing.T) {
		calls := map[string]bool{"write": true}
		j, err := open(t.TempDir(), failing(calls))
		require.NoError(t, err)
		require.ErrorIs(t, j.Append("a", nil), unix.ENOSPC)
		clear(calls)
		require.NoError(t, j.Append("a", nil))
		require.NoError(t, j.Close())
	})
	t.Run("a compaction that fails leaves the old file in use", func(t *testing.T) {
		dir, calls := t.TempDir(), map[string]bool{}
		j, err := open(dir, failing(calls))
		require.NoError(t, err)
		require.NoError(t, j.Append("a", []byte("1")))
		j.retryAt = 0
		calls["rename"] = true
		require.Error(t, j.Append("b", []byte("1")), "nobody knows which file has the name")
		clear(calls)
		require.NoError(t, j.Append("b", []byte("1")))
		require.NoError(t, j.Close())
		require.Equal(t, []string{"a=1", "b=1"}, ids(t, mustOpen(t, dir)))
	})
	t.Run("nothing is written while the name of a new file is not durable", func(t *testing.T) {
		dir, calls := t.TempDir(), map[string]bool{"sync": true}
		j, err := open(dir, failing(calls))
		require.NoError(t, err)
		require.Error(t, j.Append("a", nil))
		require.NoError(t, j.Close())
		b, err := os.ReadFile(filepath.Join(dir, "journal"))
		if err == nil {
			require.Empty(t, b)
		}
	})
}

// TestModel compares the journal on a disk that fails now and then with a
// model in which a failed call changes nothing.
func TestModel(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		require.NoError(t, err)
		bad := &badDisk{real: realDisk()}
		bad.real.sync = func(*os.File) error { return nil } // no test can tell, and it is slow
		bad.fail = func(call string) (bool, bool) {
			return rapid.IntRange(0, 9).Draw(t, call) == 0, rapid.Bool().Draw(t, "effect")
		}
		reliable := func(string) (bool, bool) { return false, false }
		chaotic := bad.fail
		bad.fail = reliable
		j, err := open(dir, bad.disk())
		require.NoError(t, err)
		var model []Record
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
			bad.fail = chaotic
			switch rapid.IntRange(0, 9).Draw(t, "call") {
			case 0, 1, 2, 3, 4:
				data := []byte(rapid.StringN(0, 3, 9).Draw(t, "data"))
				if j.Append(id, data) == nil {
					model = put(model, Record{ID: id, Data: data})
				}
			case 5, 6, 7:
				if j.Done(id) == nil {
					model = remove(model, id)
				}
			case 8:
				j.retryAt = 0
			case 9:
				// A call that succeeds settles what failed ones left open.
				bad.fail = reliable
				require.NoError(t, j.Done("settle"))
				require.NoError(t, j.Close())
				bad.fail = chaotic
				j, err = open(dir, bad.disk())
				require.NoError(t, err)
				require.Empty(t, j.Damage())
			}
			got, err := j.Records()
			require.NoError(t, err)
			require.Equal(t, len(model), len(got))
			for i := range model {
				require.Equal(t, model[i].ID, got[i].ID)
				require.Equal(t, string(model[i].Data), string(got[i].Data))
			}
		}
		require.NoError(t, j.Close())
	})
}
