package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// Files carries out changes of the classes File and Freeze. It implements
// change.Handler. The zero value is ready for use.
//
// Apply and Revert block while the kernel works: lowering memory.max reclaims
// first, and freezing is waited for, for up to two seconds. When Apply fails
// the file may already hold the new value; Revert puts the old one back.
type Files struct {
	// write writes a value to an open control file; nil is the kernel's way.
	// Tests put a file system without control files behind it.
	write func(fd int, file, value string) error
}

var _ change.Handler = Files{}

// Prepare checks that the file is on the allow-list, that it exists in the
// very cgroup the change names and that the value makes sense, and fills Old.
func (h Files) Prepare(c *change.Change) error {
	t, err := h.target(*c)
	if err != nil {
		return err
	}
	if err := t.control.check(c.File.New); err != nil {
		return fmt.Errorf("prepare %s: %w", t.path, err)
	}
	if c.Class == change.Freeze && !isFrozenValue(t.file, c.File.New) {
		return fmt.Errorf("prepare %s: value %q does not freeze", t.path, c.File.New)
	}
	fd, err := t.open()
	if err != nil {
		return fmt.Errorf("prepare %s: %w", t.path, err)
	}
	defer unix.Close(fd)
	old, err := readValue(t.path)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", t.path, explain(t.file, err))
	}
	if c.Class == change.Freeze {
		if err := frozenAlready(t.file, old); err != nil {
			return fmt.Errorf("prepare %s: %w", t.path, err)
		}
	}
	c.File.Old = old
	return nil
}

// Apply writes New and reads it back.
func (h Files) Apply(c change.Change) error {
	t, err := h.target(c)
	if err != nil {
		return err
	}
	if err := t.control.check(c.File.New); err != nil {
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	return h.set(t, c.File.New)
}

// Revert writes Old and reads it back. A cgroup that is gone, or another under
// its name, holds nothing of ours.
func (h Files) Revert(c change.Change) error {
	t, err := h.target(c)
	if err != nil {
		return err
	}
	if err := t.control.check(c.File.Old); err != nil {
		return fmt.Errorf("restore %s: no usable value was recorded: %w", t.path, err)
	}
	if err := t.survivable(c.File.Old); err != nil {
		return err
	}
	if err := h.set(t, c.File.Old); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	return nil
}

// target is one control file of one cgroup.
type target struct {
	path, dir, file string
	id              uint64
	control         control
}

func (Files) target(c change.Change) (target, error) {
	if c.File == nil {
		return target{}, fmt.Errorf("change of class %q names no file", c.Class)
	}
	p := c.File.Path
	if !filepath.IsAbs(p) || filepath.Clean(p) != p || slices.Contains(strings.Split(p, "/"), "..") {
		return target{}, fmt.Errorf("control file %q is not an absolute and clean path", p)
	}
	t := target{path: p, dir: filepath.Dir(p), file: filepath.Base(p), id: c.File.CgroupID}
	control, ok := controlOf(t.file)
	if !ok {
		return target{}, fmt.Errorf("control file %q is not one that Mooring writes", p)
	}
	if control.class != c.Class {
		return target{}, fmt.Errorf("control file %q belongs to class %q, not %q", p, control.class, c.Class)
	}
	t.control = control
	return t, nil
}

// survivable refuses to put back a memory limit of version 2 that lies below
// what is in use by now: the kernel would kill for it, and a database that is
// over its old limit is better than one that is dead. Version 1 refuses such a
// write itself, with EBUSY.
func (t target) survivable(old string) error {
	limit, err := strconv.ParseInt(old, 10, 64)
	if t.file != "memory.max" || err != nil {
		return nil // no limit at all
	}
	keys, err := readKeys(filepath.Join(t.dir, "memory.stat"))
	if err != nil {
		return nil // gone, or without memory: set says so
	}
	if used := keys["anon"] + keys["shmem"] + keys["sock"] + kernelInUse(keys); used > limit {
		return fmt.Errorf("restore %s: %s are in use and the old limit is %s: lower the database's cache, or give it a limit it fits in; nothing was written",
			t.path, sizeText(used), sizeText(limit))
	}
	return nil
}

// open opens the control file for writing in the directory that the change is
// meant for, whatever now has its name. The caller closes the descriptor.
func (t target) open() (int, error) {
	dir, err := unix.Open(t.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, gone(err)
	}
	defer unix.Close(dir)
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return -1, gone(err)
	}
	if st.Ino != t.id {
		return -1, fmt.Errorf("%w: the directory is number %d and not %d, another cgroup of the same name", ErrGone, st.Ino, t.id)
	}
	fd, err := unix.Openat(dir, t.file, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, t.missing(err)
	}
	if err != nil {
		return -1, explain(t.file, err)
	}
	return fd, nil
}

// missing tells a cgroup that went away while its file was opened from one
// whose controller was switched off.
func (t target) missing(err error) error {
	if id, idErr := inode(t.dir); idErr != nil || id != t.id {
		return gone(err)
	}
	return fmt.Errorf("the controller is not enabled for this cgroup: %w", err)
}

// set writes a value and checks that the kernel took it.
func (h Files) set(t target, value string) error {
	fd, err := t.open()
	if err != nil {
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	defer unix.Close(fd)
	write := h.write
	if write == nil {
		write = writeControl
	}
	err = write(fd, t.file, value)
	if all, ok := t.inherited(); ok && value == "" && errors.Is(err, unix.ENOSPC) {
		value = all
		err = write(fd, t.file, value)
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", value, t.path, explain(t.file, err))
	}
	if err := t.verify(value); err != nil {
		return fmt.Errorf("read back %s: %w", t.path, err)
	}
	return nil
}

// inherited returns what a cpuset of version 2 has when it is empty: all that
// the cgroup above has. The kernel takes an empty set only for a cgroup
// without processes (validate_change in kernel/cgroup/cpuset.c), so an
// instance that runs gets the list itself. It has the same CPUs then, but does
// not follow when the cgroup above changes.
func (t target) inherited() (string, bool) {
	if t.control.effective == "" {
		return "", false
	}
	all, err := readValue(filepath.Join(filepath.Dir(t.dir), t.control.effective))
	return all, err == nil && all != ""
}

func (t target) verify(value string) error {
	if t.control.class == change.Freeze {
		if err := awaitFreezer(t.dir, t.file, value); err != nil {
			return t.goneOr(err)
		}
	}
	got, err := readValue(t.path)
	if err != nil {
		return t.goneOr(err)
	}
	if !t.control.same(got, value) {
		return fmt.Errorf("it holds %q after %q was written", got, value)
	}
	return t.goneOr(checkEffective(t.dir, t.control, value))
}

func (t target) goneOr(err error) error {
	if isMissing(err) {
		return t.missing(err)
	}
	if isNoDevice(err) {
		return gone(err)
	}
	return err
}

// writeControl writes a value in one call. An empty value is written as a
// line, since the kernel never sees a write of nothing. EINTR means that the
// kernel gave up reclaiming because a signal came, as Go's runtime sends them,
// and that nothing was set.
func writeControl(fd int, _, value string) error {
	line := []byte(value + "\n")
	for {
		n, err := unix.Write(fd, line)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n != len(line) {
			return fmt.Errorf("wrote %d of %d bytes", n, len(line))
		}
		return err
	}
}
