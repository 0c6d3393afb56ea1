package pages

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many pages one call of move_pages moves: enough to spread
	// the cost of the call, few enough that none takes long.
	batch = 512
	// window is how much of a segment is mapped here at a time.
	window = 64 << 20
	// moveAll is MPOL_MF_MOVE_ALL (include/uapi/linux/mempolicy.h): pages that
	// others have mapped, too.
	moveAll = 4
)

// segment is one piece of shared memory that some process has mapped.
type segment struct {
	device, inode string
	file          string // below /proc/PID/map_files, unless open is set
	length        int64
	// open opens the file where its name alone would not be safe to.
	open func() (*os.File, error)
}

// Shared moves all pages of the processes' shared memory to one node, whether
// any of them has a page mapped at the moment or not: each segment is mapped
// here as well, and only pages that exist are touched. It returns how many
// bytes could not be moved.
//
// A process that ended is no error. Segments are those of mmap (anonymous and
// shared), System V, POSIX (in a pod also those that nobody has mapped) and memfd.
func Shared(procRoot string, pids []int, to int) (left int64, err error) {
	var errs []error
	swap := swaps(procRoot)
	done := map[[2]string]bool{}
	for _, pid := range pids {
		dir := filepath.Join(procRoot, strconv.Itoa(pid))
		found, err := segments(dir)
		unmapped, release, perr := posix(dir, filepath.Join(procRoot, "1"))
		for _, err := range []error{err, perr} {
			if err != nil && !gone(err) {
				errs = append(errs, err)
			}
		}
		found = append(found, unmapped...)
		for _, s := range found {
			key := [2]string{s.device, s.inode}
			if done[key] {
				continue
			}
			n, err := s.move(to, swap)
			if gone(err) {
				continue // another process may still have it
			}
			done[key] = true
			left += n
			if err != nil {
				errs = append(errs, fmt.Errorf("move shared memory of process %d: %w", pid, err))
			}
		}
		release()
	}
	return left, errors.Join(errs...)
}

// swaps says whether pages may have been swapped out: whether procRoot/swaps
// lists anything below its heading (mm/swapfile.c, swap_show). A kernel without
// swap has no such file; one that cannot be read may list something.
func swaps(procRoot string) bool {
	b, err := os.ReadFile(filepath.Join(procRoot, "swaps"))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	_, listed, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(listed) != ""
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// segments lists the shared memory of the process at dir.
func segments(dir string) ([]segment, error) {
	f, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return nil, fmt.Errorf("open maps: %w", err)
	}
	defer f.Close()
	return parseMaps(f, filepath.Join(dir, "map_files"))
}

// parseMaps reads /proc/PID/maps, whose lines are "start-end perms offset
// device inode path" (fs/proc/task_mmu.c, show_map_vma).
func parseMaps(r io.Reader, mapFiles string) ([]segment, error) {
	var out []segment
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || len(f[1]) != 4 || f[1][3] != 's' || !sharedMemory(f[5]) {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 63)
		end, err2 := strconv.ParseUint(to, 16, 63)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read maps line %q: %w", lines.Text(), err)
		}
		if end <= start {
			return nil, fmt.Errorf("read maps line %q: the range is empty", lines.Text())
		}
		out = append(out, segment{device: f[3], inode: f[4], file: filepath.Join(mapFiles, f[0]), length: int64(end - start)})
	}
	return out, lines.Err()
}

// sharedMemory says whether a mapped path is memory rather than a file on disk.
func sharedMemory(path string) bool {
	for _, prefix := range []string{"/dev/zero", "/SYSV", "/memfd:", "/dev/shm/"} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// move moves the segment's existing pages, a window at a time. The file behind
// the map_files entry may be longer than what the process has mapped of it; it
// is walked to its end. swap says that pages may be swapped out: these count as
// allocated as well, and touching them would read them back.
func (s segment) move(to int, swap bool) (left int64, err error) {
	open := s.open
	if open == nil {
		open = func() (*os.File, error) { return os.OpenFile(s.file, os.O_RDWR, 0) }
	}
	f, err := open()
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", s.file, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", s.file, err)
	}
	length := fi.Size()
	if length == 0 {
		length = s.length
	}
	whole := !swap && allocated(fi) >= length
	for at := int64(0); at < length; at += window {
		n, err := moveWindow(int(f.Fd()), at, min(window, length-at), to, whole)
		left += n
		if err != nil {
			return left, err
		}
	}
	return left, nil
}

// allocated is how many bytes of a file exist.
func allocated(fi fs.FileInfo) int64 {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Blocks * 512 // the unit of st_blocks, whatever the file system's
}

// moveWindow maps a part of a segment, moves it and unmaps it. whole says that
// all of its pages exist. That cannot be seen otherwise of pages that were
// reserved by fallocate, as PostgreSQL does, and not used yet: mincore says that
// they are not there (they are not up to date, mm/mincore.c), and yet they lie on
// some node and are charged to the instance.
func moveWindow(fd int, at, length int64, to int, whole bool) (left int64, err error) {
	mem, err := unix.Mmap(fd, at, int(length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, fmt.Errorf("map shared memory: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(mem)) }()
	size := os.Getpagesize()
	resident := make([]byte, (len(mem)+size-1)/size)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&resident[0]))); errno != 0 {
		return 0, fmt.Errorf("find resident pages: %w", errno)
	}
	var offsets []int
	for i, r := range resident {
		// Touching a page that does not exist would allocate it, and charge
		// it to the agent.
		if r&1 == 0 && !whole {
			continue
		}
		offsets = append(offsets, i*size)
	}
	for some := range slices.Chunk(offsets, batch) {
		if err := touch(mem, some); err != nil {
			return left, err
		}
		addresses := make([]uintptr, len(some))
		for i, at := range some {
			addresses[i] = uintptr(unsafe.Pointer(&mem[at]))
		}
		n, err := movePages(addresses, to)
		left += int64(n * size)
		if err != nil {
			return left, err
		}
	}
	return left, nil
}

// touch reads a byte at each offset, so that the pages are mapped here. The
// server may truncate the file meanwhile, and a page beyond its end is SIGBUS,
// which would end the agent if it were not made a panic.
func touch(mem []byte, offsets []int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // a fault, and where (runtime/debug)
			err = fmt.Errorf("shared memory shrank while it was moved: no page at %#x", r.Addr())
		default:
			panic(r)
		}
	}()
	var touched byte
	for _, at := range offsets {
		touched ^= mem[at]
	}
	sink(touched)
	return nil
}

// sink keeps the compiler from dropping the reads that map the pages.
//
//go:noinline
func sink(byte) {}

// movePages moves pages of this process by move_pages(2) and returns how many
// of them are elsewhere afterwards.
func movePages(addresses []uintptr, to int) (left int, err error) {
	if len(addresses) == 0 {
		return 0, nil
	}
	nodes := make([]int32, len(addresses))
	status := make([]int32, len(addresses))
	for i := range nodes {
		nodes[i] = int32(to)
	}
	_, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(len(addresses)), uintptr(unsafe.Pointer(&addresses[0])),
		uintptr(unsafe.Pointer(&nodes[0])), uintptr(unsafe.Pointer(&status[0])), moveAll)
	if errno != 0 {
		return len(addresses), fmt.Errorf("move pages: %w", errno)
	}
	for _, s := range status {
		if s != int32(to) {
			left++
		}
	}
	return left, nil
}
