package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// printTraces runs in the guest: it prints everything on the node that Mooring
// could leave behind, a line each.
func printTraces() error {
	var lines []string
	add := func(kind, what string) { lines = append(lines, kind+" "+what) }
	for _, dir := range []string{"/var/lib/mooring", "/run/mooring"} {
		err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
			if err == nil {
				add("file", name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	groups, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		return fmt.Errorf("list cgroups: %w", err)
	}
	for _, g := range groups {
		if g.IsDir() {
			add("cgroup", g.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "mooring") {
			add("mount", strings.TrimSpace(line))
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, p := range processes {
		b, err := os.ReadFile(p)
		name, _, _ := strings.Cut(string(b), "\x00")
		if err == nil && strings.HasPrefix(filepath.Base(name), "mooring") {
			add("process", strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	if err := disciplines(add); err != nil {
		return err
	}
	if err := programs(add); err != nil {
		return err
	}
	slices.Sort(lines)
	_, err = fmt.Println(strings.Join(lines, "\n"))
	return err
}

// disciplines lists the queueing disciplines of every interface.
func disciplines(add func(kind, what string)) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		list, err := netlink.QdiscList(l)
		if err != nil {
			return fmt.Errorf("list qdiscs of %s: %w", l.Attrs().Name, err)
		}
		for _, q := range list {
			add("qdisc", fmt.Sprintf("%s on %s", q.Type(), l.Attrs().Name))
		}
	}
	return nil
}

// programs lists the BPF programs that the kernel holds, save those by which the
// container runtime guards devices.
func programs(add func(kind, what string)) error {
	const nextID, getFD, getInfo = 11, 13, 15 // enum bpf_cmd, include/uapi/linux/bpf.h
	const cgroupDevice = 15                   // BPF_PROG_TYPE_CGROUP_DEVICE
	for id := uint32(0); ; {
		next := struct{ start, next, flags uint32 }{start: id}
		if _, _, errno := unix.Syscall(unix.SYS_BPF, nextID, uintptr(unsafe.Pointer(&next)), unsafe.Sizeof(next)); errno != 0 {
			if errno == unix.ENOENT {
				return nil
			}
			return fmt.Errorf("list BPF programs: %w", errno)
		}
		id = next.next
		open := struct{ id, next, flags uint32 }{id: id}
		fd, _, errno := unix.Syscall(unix.SYS_BPF, getFD, uintptr(unsafe.Pointer(&open)), unsafe.Sizeof(open))
		if errno != 0 {
			continue // gone meanwhile
		}
		info := struct {
			kind, id      uint32
			tag           [8]byte
			jited, xlated uint32
			jitedAt, at   uint64
			loaded        uint64
			uid, maps     uint32
			mapsAt        uint64
			name          [16]byte
			ifindex, gpl  uint32
			device, inode uint64
			unused        [256]byte
		}{}
		ask := struct {
			fd, length uint32
			info       uint64
		}{uint32(fd), 128, uint64(uintptr(unsafe.Pointer(&info)))}
		_, _, errno = unix.Syscall(unix.SYS_BPF, getInfo, uintptr(unsafe.Pointer(&ask)), unsafe.Sizeof(ask))
		if err := unix.Close(int(fd)); err != nil || errno != 0 {
			return fmt.Errorf("look at BPF program %d: %w", id, errors.Join(errno, err))
		}
		if info.kind != cgroupDevice {
			add("program", string(bytes.TrimRight(info.name[:], "\x00")))
		}
	}
}

// traces is what printTraces finds, with the settings of the databases'
// cgroups; their sizes are not among them, for those were asked for.
func (s *stage) traces(ctx context.Context) ([]string, error) {
	out, err := s.Node.Must(ctx, filepath.Join(s.Dir, "guest", "e2e")+" traces")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(out, "\n")
	for _, pod := range databasePods() {
		values, err := s.control(ctx, pod, "cpuset.cpus.effective", "cpuset.mems.effective", "cgroup.freeze")
		if err != nil {
			return nil, err
		}
		lines = append(lines, "pod "+pod+": "+strings.Join(values, ", "))
	}
	return lines, nil
}
