package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGuestHasOnlyTheDevicesAskedFor(t *testing.T) {
	arguments := strings.Join(qemuArguments(options{memory: gib, accel: "tcg"}, devices{}), " ")
	require.NotContains(t, arguments, "virtio-net")
	require.NotContains(t, arguments, "virtio-blk")

	with := qemuArguments(options{memory: gib, accel: "tcg", tap: "tap7"}, devices{scratch: "/s", image: "/a,b"})
	require.Contains(t, with, "tap,id=net,ifname=tap7,script=no,downscript=no")
	image := with[slices.IndexFunc(with, func(a string) bool { return strings.Contains(a, "id=state") })]
	require.Contains(t, image, "snapshot=on", "the guest's writes do not reach the image")
	require.Contains(t, image, "file=/a,,b")
	scratch := slices.IndexFunc(with, func(a string) bool { return strings.Contains(a, "id=scratch") })
	require.NotContains(t, with[scratch], "snapshot")
}

func TestHardwareAddressFollowsTheInterface(t *testing.T) {
	require.Regexp(t, "^52:54:00(:[0-9a-f]{2}){3}$", hardwareAddress("tap0"))
	require.Equal(t, hardwareAddress("tap0"), hardwareAddress("tap0"))
	require.NotEqual(t, hardwareAddress("tap0"), hardwareAddress("tap1"))
}

func TestBootModulesFollowTheJob(t *testing.T) {
	require.NotContains(t, bootModules(job{}), "virtio_net")
	require.Contains(t, bootModules(job{Network: true}), "virtio_net")
}

func TestImageFileRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	_, err := imageFile(dir)
	require.ErrorContains(t, err, "is not a file")
	_, err = imageFile(filepath.Join(dir, "gone"))
	require.ErrorIs(t, err, os.ErrNotExist)
	name := filepath.Join(dir, "disk")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	got, err := imageFile(name)
	require.NoError(t, err)
	require.Equal(t, name, got)
}

func TestDiskBySerial(t *testing.T) {
	sys := t.TempDir()
	for disk, serial := range map[string]string{"vda": "scratch", "vdb": "state\n"} {
		require.NoError(t, os.MkdirAll(filepath.Join(sys, disk), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(sys, disk, "serial"), []byte(serial), 0o600))
	}
	got, err := diskBySerial(sys, "state")
	require.NoError(t, err)
	require.Equal(t, "/dev/vdb", got)
	_, err = diskBySerial(sys, "stat")
	require.ErrorContains(t, err, `no disk with serial "stat"`)
}
