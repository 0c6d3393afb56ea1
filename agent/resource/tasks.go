package resource

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

// looksPerRead bounds how many threads of all instances are looked at in one
// read. A look is two small files, about ten microseconds.
const looksPerRead = 512

// tasks is what is remembered of an instance's threads.
type tasks struct {
	threads  map[int]*thread
	round    uint32
	next     int // the first thread id that the next round looks at
	runDelay time.Duration
}

// thread is what the last look at a thread found.
type thread struct {
	runDelay        uint64
	uninterruptible bool
	round           uint32 // in which it was last listed
	// old is a thread that was there when the instance was first listed and was
	// not looked at yet: what it waited until then is not of our time.
	old bool
}

// readTasks counts an instance's tasks and looks at its share of the threads.
func (r *Reader) readTasks(in *state.Instance, list string) (state.TaskUsage, error) {
	use := state.TaskUsage{Processes: len(in.PIDs)}
	t := r.tasks[in.ID]
	if t == nil {
		t = &tasks{threads: map[int]*thread{}}
		r.tasks[in.ID] = t
	}
	ids, err := r.threads(in, list)
	if err != nil {
		return use, err
	}
	t.round++
	for _, id := range ids {
		if t.threads[id] == nil {
			t.threads[id] = &thread{old: t.round == 1}
		}
		t.threads[id].round = t.round
	}
	for id, th := range t.threads {
		if th.round != t.round {
			delete(t.threads, id)
		}
	}
	err = r.lookAt(t, ids)
	use.Threads, use.RunDelay = len(ids), t.runDelay
	for _, th := range t.threads {
		if th.uninterruptible {
			use.Uninterruptible++
		}
	}
	return use, err
}

// lookAt looks at the threads from t.next on, as many as the share allows.
func (r *Reader) lookAt(t *tasks, ids []int) error {
	slices.Sort(ids)
	ids = slices.Compact(ids) // a list of a busy cgroup may name one twice
	start, _ := slices.BinarySearch(ids, t.next)
	for i := range min(r.share, len(ids)) {
		id := ids[(start+i)%len(ids)]
		t.next = id + 1
		if err := r.look(t, id); err != nil {
			return err
		}
	}
	return nil
}

// look adds what a thread waited since it was last looked at, or since it began
// where it did so after the first listing. What is smaller than before is of
// another thread under the same number.
func (r *Reader) look(t *tasks, id int) error {
	// In the directory of any thread there is its process's list of threads,
	// and in that its own figures; those outside are of the whole process.
	at := r.root + "/" + strconv.Itoa(id)
	var buf [512]byte
	data, err := readSmall(at+"/schedstat", buf[:])
	if ended(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read schedstat of thread %d: %w", id, err)
	}
	delay, err := parseSchedstat(data)
	if err != nil {
		return err
	}
	th := t.threads[id]
	switch {
	case th.old:
	case delay >= th.runDelay:
		t.runDelay += time.Duration(delay - th.runDelay)
	default:
		t.runDelay += time.Duration(delay)
	}
	th.runDelay, th.old = delay, false
	data, err = readSmall(at+"/task/"+strconv.Itoa(id)+"/stat", buf[:])
	if ended(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of thread %d: %w", id, err)
	}
	letter, err := parseState(data)
	th.uninterruptible = letter == 'D'
	return err
}

// parseSchedstat returns the second of "running waiting slices", nanoseconds
// (proc_pid_schedstat in fs/proc/base.c).
func parseSchedstat(data []byte) (uint64, error) {
	f := bytes.Fields(data)
	if len(f) != 3 {
		return 0, fmt.Errorf("schedstat %q has not three fields", data)
	}
	n, err := strconv.ParseUint(string(f[1]), 10, 64)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("schedstat %q has no time of waiting", data)
	}
	return n, nil
}

// parseState returns the state letter behind the name, which may hold anything.
func parseState(data []byte) (byte, error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 || len(data) < end+3 || data[end+1] != ' ' {
		return 0, fmt.Errorf("stat %q has no state", data)
	}
	return data[end+2], nil
}

// threads lists an instance's threads: from its cgroup where that is its own and
// holds them itself, else process by process.
func (r *Reader) threads(in *state.Instance, list string) ([]int, error) {
	if list != "" {
		data, err := os.ReadFile(list)
		if err != nil && !absent(err) {
			return nil, fmt.Errorf("list threads: %w", err)
		}
		ids, err := parseIDs(data)
		if err != nil || len(ids) > 0 {
			return ids, err
		}
	}
	var ids []int
	for _, pid := range in.PIDs {
		names, err := readNames(filepath.Join(r.root, strconv.Itoa(pid), "task"))
		if ended(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list threads: %w", err)
		}
		for _, name := range names {
			id, err := strconv.Atoi(name)
			if err != nil {
				return nil, fmt.Errorf("list threads of process %d: %q is no thread", pid, name)
			}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func parseIDs(data []byte) ([]int, error) {
	var ids []int
	err := lines(data, func(f [][]byte) error {
		id, err := strconv.Atoi(string(f[0]))
		if err != nil || len(f) != 1 || id < 0 {
			return errors.New("not a thread")
		}
		// 0 is a thread outside our pid namespace.
		if id > 0 {
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// readSmall reads the beginning of a file that needs no more than buf, with
// three system calls: the os package would take part in polling it.
func readSmall(name string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.Read(fd, buf)
	unix.Close(fd) // nothing was written, so nothing can be lost
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// ended says that a thread or process ended while it was looked at.
func ended(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
