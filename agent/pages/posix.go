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
// where it is the host's (the same as that of the process at hostDir), other
// servers' memory is there too, and nothing is listed. Files of other users are
// not the server's.
func posix(dir, hostDir string) ([]segment, error) {
	const shm = "root/dev/shm"
	var own, host, process unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, shm), &own); err != nil {
		return nil, nil // it has none, or the process is gone
	}
	if err := unix.Stat(filepath.Join(hostDir, shm), &host); err == nil && host.Dev == own.Dev {
		return nil, nil
	}
	if err := unix.Stat(dir, &process); err != nil {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(dir, shm))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("list shared memory: %w", err)
	}
	var out []segment
	for _, e := range entries {
		name := filepath.Join(dir, shm, e.Name())
		var st unix.Stat_t
		// Not followed: a link would lead out of the process's own files.
		if err := unix.Lstat(name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != process.Uid || st.Dev != own.Dev {
			continue
		}
		out = append(out, segment{
			device: fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)), inode: fmt.Sprint(st.Ino),
			file: name, length: st.Size,
		})
	}
	return out, nil
}
