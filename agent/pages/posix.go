package pages

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// posix lists the POSIX shared memory of the process at dir that no process
// need have mapped at the moment: PostgreSQL attaches to its shared statistics
// only while it uses them. In a pod /dev/shm is a file system of the pod's own;
// where it is the host's (the same as that of the process at hostDir), or the
// host's cannot be looked at, other servers' memory may be there too, and
// nothing is listed. Files of other users are not the server's.
//
// The segments can be opened until release is called, which is never nil.
func posix(dir, hostDir string) (found []segment, release func(), err error) {
	release = func() {}
	shm, err := openShm(dir)
	if err != nil {
		return nil, release, unlessAbsent(err)
	}
	defer func() {
		if len(found) == 0 {
			_ = shm.Close() // it was only read
		}
	}()
	device, err := ownDevice(shm, hostDir)
	if err != nil {
		return nil, release, unlessAbsent(err)
	}
	var process unix.Stat_t
	if err := unix.Stat(dir, &process); err != nil {
		return nil, release, unlessAbsent(err)
	}
	names, err := shm.Readdirnames(-1)
	if err != nil {
		return nil, release, unlessAbsent(fmt.Errorf("list shared memory: %w", err))
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(int(shm.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != process.Uid || st.Dev != device {
			continue
		}
		found = append(found, segment{
			device: fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)), inode: fmt.Sprint(st.Ino),
			file: filepath.Join(shm.Name(), name), length: st.Size,
			open: func() (*os.File, error) { return openEntry(shm, name, &st) },
		})
	}
	if len(found) > 0 {
		release = func() { _ = shm.Close() } // it was only read
	}
	return found, release, nil
}

// openShm opens the directory /dev/shm of the process at dir. A link on the way
// is not followed: it is the container's, and would be resolved in the agent's
// own root.
func openShm(dir string) (*os.File, error) {
	// root itself is a link to follow, and leads to no name (proc_pid_get_link).
	root, err := unix.Open(filepath.Join(dir, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root of %s: %w", dir, err)
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, "dev/shm", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open the shared memory of %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, "root/dev/shm")), nil
}

// ownDevice returns the device of shm. The error wraps fs.ErrNotExist where it
// is the host's too.
func ownDevice(shm *os.File, hostDir string) (uint64, error) {
	hosts, err := openShm(hostDir)
	if err != nil {
		return 0, err
	}
	defer hosts.Close()
	var own, host unix.Stat_t
	if err := errors.Join(unix.Fstat(int(shm.Fd()), &own), unix.Fstat(int(hosts.Fd()), &host)); err != nil {
		return 0, fmt.Errorf("look at shared memory: %w", err)
	}
	if own.Dev == host.Dev {
		return 0, fmt.Errorf("shared memory of its own: %w", fs.ErrNotExist)
	}
	return own.Dev, nil
}

// unlessAbsent drops an error that says there is nothing to list.
func unlessAbsent(err error) error {
	if gone(err) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// openEntry opens a file of a directory if it is still the one that was seen.
// The container may put anything in its place at any time: a link is not
// followed, and a pipe not waited for.
//
// Reading is enough to map it, and for what mincore says to be true: that asks
// whether the caller could write to the file, not whether it was opened for it
// (mm/mincore.c, can_do_mincore). Who could not is told that every page is
// there, and would allocate them all by touching them; hence the check.
func openEntry(dir *os.File, name string, seen *unix.Stat_t) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name))
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Dev != seen.Dev || st.Ino != seen.Ino || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = fmt.Errorf("another file has its name: %w", fs.ErrNotExist)
	}
	if err == nil {
		err = unix.Faccessat(fd, "", unix.W_OK, unix.AT_EMPTY_PATH|unix.AT_EACCESS)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at %q: %w", name, err), f.Close())
	}
	return f, nil
}
