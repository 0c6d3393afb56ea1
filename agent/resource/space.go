package resource

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

// maxDescriptors bounds how many descriptors of one instance a survey looks at.
const maxDescriptors = 20000

// wanted is one directory to look for, relative to the data directory. The first
// of several candidates that exists is taken.
type wanted struct {
	name       string
	candidates []string
}

// directories says where an engine keeps what, as far as its data directory
// tells: where a link leads is followed, what the configuration says is not
// known.
func directories(e state.Engine) []wanted {
	data := wanted{"data", []string{"."}}
	switch e {
	case state.PostgreSQL, state.OpenGauss:
		// pg_wal was pg_xlog until version 10, and is so in openGauss; initdb
		// --waldir makes it a link.
		return []wanted{data, {"log", []string{"pg_wal", "pg_xlog"}}}
	case state.MySQL, state.MariaDB, state.Percona:
		// #innodb_redo came with MySQL 8.0.30. Before, and in MariaDB, redo and
		// binary logs lie in the data directory itself unless configured away. What
		// only speaks their protocol has a storage of its own.
		return []wanted{data, {"log", []string{"#innodb_redo", "."}}}
	case state.Redis, state.Valkey:
		return []wanted{data, {"log", []string{"appendonlydir", "."}}}
	}
	return []wanted{data}
}

// readDirectories asks the file systems that hold an instance's directories.
func readDirectories(procRoot string, in *state.Instance) ([]state.Directory, error) {
	if in.MainPID == 0 || in.DataDir == "" {
		return nil, nil
	}
	root, err := unix.Open(procRoot+"/"+strconv.Itoa(in.MainPID)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if ended(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open root directory of process %d: %w", in.MainPID, err)
	}
	defer unix.Close(root)
	var out []state.Directory
	var errs []error
	for _, w := range directories(in.Engine) {
		d, err := firstOf(root, in.DataDir, w)
		switch {
		case err == nil:
			out = append(out, d)
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// firstOf looks at the first candidate that exists. Links are followed within
// the instance's own root: one that it made cannot lead out of it.
func firstOf(root int, dataDir string, w wanted) (state.Directory, error) {
	for _, c := range w.candidates {
		where := path.Join(dataDir, c)
		fd, err := unix.Openat2(root, where, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT,
		})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return state.Directory{}, fmt.Errorf("open directory %q: %w", where, err)
		}
		var st unix.Statfs_t
		err = unix.Fstatfs(fd, &st)
		unix.Close(fd) // opened for its place alone
		if err != nil {
			return state.Directory{}, fmt.Errorf("statfs of directory %q: %w", where, err)
		}
		return directory(w.name, where, &st), nil
	}
	return state.Directory{}, unix.ENOENT
}

func directory(name, where string, st *unix.Statfs_t) state.Directory {
	unit := st.Frsize // what the counts are in; 0 on some file systems
	if unit == 0 {
		unit = st.Bsize
	}
	return state.Directory{
		Name: name, Path: where,
		SizeBytes: int64(st.Blocks) * unit, UsedBytes: int64(st.Blocks-st.Bfree) * unit,
		AvailableBytes: int64(st.Bavail) * unit,
		Inodes:         int64(st.Files), FreeInodes: int64(st.Ffree),
	}
}

// descriptors is what was found among the open files of some processes.
type descriptors struct {
	open     int
	most     int // of one process
	mostPID  int
	deleted  int64
	complete bool
}

// readDescriptors counts open descriptors and adds up the deleted files among
// them, each file once. With an error it returns what it had found by then.
func readDescriptors(procRoot string, pids []int) (descriptors, error) {
	found := descriptors{complete: true}
	seen := map[[2]uint64]bool{}
	left := maxDescriptors
	for _, pid := range pids {
		dir := procRoot + "/" + strconv.Itoa(pid) + "/fd"
		n, whole, err := eachName(dir, left, func(name string) {
			found.deleted += deletedBytes(dir+"/"+name, seen)
		})
		found.open += n
		left -= n
		if n > found.most {
			found.most, found.mostPID = n, pid
		}
		if err != nil && !ended(err) {
			found.complete = false
			return found, fmt.Errorf("list descriptors of process %d: %w", pid, err)
		}
		if !whole && err == nil {
			found.complete = false
			return found, nil
		}
	}
	return found, nil
}

// eachName visits at most limit names of a directory; whole says that there were
// no more.
func eachName(dir string, limit int, visit func(string)) (n int, whole bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	for n < limit {
		names, err := f.Readdirnames(min(256, limit-n))
		for _, name := range names {
			n++
			visit(name)
		}
		if errors.Is(err, io.EOF) {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// deletedBytes returns what a deleted file takes on disk, 0 for anything else.
func deletedBytes(link string, seen map[[2]uint64]bool) int64 {
	target, err := os.Readlink(link)
	if err != nil || !strings.HasPrefix(target, "/") || !strings.HasSuffix(target, " (deleted)") {
		return 0
	}
	// Not synchronised, so that an absent file server is not waited for.
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 0 {
		return 0
	}
	file := [2]uint64{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	if seen[file] {
		return 0
	}
	seen[file] = true
	// Shared memory is a deleted file too, and takes no space on a disk.
	var fs unix.Statfs_t
	if err := unix.Statfs(link, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.HUGETLBFS_MAGIC {
		return 0
	}
	return int64(st.Blocks) * 512
}
