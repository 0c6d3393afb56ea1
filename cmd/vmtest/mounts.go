package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is one file system to mount.
type mount struct {
	source, target, kind, data string
	flags                      uintptr
}

// do mounts it below root, making the target if need be.
func (m mount) do(root string) error {
	target := filepath.Join(root, m.target)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount(m.source, target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, target, err)
	}
	return nil
}

// earlyMounts are what the initramfs needs to find the port to the host.
func earlyMounts() []mount {
	return []mount{
		{source: "proc", target: "/proc", kind: "proc"},
		{source: "sys", target: "/sys", kind: "sysfs"},
		{source: "dev", target: "/dev", kind: "devtmpfs"},
	}
}

// systemMounts are those a Debian system would have after its boot. /tmp is one
// of them, so the folder of a test binary is shared in afterwards.
func systemMounts() []mount {
	const nodev = unix.MS_NOSUID | unix.MS_NODEV
	return append(earlyMounts(), []mount{
		{"devpts", "/dev/pts", "devpts", "ptmxmode=666,mode=620,gid=5", 0},
		{"shm", "/dev/shm", "tmpfs", "mode=1777", nodev},
		{"mqueue", "/dev/mqueue", "mqueue", "", nodev},
		{"hugepages", "/dev/hugepages", "hugetlbfs", "", nodev},
		{"run", "/run", "tmpfs", "mode=755", nodev},
		{"tmp", "/tmp", "tmpfs", "mode=1777", nodev},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", "", nodev},
		{"bpf", "/sys/fs/bpf", "bpf", "mode=700", nodev},
		{"debugfs", "/sys/kernel/debug", "debugfs", "", nodev},
		{"tracefs", "/sys/kernel/tracing", "tracefs", "", nodev},
		{"securityfs", "/sys/kernel/security", "securityfs", "", nodev},
	}...)
}

// ninePData are the options of a 9p mount. msize above 512000 is cut by the
// virtio transport (net/9p/trans_virtio.c). cache=loose caches without ever
// asking the host again, which is right for a tree nobody may change, and wrong
// for one whose content the host is to see.
func ninePData(writable bool) string {
	if writable {
		return "trans=virtio,version=9p2000.L,msize=512000,cache=none"
	}
	return "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
}

// switchRoot makes the Debian tree, under a tmpfs that takes all writes, the
// root of this process. The kernel threads share that root with process 1, so
// the kernel's own modprobe is found there too.
func switchRoot(j job) error {
	for _, m := range []mount{
		{j.Shares[0].Tag, "/lower", "9p", ninePData(false), unix.MS_RDONLY},
		{"upper", "/upper", "tmpfs", "mode=755", 0},
	} {
		if err := m.do(""); err != nil {
			return err
		}
	}
	if err := overlay("/lower", "/upper", "/new"); err != nil {
		return err
	}
	for _, m := range earlyMounts() {
		if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount early %s: %w", m.target, err)
		}
	}
	// Moved to "/" and not only chroot'ed into: a container runtime's
	// pivot_root refuses a root that is no mount point.
	if err := unix.Chdir("/new"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter changed root: %w", err)
	}
	return nil
}

// overlay mounts lower on target, with the writes going to upper.
func overlay(lower, upper, target string) error {
	changes, work := filepath.Join(upper, "changes"), filepath.Join(upper, "work")
	for _, d := range []string{changes, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make overlay folder: %w", err)
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, changes, work)
	return mount{source: "overlay", target: target, kind: "overlay", data: data}.do("")
}

// configure brings the system to the state a program may expect.
func configure(j job) error {
	for _, m := range systemMounts() {
		if err := m.do(""); err != nil {
			return err
		}
	}
	for _, s := range j.Shares[1:] {
		if err := mountShare(s); err != nil {
			return err
		}
	}
	if j.Scratch {
		m := mount{source: "/dev/vda", target: "/scratch", kind: "ext4"}
		if err := m.do(""); err != nil {
			return err
		}
	}
	if j.Image {
		device, err := diskBySerial("/sys/block", imageSerial)
		if err != nil {
			return err
		}
		m := mount{source: device, target: "/state", kind: "ext4", flags: unix.MS_NOATIME}
		if err := m.do(""); err != nil {
			return err
		}
	}
	for _, step := range []func() error{enableControllers, writeFiles, linkDevices, loopbackUp, raiseLimits} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// imageSerial names the disk of -image to the guest: which letter it gets
// depends on what other disks there are.
const imageSerial = "state"

// diskBySerial finds the device of the virtio disk with that serial, which
// drivers/block/virtio_blk.c shows in sysfs.
func diskBySerial(sysBlock, serial string) (string, error) {
	files, err := filepath.Glob(filepath.Join(sysBlock, "*", "serial"))
	if err != nil {
		return "", fmt.Errorf("list disks: %w", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == serial {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(f))), nil
		}
	}
	return "", fmt.Errorf("no disk with serial %q among %q", serial, files)
}

func mountShare(s share) error {
	if s.Writable {
		return mount{source: s.Tag, target: s.Path, kind: "9p", data: ninePData(true)}.do("")
	}
	dir := filepath.Join("/run/vmtest", s.Tag)
	lower := mount{s.Tag, filepath.Join(dir, "lower"), "9p", ninePData(false), unix.MS_RDONLY}
	if err := lower.do(""); err != nil {
		return err
	}
	return overlay(lower.target, dir, s.Path)
}

// enableControllers passes every cgroup controller on to the groups below the root.
func enableControllers() error {
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("list cgroup controllers: %w", err)
	}
	var line bytes.Buffer
	for name := range strings.FieldsSeq(string(b)) {
		line.WriteString("+" + name + " ")
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", line.Bytes(), 0o644); err != nil {
		return fmt.Errorf("enable cgroup controllers %q: %w", line.String(), err)
	}
	return nil
}

func writeFiles() error {
	if err := unix.Sethostname([]byte("vmtest")); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	for name, content := range map[string]string{
		"/etc/hostname":    "vmtest\n",
		"/etc/hosts":       "127.0.0.1 localhost vmtest\n::1 localhost\n",
		"/etc/resolv.conf": "", // there is no network: a look-up is to fail at once
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
	return nil
}

// linkDevices makes the links that udev makes elsewhere.
func linkDevices() error {
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link device: %w", err)
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket for lo: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("make request for lo: %w", err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// raiseLimits gives the program what a service manager would: the kernel
// starts process 1 with 1024 open files and at most 4096.
func raiseLimits() error {
	limit := unix.Rlimit{Cur: 64 << 10, Max: 512 << 10}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise limit of open files: %w", err)
	}
	return nil
}
