package journal

import (
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// platter knows what of the files would be left if the power failed now.
type platter struct {
	dir string
	// content is what each file held, by inode, when it was last synced.
	content map[uint64][]byte
	// lost are files whose fsync failed: the kernel took their pages for
	// clean, and no later fsync brings them to the disk.
	lost map[uint64]bool
	// named is the inode that the name journal had when the directory was
	// last synced, 0 for none.
	named uint64
	// held keeps inode numbers from being used again.
	held []*os.File
}

// inode returns the inode number of path, 0 when there is no such file.
func (p *platter) inode(t require.TestingT, path string) uint64 {
	fi, err := os.Stat(path)
	if os.IsNotExist(err) {
		return 0
	}
	require.NoError(t, err)
	return fi.Sys().(*syscall.Stat_t).Ino
}

// sync is what the disk does for an fsync of f that comes out as given.
func (p *platter) sync(t require.TestingT, f *os.File, fails bool) error {
	fi, err := f.Stat()
	require.NoError(t, err)
	ino := fi.Sys().(*syscall.Stat_t).Ino
	if fi.IsDir() {
		if !fails {
			p.named = p.inode(t, filepath.Join(p.dir, "journal"))
		}
	} else if _, seen := p.content[ino]; !seen {
		fd, err := unix.Dup(int(f.Fd()))
		require.NoError(t, err)
		p.held = append(p.held, os.NewFile(uintptr(fd), "held"))
		p.content[ino] = nil
	}
	switch {
	case fi.IsDir():
	case fails:
		p.lost[ino] = true
	case !p.lost[ino]:
		path := filepath.Join(p.dir, "journal.new")
		if p.inode(t, path) != ino {
			path = filepath.Join(p.dir, "journal")
		}
		p.content[ino], err = os.ReadFile(path)
		require.NoError(t, err)
	}
	if fails {
		return unix.EIO
	}
	return nil
}

// afterPowerLoss returns the open records that a new process would find.
func (p *platter) afterPowerLoss(t require.TestingT, root string) map[string]string {
	dir, err := os.MkdirTemp(root, "")
	require.NoError(t, err)
	if p.named != 0 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "journal"), p.content[p.named], 0o600))
	}
	quick := realDisk()
	quick.sync = func(*os.File) error { return nil }
	j, err := open(dir, quick)
	require.NoError(t, err)
	records, err := j.Records()
	require.NoError(t, err)
	require.NoError(t, j.Close())
	found := map[string]string{}
	for _, r := range records {
		found[r.ID] = string(r.Data)
	}
	return found
}

func TestPowerLoss(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		require.NoError(t, err)
		p := &platter{dir: dir, content: map[uint64][]byte{}, lost: map[uint64]bool{}}
		defer func() {
			for _, f := range p.held {
				_ = f.Close()
			}
		}()
		fails := func(call string) bool { return rapid.IntRange(0, 5).Draw(t, call) == 0 }
		d := realDisk()
		d.sync = func(f *os.File) error { return p.sync(t, f, fails("sync")) }
		d.write = func(f *os.File, b []byte) error {
			if fails("write") {
				_, _ = f.Write(b[:len(b)/2])
				return unix.ENOSPC
			}
			_, err := f.Write(b)
			return err
		}
		d.truncate = func(f *os.File, n int64) error {
			if fails("truncate") {
				return unix.EIO
			}
			return f.Truncate(n)
		}
		j, err := open(dir, d)
		require.NoError(t, err)
		defer j.Close()
		// model is what must be found; nothing is known of the ids of
		// calls that failed until a call succeeds.
		model, unknown := map[string]string{}, map[string]bool{}
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
			if rapid.IntRange(0, 3).Draw(t, "large") == 0 {
				j.retryAt = 0
			}
			data := ""
			if rapid.Bool().Draw(t, "append") {
				data = rapid.StringMatching("[a-z]{1,3}").Draw(t, "data")
				err = j.Append(id, []byte(data))
			} else {
				err = j.Done(id)
			}
			if err != nil {
				unknown[id] = true
			} else {
				clear(unknown)
				delete(model, id)
				if data != "" {
					model[id] = data
				}
			}
			found, want := p.afterPowerLoss(t, root), maps.Clone(model)
			for id := range unknown {
				delete(found, id)
				delete(want, id)
			}
			require.Equal(t, want, found)
		}
	})
}
