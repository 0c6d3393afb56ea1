package testbed

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOpenCacheSaysWhatToRun(t *testing.T) {
	dir := t.TempDir()
	getenv := func(name string) string { return map[string]string{"MOORING_CACHE": dir}[name] }
	_, err := OpenCache(getenv)
	require.ErrorContains(t, err, "run cmd/vmtest/setup.sh all")
	for _, tree := range []string{"qemu", "rootfs", "control"} {
		write(t, filepath.Join(dir, tree, ".stamp"), "x")
	}
	write(t, filepath.Join(dir, "use.lock"), "")
	_, err = OpenCache(getenv)
	require.ErrorContains(t, err, "kube is not in "+dir+": run cmd/vmtest/setup.sh kube")
	write(t, filepath.Join(dir, "kube/.stamp"), "x")
	c, err := OpenCache(getenv)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "kube/bin/kubectl"), c.Kube("kubectl"))
	require.NoError(t, c.Close())
}

func TestCacheFolderFollowsTheEnvironment(t *testing.T) {
	for want, environment := range map[string]map[string]string{
		"/c":                {"MOORING_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"},
		"/x/mooring":        {"XDG_CACHE_HOME": "/x", "HOME": "/h"},
		"/h/.cache/mooring": {"HOME": "/h"},
	} {
		require.Equal(t, want, cacheFolder(func(name string) string { return environment[name] }))
	}
}
