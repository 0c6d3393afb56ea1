package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk holds the calls that a disk can fail, so that tests can make it fail.
type disk struct {
	write    func(f *os.File, b []byte) error
	sync     func(f *os.File) error
	truncate func(f *os.File, size int64) error
	rename   func(from, to string) error
}

func realDisk() disk {
	return disk{
		write:    func(f *os.File, b []byte) error { _, err := f.Write(b); return err },
		sync:     (*os.File).Sync,
		truncate: (*os.File).Truncate,
		rename:   os.Rename,
	}
}

// makeDir makes dir if it is missing, and its name durable.
func makeDir(dir string, d disk) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make journal directory: %w", err)
	}
	return syncDir(filepath.Dir(dir), d)
}

// takeLock holds path for this process until the file is closed.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("journal in %s is in use by %s: only one agent may run on a node, stop that one first", filepath.Dir(path), holder(path))
		return nil, errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock journal: %w", err), f.Close())
	}
	// The number is for the error above only; a full disk may refuse it.
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

// holder names the process that wrote the lock file.
func holder(path string) string {
	b, err := os.ReadFile(path)
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return "another process"
	}
	return "process " + pid
}

// setAside keeps the damaged file under another name and returns the sentence
// for Damage. The name is made by a hard link, so that at no moment the
// records are in no file called journal.
func (j *Journal) setAside(unreadable int, readErr error) string {
	what := fmt.Sprintf("the journal was damaged (unreadable places: %d", unreadable)
	if readErr != nil {
		what += ", " + readErr.Error()
	}
	saved := fmt.Sprintf("open records saved: %d", len(j.open))
	aside := filepath.Join(j.dir, "journal.damaged-"+time.Now().UTC().Format("20060102T150405.000000Z"))
	err := os.Link(j.path(), aside)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = os.Rename(j.path(), aside)
	}
	if err != nil {
		return fmt.Sprintf("%s), %s; the damaged file could not be kept aside: %v", what, saved, err)
	}
	return fmt.Sprintf("%s), %s; the damaged file is kept as %s", what, saved, aside)
}

// rewrite writes the open records to a new file, which takes the place of the
// old one. Until the rename an error leaves the old file in use; after it the
// new file is in use and unnamed says that its name may not be durable yet.
func (j *Journal) rewrite() error {
	var b []byte
	for _, r := range j.open {
		b = appendLine(b, entry{op: opOpen, id: r.ID, data: r.Data})
	}
	temp := filepath.Join(j.dir, "journal.new")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make new journal: %w", err)
	}
	err = j.disk.write(f, b)
	if err == nil {
		err = j.disk.sync(f)
	}
	if err == nil {
		err = j.disk.rename(temp, j.path())
		// On some file systems a rename fails and has happened all the same.
		j.suspect = j.suspect || err != nil
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write new journal: %w", err), f.Close(), os.Remove(temp))
	}
	if j.file != nil {
		// All that was in it is in the new file; its fate is of no interest.
		_ = j.file.Close()
	}
	j.file, j.size = f, int64(len(b))
	j.retryAt = max(compactAt, 4*j.size)
	j.suspect, j.unnamed = false, true
	return j.nameDurably()
}

// nameDurably syncs the directory that holds the file.
func (j *Journal) nameDurably() error {
	if err := syncDir(j.dir, j.disk); err != nil {
		return err
	}
	j.unnamed = false
	return nil
}

func syncDir(dir string, d disk) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := d.sync(f); err != nil {
		return errors.Join(fmt.Errorf("sync directory: %w", err), f.Close())
	}
	return f.Close()
}
