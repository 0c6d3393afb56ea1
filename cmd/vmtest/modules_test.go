package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulesDep = `kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/net/9p/9pnet.ko
kernel/fs/netfs/netfs.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio.ko:
kernel/crypto/crc32c-generic.ko:
`

func index(t *testing.T, dep, builtin string) *moduleIndex {
	t.Helper()
	x, err := readModuleIndex(strings.NewReader(dep), strings.NewReader(builtin))
	require.NoError(t, err)
	return x
}

func TestResolve(t *testing.T) {
	x := index(t, modulesDep, "kernel/fs/ext4/ext4.ko\n")
	t.Run("puts what is needed first and each file once", func(t *testing.T) {
		files, err := x.resolve([]string{"9pnet_virtio", "9p"})
		require.NoError(t, err)
		require.Equal(t, []string{
			"kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko", "kernel/net/9p/9pnet.ko",
			"kernel/net/9p/9pnet_virtio.ko.xz", "kernel/fs/netfs/netfs.ko", "kernel/fs/9p/9p.ko",
		}, files)
	})
	t.Run("takes dash and underscore for the same", func(t *testing.T) {
		files, err := x.resolve([]string{"crc32c_generic"})
		require.NoError(t, err)
		require.Equal(t, []string{"kernel/crypto/crc32c-generic.ko"}, files)
	})
	t.Run("has no file for a built-in module", func(t *testing.T) {
		files, err := x.resolve([]string{"ext4"})
		require.NoError(t, err)
		require.Empty(t, files)
	})
	t.Run("refuses a module the kernel does not have", func(t *testing.T) {
		_, err := x.resolve([]string{"overlay"})
		require.ErrorContains(t, err, `no module "overlay"`)
	})
	t.Run("ends on a circle", func(t *testing.T) {
		files, err := index(t, "a.ko: b.ko\nb.ko: a.ko\n", "").resolve([]string{"a"})
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a.ko", "b.ko"}, files)
	})
}

func TestReadModuleIndexRefusesOtherFiles(t *testing.T) {
	_, err := readModuleIndex(strings.NewReader("not a module index\n"), strings.NewReader(""))
	require.ErrorContains(t, err, "has no colon")
	_, err = readModuleIndex(strings.NewReader("kernel/.ko:\n"), strings.NewReader(""))
	require.ErrorContains(t, err, "names no module")
}

func FuzzReadModuleIndex(f *testing.F) {
	f.Add(modulesDep)
	f.Add("a.ko: b.ko\nb.ko: a.ko\n")
	f.Add(".ko0:")
	f.Add(":")
	f.Fuzz(func(t *testing.T, dep string) {
		x, err := readModuleIndex(strings.NewReader(dep), strings.NewReader(""))
		if err != nil {
			return
		}
		for name := range x.files {
			files, err := x.resolve([]string{name})
			require.NoError(t, err)
			require.Equal(t, x.files[name], files[len(files)-1])
		}
	})
}
