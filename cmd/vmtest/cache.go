package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cache is the folder setup.sh fills. Each tree in it has a file .stamp once it
// is whole; a tree without one is treated as not there.
type cache struct{ dir string }

// missingError names what setup.sh has to fetch first.
type missingError struct{ what, dir, argument string }

func (e *missingError) Error() string {
	return fmt.Sprintf("%s is not in %s: run \"make tools\" or \"cmd/vmtest/setup.sh %s\"", e.what, e.dir, e.argument)
}

// hold takes the lock that keeps setup.sh from replacing a tree until the file
// returned is closed. It blocks while a tree is being replaced, which takes
// no longer than a rename.
func (c cache) hold() (*os.File, error) {
	f, err := os.Open(filepath.Join(c.dir, "use.lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &missingError{"the virtual machine", c.dir, "vm"}
	}
	if err != nil {
		return nil, fmt.Errorf("open cache lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func whole(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ".stamp"))
	return err == nil
}

// rootfs returns the folder of the guest's Debian tree.
func (c cache) rootfs() (string, error) {
	dir := filepath.Join(c.dir, "rootfs")
	if !whole(dir) {
		return "", &missingError{"the guest's Debian tree", c.dir, "vm"}
	}
	return dir, nil
}

// qemu returns the folder of the unpacked QEMU.
func (c cache) qemu() (string, error) {
	dir := filepath.Join(c.dir, "qemu")
	if !whole(dir) {
		return "", &missingError{"QEMU", c.dir, "vm"}
	}
	return dir, nil
}

// kernel is one unpacked kernel.
type kernel struct{ release, image, modules string }

// kernel finds a kernel by version, by release, or, if name has a slash, by folder.
func (c cache) kernel(name string) (kernel, error) {
	dir := name
	if !strings.Contains(name, "/") {
		dir = filepath.Join(c.dir, "kernels", name)
		if !whole(dir) {
			return kernel{}, &missingError{fmt.Sprintf("kernel %q", name), c.dir, "kernel " + name}
		}
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return kernel{}, fmt.Errorf("find kernel %q: %w", name, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return kernel{}, fmt.Errorf("find kernel %q: %w", name, err)
	}
	releases, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/modules.dep"))
	if err != nil || len(releases) != 1 {
		return kernel{}, fmt.Errorf("kernel folder %s: want one lib/modules/RELEASE/modules.dep, found %d", dir, len(releases))
	}
	k := kernel{modules: filepath.Dir(releases[0])}
	k.release = filepath.Base(k.modules)
	k.image = filepath.Join(dir, "boot", "vmlinuz-"+k.release)
	if _, err := os.Stat(k.image); err != nil {
		return kernel{}, fmt.Errorf("kernel folder %s: %w", dir, err)
	}
	return k, nil
}

// foreign returns the command that runs a program of an unpacked Debian tree
// with that tree's own loader and libraries, so that nothing of this
// machine's is needed and nothing has to be installed.
func foreign(tree, program string) []string {
	const triplet = "x86_64-linux-gnu"
	libraries := filepath.Join(tree, "lib", triplet) + ":" + filepath.Join(tree, "usr/lib", triplet)
	return []string{
		filepath.Join(tree, "lib64/ld-linux-x86-64.so.2"),
		"--library-path", libraries, filepath.Join(tree, program),
	}
}
