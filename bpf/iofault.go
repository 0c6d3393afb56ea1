package bpf

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

//go:generate go tool bpf2go -target bpfel -type io_key -type io_rule iofault iofault.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// ErrBusy is returned when another rule holds the target.
var ErrBusy = errors.New("another rule holds the target")

// IOFaults makes reads and writes of one cgroup on one device fail. The fault
// sits where the kernel asks security_file_permission (security/security.c),
// above the page cache: the caller gets the errno and nothing below learns of
// it, so the file system and its journal stay whole.
//
// Covered are read, write and their vectored, positioned, splice, sendfile,
// copy_file_range, AIO and io_uring forms, and fallocate, of regular files,
// called by a thread whose cgroup v2 is the rule's; a child cgroup is another
// one. With AIO it is io_submit that returns the errno, not the event. Not
// covered are: loads and stores of files mapped into memory; fsync, which has
// no such hook and goes on to succeed; write-back of what the page cache took
// before the fault began; open, truncate, rename and unlink; cgroup v1.
//
// A rule ends at its deadline, or when its lease runs out, or with the
// process: nothing is pinned. While no rule is set nothing is attached to the
// kernel, so that a node without faults pays nothing for them.
//
// The methods are safe for concurrent use.
type IOFaults struct {
	mu    sync.Mutex
	hook  ioHook
	maps  iofaultMaps
	link  link.Link // nil while no rule is set
	rules map[string]iofaultIoKey
}

// OpenIOFaults loads the programs and finds a hook that works: it attaches
// each in turn and watches it fail a write of this process to a file on a
// private, unmounted file system. Loading alone proves nothing: where "bpf" is
// not in the kernel's lsm= list, a BPF LSM program attaches and never runs.
// If no hook works the error says what became of each.
//
// It needs CAP_SYS_ADMIN and a kernel with BTF, and takes some milliseconds.
func OpenIOFaults() (*IOFaults, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise memlock limit: %w", err)
	}
	var causes []error
	for _, h := range ioHooks() {
		f, err := openIOHook(h)
		if err == nil {
			return f, nil
		}
		causes = append(causes, fmt.Errorf("%s/%s: %w", h.name, h.function, err))
	}
	return nil, fmt.Errorf("no kernel hook for file faults works: %w", errors.Join(causes...))
}

// Hook returns which hook is in use, "fmod_ret" or "lsm".
func (f *IOFaults) Hook() string { return f.hook.name }

// Set arms a rule under uid and reads it back. The fault begins with one map
// write, and lasts until r.Deadline provided that Renew is called at least
// every Lease. Setting the same rule again renews the leases and changes
// nothing else.
//
// r.Major and r.Minor are those of /proc/PID/mountinfo; for btrfs st_dev of
// stat(2) is another number and no file would match. If another uid holds the
// cgroup and device, or uid holds a different rule, the error wraps ErrBusy.
func (f *IOFaults) Set(uid string, r change.IORule) error {
	if err := checkIORule(r); err != nil {
		return err
	}
	if r.CgroupID == rootCgroup {
		return errors.New("file fault: refusing the root cgroup, it is no instance")
	}
	f.mu.Lock()
	defer f.mu.Unlock()

	key, val := encodeIORule(r)
	for held, k := range f.rules {
		switch {
		case held == uid:
			old, _, err := f.get(k)
			if err != nil {
				return err
			}
			if old != r {
				return fmt.Errorf("file fault %q is set with another rule, clear it first: %w", uid, ErrBusy)
			}
			return f.renew(Lease)
		case k == key:
			return fmt.Errorf("cgroup %d on device %d:%d is held by file fault %q: %w", r.CgroupID, r.Major, r.Minor, held, ErrBusy)
		}
	}
	if err := f.attach(); err != nil {
		return err
	}
	var err error
	if now := BootTime(); r.Deadline <= now {
		err = fmt.Errorf("file fault %q: deadline %v has passed, boot time is %v", uid, r.Deadline, now)
	} else {
		err = f.arm(uid, key, val)
	}
	if err != nil {
		return errors.Join(err, f.drop(uid, key))
	}
	return nil
}

// Get returns the rule that uid holds, as it stands in the kernel, and the
// number of operations it has failed. ok is false if uid holds none. A rule
// past its deadline is still returned until it is cleared.
func (f *IOFaults) Get(uid string) (r change.IORule, hits uint64, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, ok := f.rules[uid]
	if !ok {
		return change.IORule{}, 0, false, nil
	}
	r, hits, err = f.get(key)
	if err != nil {
		return change.IORule{}, 0, false, err
	}
	return r, hits, true, nil
}

// Clear removes the rule that uid holds and checks that it is gone. When it
// returns no operation fails through the rule any more. It is idempotent.
func (f *IOFaults) Clear(uid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, ok := f.rules[uid]
	if !ok {
		return nil
	}
	return f.drop(uid, key)
}

// Renew makes every armed rule last for lease from now, at most until its own
// deadline. A rule whose lease has run out, but not its deadline, takes effect
// again.
func (f *IOFaults) Renew(lease time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.renew(lease)
}

// Close ends all faults and releases the programs.
func (f *IOFaults) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
	return errors.Join(f.detach(), f.maps.Close())
}

func (f *IOFaults) arm(uid string, key iofaultIoKey, val iofaultIoRule) error {
	if err := f.renew(Lease); err != nil {
		return err
	}
	f.rules[uid] = key
	if err := f.maps.IoRules.Update(key, val, ebpf.UpdateNoExist); err != nil {
		return fmt.Errorf("arm file fault: %w", err)
	}
	var got iofaultIoRule
	if err := f.maps.IoRules.Lookup(key, &got); err != nil {
		return fmt.Errorf("read back file fault: %w", err)
	}
	got.Hits = 0
	if got != val {
		return fmt.Errorf("read back file fault: wrote %+v, found %+v", val, got)
	}
	return nil
}

func (f *IOFaults) get(key iofaultIoKey) (change.IORule, uint64, error) {
	var val iofaultIoRule
	if err := f.maps.IoRules.Lookup(key, &val); err != nil {
		return change.IORule{}, 0, fmt.Errorf("read file fault: %w", err)
	}
	return decodeIORule(key, val), val.Hits, nil
}

func (f *IOFaults) drop(uid string, key iofaultIoKey) error {
	rules := f.maps.IoRules
	if err := rules.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("clear file fault: %w", err)
	}
	var val iofaultIoRule
	if err := rules.Lookup(key, &val); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read back cleared file fault %q: it is still there (%v)", uid, err)
	}
	// A program that found the rule just before may still be running with
	// it, and the kernel hands the memory to the next rule at once. Programs
	// run inside RCU read sections; this barrier waits for all of them. It
	// is refused only on a kernel with nohz_full CPUs, where the wait is
	// left out: a hook runs for less than a microsecond.
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	delete(f.rules, uid)
	if len(f.rules) > 0 {
		return nil
	}
	return f.detach()
}

func (f *IOFaults) renew(lease time.Duration) error {
	until := uint64(max(BootTime()+lease, 0))
	if err := putUint64(f.maps.IoLease, 0, until); err != nil {
		return fmt.Errorf("renew lease of file faults: %w", err)
	}
	return nil
}

// attach loads the hook's program and attaches it. A program is loaded anew
// each time: before Linux 5.13 one that was detached cannot be attached again.
func (f *IOFaults) attach() error {
	if f.link != nil {
		return nil
	}
	prog, err := f.load(f.hook.program)
	if err != nil {
		return err
	}
	// The link holds the program.
	defer prog.Close()
	f.link, err = f.hook.attach(prog)
	if err != nil {
		return fmt.Errorf("attach %s/%s: %w", f.hook.name, f.hook.function, err)
	}
	return nil
}

func (f *IOFaults) detach() error {
	if f.link == nil {
		return nil
	}
	err := f.link.Close()
	f.link = nil
	if err != nil {
		return fmt.Errorf("detach %s/%s: %w", f.hook.name, f.hook.function, err)
	}
	return nil
}

// checkIORule refuses what the kernel program would not do or would do to
// somebody else.
func checkIORule(r change.IORule) error {
	switch {
	case r.CgroupID == 0:
		return errors.New("file fault: no cgroup id")
	case r.Major >= 1<<12 || r.Minor >= 1<<minorBits:
		return fmt.Errorf("file fault: device %d:%d is out of the kernel's range", r.Major, r.Minor)
	case r.Major == 0 && r.Minor == 0:
		return errors.New("file fault: no device")
	case !r.Read && !r.Write:
		return errors.New("file fault: neither reads nor writes are chosen")
	case r.Errno < 1 || r.Errno > maxErrno:
		return fmt.Errorf("file fault: errno %d is not in 1..%d", r.Errno, maxErrno)
	case r.PPM < 1 || r.PPM > 1_000_000:
		return fmt.Errorf("file fault: share of %d ppm is not in 1..1000000", r.PPM)
	}
	return nil
}

const (
	// rootCgroup is the inode number of the root of a cgroup2 file system,
	// fixed by kernfs (fs/kernfs/dir.c, kernfs_create_root).
	rootCgroup = 1

	// minorBits is MINORBITS of include/linux/kdev_t.h.
	minorBits = 20
	// maxErrno is MAX_ERRNO of include/linux/err.h.
	maxErrno = 4095

	// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of
	// include/uapi/linux/membarrier.h: wait for an RCU grace period.
	membarrierGlobal = 1

	// include/linux/fs.h.
	mayWrite = 0x2
	mayRead  = 0x4
)

func encodeIORule(r change.IORule) (iofaultIoKey, iofaultIoRule) {
	var mask uint32
	if r.Read {
		mask |= mayRead
	}
	if r.Write {
		mask |= mayWrite
	}
	return iofaultIoKey{Cgroup: r.CgroupID, Dev: kernelDev(r.Major, r.Minor)},
		iofaultIoRule{
			Deadline: uint64(r.Deadline),
			Err:      -int64(r.Errno),
			Ppm:      r.PPM,
			Mask:     mask,
		}
}

func decodeIORule(k iofaultIoKey, v iofaultIoRule) change.IORule {
	return change.IORule{
		CgroupID: k.Cgroup,
		Major:    k.Dev >> minorBits,
		Minor:    k.Dev & (1<<minorBits - 1),
		Read:     v.Mask&mayRead != 0,
		Write:    v.Mask&mayWrite != 0,
		Errno:    int(-v.Err),
		PPM:      v.Ppm,
		Deadline: time.Duration(v.Deadline),
	}
}

// kernelDev encodes a device number as the kernel keeps it, which is not how
// stat(2) returns it.
func kernelDev(major, minor uint32) uint32 { return major<<minorBits | minor }

// putUint64 writes one entry of an array map and reads it back.
func putUint64(m *ebpf.Map, index uint32, value uint64) error {
	if err := m.Put(index, value); err != nil {
		return err
	}
	var got uint64
	if err := m.Lookup(index, &got); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if got != value {
		return fmt.Errorf("read back: wrote %d, found %d", value, got)
	}
	return nil
}
