package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, name string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, nil, 0o644))
}

func TestCacheKernel(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "kernels/6.1.0-1-amd64")
	write(t, folder+"/lib/modules/6.1.0-1-amd64/modules.dep")
	write(t, folder+"/boot/vmlinuz-6.1.0-1-amd64")
	require.NoError(t, os.Symlink("6.1.0-1-amd64", filepath.Join(dir, "kernels/6.1")))
	c := cache{dir}
	want := kernel{
		release: "6.1.0-1-amd64", image: folder + "/boot/vmlinuz-6.1.0-1-amd64",
		modules: folder + "/lib/modules/6.1.0-1-amd64",
	}
	t.Run("is not there before it is whole", func(t *testing.T) {
		_, err := c.kernel("6.1")
		var missing *missingError
		require.ErrorAs(t, err, &missing)
		require.ErrorContains(t, err, `kernel "6.1" is not in`)
		require.ErrorContains(t, err, "setup.sh kernel 6.1")
	})
	write(t, folder+"/.stamp")
	for _, name := range []string{"6.1", "6.1.0-1-amd64", folder, folder + "/"} {
		t.Run("is found as "+filepath.Base(name), func(t *testing.T) {
			k, err := c.kernel(name)
			require.NoError(t, err)
			require.Equal(t, want, k)
		})
	}
	t.Run("is refused without its image", func(t *testing.T) {
		require.NoError(t, os.Remove(want.image))
		_, err := c.kernel("6.1")
		require.ErrorContains(t, err, "vmlinuz-6.1.0-1-amd64")
	})
	t.Run("is refused where the folder holds none", func(t *testing.T) {
		_, err := c.kernel(t.TempDir())
		require.ErrorContains(t, err, "want one lib/modules/RELEASE/modules.dep, found 0")
	})
}

func TestCacheTreesAreThereOnceStamped(t *testing.T) {
	c := cache{t.TempDir()}
	for name, find := range map[string]func() (string, error){"rootfs": c.rootfs, "qemu": c.qemu} {
		_, err := find()
		require.ErrorContains(t, err, "setup.sh vm")
		write(t, filepath.Join(c.dir, name, ".stamp"))
		dir, err := find()
		require.NoError(t, err)
		require.Equal(t, filepath.Join(c.dir, name), dir)
	}
}

func TestQEMUArguments(t *testing.T) {
	o := options{memory: 3*gib + mib, cmdline: "a=b", accel: "tcg"}
	d := devices{tree: "/q", scratch: "/s,1", shares: []share{
		{Tag: "root", host: "/r"}, {Tag: "share0", host: "/o,ut", Writable: true},
	}}
	a := qemuArguments(o, d)
	require.Contains(t, a, "tcg,thread=multi,tb-size=384")
	require.Contains(t, a, "3072M", "a node cannot have half a megabyte")
	require.Contains(t, a, "local,id=root,path=/r,security_model=none,multidevs=remap,readonly=on")
	require.Contains(t, a, "local,id=share0,path=/o,,ut,security_model=none,multidevs=remap")
	require.Contains(t, a, "if=none,id=scratch,format=raw,cache=unsafe,file=/s,,1")
	require.Contains(t, a[slices.Index(a, "-append")+1], " a=b")

	d.scratch, o.accel = "", "kvm"
	a = qemuArguments(o, d)
	require.Contains(t, a, "kvm")
	require.NotContains(t, a, "-drive")
}
