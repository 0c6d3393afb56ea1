package testbed

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
}

func TestLinkStoreSharesFilesButNotDatabases(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	write(t, filepath.Join(from, "meta/meta.db"), "one")
	write(t, filepath.Join(from, "snapshots/1/fs/var/x.db"), "an image's own")
	write(t, filepath.Join(from, "snapshots/1/fs/bin/sh"), "sh")
	require.NoError(t, os.Symlink("sh", filepath.Join(from, "snapshots/1/fs/bin/dash")))
	require.NoError(t, os.Mkdir(filepath.Join(from, "snapshots/1/fs/tmp"), 0o777))
	require.NoError(t, os.Chmod(filepath.Join(from, "snapshots/1/fs/tmp"), fs.ModeSticky|0o777))
	require.NoError(t, linkStore(from, to))

	same := func(name string) bool {
		a, err := os.Lstat(filepath.Join(from, name))
		require.NoError(t, err)
		b, err := os.Lstat(filepath.Join(to, name))
		require.NoError(t, err)
		require.Equal(t, a.Mode().Type(), b.Mode().Type())
		return os.SameFile(a, b)
	}
	require.False(t, same("meta/meta.db"), "containerd writes to it")
	require.True(t, same("snapshots/1/fs/var/x.db"))
	require.True(t, same("snapshots/1/fs/bin/sh"))
	require.True(t, same("snapshots/1/fs/bin/dash"))
	info, err := os.Stat(filepath.Join(to, "snapshots/1/fs/tmp"))
	require.NoError(t, err)
	require.Equal(t, fs.ModeDir|fs.ModeSticky|0o777, info.Mode())
}

func TestTheTreeKeepsServersAndDropsTheRest(t *testing.T) {
	keep := inTree()
	for _, name := range []string{
		"bin", "lib64", "usr/bin/dash", "usr/bin/sleep", "usr/sbin/mariadbd", "usr/bin/mariadb", "usr/bin/redis-server", "usr/bin/redis-cli",
		"usr/lib/postgresql/15/bin/postgres", "usr/lib/postgresql/15/lib/pg_stat_statements.so", "usr/share/postgresql", "usr/share/mysql",
		"usr/share/zoneinfo", "etc/passwd", "var/lib", "var/run", "usr/lib/x86_64-linux-gnu/libicudata.so.72.1", "usr/lib/x86_64-linux-gnu/libc.so.6",
	} {
		require.True(t, keep(name), name)
	}
	for _, name := range []string{
		".stamp", "proc", "dev", "var/lib/mysql", "var/lib/dpkg", "usr/share/doc", "usr/share/man", "usr/share/locale",
		"usr/lib/x86_64-linux-gnu/libLLVM-14.so.1", "usr/lib/postgresql/15/lib/llvmjit.so", "usr/bin/mariadb-dump", "usr/bin/perl",
	} {
		require.False(t, keep(name), name)
	}
}

func TestOwnImages(t *testing.T) {
	dir := t.TempDir()
	b := Build{Bin: filepath.Join(dir, "bin"), Dockerfile: filepath.Join(dir, "deploy/Dockerfile")}
	const stages = "FROM scratch AS agent\nCOPY --from=build /out/mooring-agent /opt/m/agent\nENTRYPOINT [\"/opt/m/agent\"]\n" +
		"FROM scratch AS controller\nCOPY --from=build /out/mooring-controller /mooring-controller\nENTRYPOINT [\"/mooring-controller\"]\n"
	write(t, b.Dockerfile, stages)
	write(t, filepath.Join(b.Bin, "pause"), "p")
	write(t, filepath.Join(b.Bin, "mooring-agent"), "a")
	t.Run("say which program is missing", func(t *testing.T) {
		err := WriteOwnImages(b, t.TempDir(), filepath.Join(dir, "own.tar"))
		require.ErrorContains(t, err, "bin/mooring-controller")
		require.ErrorContains(t, err, "run make build")
	})
	t.Run("hold the programs as the Dockerfile says", func(t *testing.T) {
		write(t, filepath.Join(b.Bin, "mooring-controller"), "c")
		require.NoError(t, WriteOwnImages(b, t.TempDir(), filepath.Join(dir, "own.tar")))
		i, err := b.stage("agent", AgentImage, t.TempDir())
		require.NoError(t, err)
		require.Equal(t, []string{"/opt/m/agent"}, i.Config.Entrypoint)
		require.Len(t, i.Layers, 1)
	})
	t.Run("take nothing from outside the build", func(t *testing.T) {
		write(t, b.Dockerfile, "FROM scratch AS agent\nCOPY --from=build /etc/passwd /passwd\nENTRYPOINT [\"/x\"]\n")
		_, err := b.stage("agent", AgentImage, t.TempDir())
		require.ErrorContains(t, err, "only files below /out")
	})
}
