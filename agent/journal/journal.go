package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// compactAt is the size in bytes from which the file is written anew once most
// of it is closed records.
const compactAt = 1 << 20

// Journal is the open journal of one directory. Use Open.
type Journal struct {
	dir  string
	disk disk
	lock *os.File

	mu   sync.Mutex
	open []Record
	// file is nil when no file could be written yet.
	file *os.File
	// size is the length of the file up to the last record known to be there.
	size int64
	// retryAt is the size at which the next compaction is tried.
	retryAt int64
	// suspect says that what is on disk is not what is in memory: the file
	// must be written anew before anything is added to it.
	suspect bool
	// unnamed says that the directory was not synced since the file was
	// renamed into it.
	unnamed bool
	damage  string
	closed  bool
}

// Open opens the journal in dir, which is made with mode 0700 if it is
// missing, and replays it. A damaged file is no error, see Damage. It is an
// error when the directory cannot be used or when another process has it
// open; the error then names that process.
func Open(dir string) (*Journal, error) {
	return open(dir, realDisk())
}

func open(dir string, d disk) (*Journal, error) {
	if err := makeDir(dir, d); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	j := &Journal{dir: dir, disk: d, lock: lock, retryAt: compactAt}
	if err := j.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return j, nil
}

// load replays the file and writes it anew.
func (j *Journal) load() error {
	data, rerr := os.ReadFile(j.path())
	missing := errors.Is(rerr, os.ErrNotExist)
	entries, unreadable := parse(data)
	j.open = replay(entries)
	damaged := unreadable > 0 || (rerr != nil && !missing)
	if damaged {
		j.damage = j.setAside(unreadable, rerr)
	}
	werr := j.rewrite()
	if werr == nil || j.unnamed {
		return nil
	}
	if damaged || missing {
		// Without a sound file every write tries again and says what is
		// wrong; the records read are there to be undone meanwhile.
		j.suspect = true
		return nil
	}
	// The disk is full, perhaps: the old file is sound and goes on being used.
	f, err := os.OpenFile(j.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	j.file, j.size = f, int64(len(data))
	return nil
}

// Damage returns "" or one sentence that says how the file was found damaged,
// how many records were saved and where the damaged file is kept.
func (j *Journal) Damage() string { return j.damage }

// Append records data under id, replacing what is open under it. When it
// returns nil the record is on disk. On an error nothing was recorded and the
// caller must not act.
func (j *Journal) Append(id string, data []byte) error {
	if id == "" {
		return errors.New("append to journal: empty id")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.write(entry{op: opOpen, id: id, data: data}); err != nil {
		return fmt.Errorf("append %q to journal: %w", id, err)
	}
	j.open = put(j.open, Record{ID: id, Data: bytes.Clone(data)})
	return nil
}

// Done closes the record of id, durably. An id that is not open is no error.
func (j *Journal) Done(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	if find(j.open, id) >= 0 {
		err = j.write(entry{op: opClose, id: id})
	} else {
		// A failed Append may have left a line on disk.
		err = j.ready()
	}
	if err != nil {
		return fmt.Errorf("close %q in journal: %w", id, err)
	}
	j.open = remove(j.open, id)
	return nil
}

// Records returns copies of the open records, in the order in which they were
// first appended. The error is that the journal was closed.
func (j *Journal) Records() ([]Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, fmt.Errorf("read journal: %w", os.ErrClosed)
	}
	records := make([]Record, 0, len(j.open))
	for _, r := range j.open {
		records = append(records, Record{ID: r.ID, Data: bytes.Clone(r.Data)})
	}
	return records, nil
}

// Close releases the directory. Everything recorded is on disk already.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.lock.Close())
}

// write adds one line and syncs it. Memory is the caller's to change.
func (j *Journal) write(e entry) error {
	if err := j.ready(); err != nil {
		return err
	}
	line := appendLine(nil, e)
	if err := j.disk.write(j.file, line); err != nil {
		return errors.Join(err, j.takeBack())
	}
	if err := j.disk.sync(j.file); err != nil {
		// After a failed fsync the kernel may hold pages for clean that
		// never reached the disk, so this file is not trusted any more.
		j.suspect = true
		return errors.Join(err, j.takeBack())
	}
	j.size += int64(len(line))
	return nil
}

// takeBack cuts off a line that was not wholly written.
func (j *Journal) takeBack() error {
	if err := j.disk.truncate(j.file, j.size); err != nil {
		j.suspect = true
		return err
	}
	if err := j.disk.sync(j.file); err != nil {
		j.suspect = true
		return err
	}
	return nil
}

// ready makes the file fit to be added to.
func (j *Journal) ready() error {
	if j.closed {
		return os.ErrClosed
	}
	if j.size > j.retryAt {
		// A compaction that fails leaves the file as it was: the line to
		// come may still fit on a disk on which a second file does not.
		if err := j.rewrite(); err != nil {
			j.retryAt = 2 * j.size
		}
	}
	if j.suspect {
		if err := j.rewrite(); err != nil {
			return err
		}
	}
	if j.unnamed {
		return j.nameDurably()
	}
	return nil
}

func (j *Journal) path() string { return filepath.Join(j.dir, "journal") }

func find(open []Record, id string) int {
	return slices.IndexFunc(open, func(r Record) bool { return r.ID == id })
}

// put replaces the record of that id in its place or adds it at the end.
func put(open []Record, r Record) []Record {
	if i := find(open, r.ID); i >= 0 {
		open[i] = r
		return open
	}
	return append(open, r)
}

func remove(open []Record, id string) []Record {
	return slices.DeleteFunc(open, func(r Record) bool { return r.ID == id })
}
