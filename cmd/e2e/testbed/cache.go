package testbed

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Cache is the folder that cmd/vmtest/setup.sh fills.
type Cache struct {
	Dir  string
	lock *os.File
}

// OpenCache finds the cache folder and holds it: setup.sh replaces nothing in
// it until Close. What is missing is an error that says how to get it.
func OpenCache(getenv func(string) string) (*Cache, error) {
	c := &Cache{Dir: cacheFolder(getenv)}
	var err error
	if c.lock, err = os.Open(filepath.Join(c.Dir, "use.lock")); err != nil {
		return nil, fmt.Errorf("find the cache folder: %w: run cmd/vmtest/setup.sh all", err)
	}
	if err := unix.Flock(int(c.lock.Fd()), unix.LOCK_SH); err != nil {
		c.Close()
		return nil, fmt.Errorf("lock %s: %w", c.lock.Name(), err)
	}
	for tree, argument := range map[string]string{"qemu": "vm", "rootfs": "vm", "kube": "kube", "control": "kube"} {
		if _, err := os.Stat(filepath.Join(c.Dir, tree, ".stamp")); err != nil {
			c.Close()
			return nil, fmt.Errorf("%s is not in %s: run cmd/vmtest/setup.sh %s", tree, c.Dir, argument)
		}
	}
	return c, nil
}

// Close lets setup.sh go on.
func (c *Cache) Close() error { return c.lock.Close() }

// cacheFolder is the folder; the rule is the same in setup.sh.
func cacheFolder(getenv func(string) string) string {
	if d := getenv("MOORING_CACHE"); d != "" {
		return d
	}
	if d := getenv("XDG_CACHE_HOME"); d != "" {
		return filepath.Join(d, "mooring")
	}
	return filepath.Join(getenv("HOME"), ".cache", "mooring")
}

// Rootfs is the guest's Debian tree.
func (c *Cache) Rootfs() string { return filepath.Join(c.Dir, "rootfs") }

// Kube returns the path of a program of Kubernetes, of containerd, or of helm.
func (c *Cache) Kube(name string) string { return filepath.Join(c.Dir, "kube", "bin", name) }

// Control returns the path of a file of the packages unpacked for the test.
func (c *Cache) Control(name string) string { return filepath.Join(c.Dir, "control", name) }

// foreign returns the command that runs a program of the Debian tree with the
// tree's own loader and libraries, without entering the tree.
func (c *Cache) foreign(program string) []string {
	const triplet = "x86_64-linux-gnu"
	tree := c.Rootfs()
	return []string{
		filepath.Join(tree, "lib64/ld-linux-x86-64.so.2"), "--library-path",
		filepath.Join(tree, "lib", triplet) + ":" + filepath.Join(tree, "usr/lib", triplet), filepath.Join(tree, program),
	}
}
