//go:build kernel && kernelv1numa

package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// TestV1PinMovesThePagesAlong takes the controllers it needs away from version
// 2 and mounts them as version 1. It needs a virtual machine with two NUMA
// nodes that was started without cgroup_no_v1, and runs alone (-run V1).
func TestV1PinMovesThePagesAlong(t *testing.T) {
	put(t, root2+"/cgroup.subtree_control", "-cpu -cpuset -memory")
	root := t.TempDir()
	paths := map[string]string{}
	var dirs []string
	for _, c := range []string{"cpu", "cpuset", "memory"} {
		mount := filepath.Join(root, c)
		require.NoError(t, os.Mkdir(mount, 0o755))
		require.Eventually(t, func() bool { return unix.Mount("cgroup", mount, "cgroup", 0, c) == nil },
			eventually, often, "the controller %s is let go", c)
		t.Cleanup(func() { require.NoError(t, unix.Unmount(mount, 0)) })
		paths[c] = "/db"
		dirs = append(dirs, filepath.Join(mount, "db"))
		makeDir(t, filepath.Join(mount, "db"))
	}
	fs, err := New(root)
	require.NoError(t, err)
	require.Equal(t, 1, fs.Version())
	g, err := fs.Open(paths)
	require.NoError(t, err)
	home, err := g.PlanPin("0", "0")
	require.NoError(t, err)
	apply(t, change.File, home...)
	startIn(t, 64, dirs...)
	require.Greater(t, nodeShare(stat(t, g), 0), 0.9)
	away, err := g.PlanPin("1", "1")
	require.NoError(t, err)
	apply(t, change.File, away...)
	require.Eventually(t, func() bool { return nodeShare(stat(t, g), 1) > 0.9 }, eventually, often)
}
