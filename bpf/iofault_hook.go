package bpf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// ioHook is one way to get between a process and its file operations.
type ioHook struct {
	name     string
	function string
	program  string
	attach   func(*ebpf.Program) (link.Link, error)
}

// ioHooks returns the hooks in order of preference. The trampoline comes first
// because it does not depend on the boot parameter lsm=.
func ioHooks() []ioHook {
	return []ioHook{
		{
			name: "fmod_ret", function: "security_file_permission", program: "on_sec_fileperm",
			attach: func(p *ebpf.Program) (link.Link, error) {
				return link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachModifyReturn})
			},
		},
		{
			name: "lsm", function: "file_permission", program: "on_lsm_fileperm",
			attach: func(p *ebpf.Program) (link.Link, error) {
				return link.AttachLSM(link.LSMOptions{Program: p})
			},
		},
	}
}

// openIOHook makes the maps and tries the hook out.
func openIOHook(h ioHook) (*IOFaults, error) {
	f := &IOFaults{hook: h, rules: make(map[string]iofaultIoKey)}
	if err := loadIofaultObjects(&f.maps, nil); err != nil {
		return nil, fmt.Errorf("create maps: %w", err)
	}
	if err := f.selfTest(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// load loads one program on the maps of f. The others are left out: one that
// the kernel refuses must not keep the rest from being used.
func (f *IOFaults) load(program string) (*ebpf.Program, error) {
	spec, err := loadIofault()
	if err != nil {
		return nil, fmt.Errorf("read embedded object: %w", err)
	}
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Cache: sharedKernelTypes(),
		MapReplacements: map[string]*ebpf.Map{
			"io_rules": f.maps.IoRules, "io_lease": f.maps.IoLease, "io_self": f.maps.IoSelf,
		},
	})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("the agent needs CAP_SYS_ADMIN and a kernel that is not locked down: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", program, err)
	}
	defer coll.Close()
	return coll.DetachProgram(program), nil
}

const (
	selfTestUID = "self-test"
	// selfTestErrno is what no file system returns by itself.
	selfTestErrno = unix.ENOTRECOVERABLE
)

// selfTest watches the hook fail a write of this thread, and let it pass again
// when the deadline is over.
func (f *IOFaults) selfTest() error {
	// The thread whose cgroup is asked for must be the one that writes.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	file, dev, err := privateFile()
	if err != nil {
		return fmt.Errorf("self-test file: %w", err)
	}
	defer file.Close()
	id, err := f.ownCgroup()
	if err != nil {
		return fmt.Errorf("ask for own cgroup id: %w", err)
	}
	rule := change.IORule{
		CgroupID: id, Major: unix.Major(dev), Minor: unix.Minor(dev),
		Write: true, Errno: int(selfTestErrno), PPM: 1_000_000,
	}
	rule.Deadline = BootTime() + time.Minute
	if err := f.tryRule(rule, file, selfTestErrno); err != nil {
		return err
	}
	rule.Deadline = BootTime()
	return f.tryRule(rule, file, nil)
}

// ownCgroup returns the cgroup id of the calling thread as the kernel has it:
// in a cgroup namespace /proc does not tell.
func (f *IOFaults) ownCgroup() (id uint64, err error) {
	prog, err := f.load("on_self_test")
	if err != nil {
		return 0, err
	}
	defer prog.Close()
	if _, err := prog.Run(nil); err != nil {
		return 0, err
	}
	return id, f.maps.IoSelf.Lookup(uint32(0), &id)
}

// tryRule arms rule, writes, and compares the outcome. The root cgroup is
// allowed here: nobody else has a file on the device.
func (f *IOFaults) tryRule(rule change.IORule, file *os.File, want error) error {
	if err := checkIORule(rule); err != nil {
		return err
	}
	if err := f.attach(); err != nil {
		return err
	}
	key, val := encodeIORule(rule)
	err := f.arm(selfTestUID, key, val)
	if err == nil {
		_, got := file.WriteAt([]byte{1}, 0)
		switch {
		case want != nil && got == nil:
			err = errors.New("attached but never runs, see lsm= on the kernel command line")
		case want == nil && got != nil:
			err = fmt.Errorf("a rule past its deadline still failed a write: %w", got)
		case want != nil && !errors.Is(got, want):
			err = fmt.Errorf("self-test write: want %v, got %w", want, got)
		}
	}
	return errors.Join(err, f.drop(selfTestUID, key))
}

// privateFile returns a regular file on a file system of its own, which is
// mounted nowhere and gone when the file is closed, and its device as stat(2)
// gives it. Being alone there makes it safe to break.
func privateFile() (*os.File, uint64, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, 0, fmt.Errorf("fsopen tmpfs: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, 0, fmt.Errorf("fsconfig tmpfs: %w", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("fsmount tmpfs: %w", err)
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open temporary file: %w", err)
	}
	file := os.NewFile(uintptr(fd), "self-test")
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("stat temporary file: %w", err), file.Close())
	}
	return file, st.Dev, nil
}
