package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJobTravels(t *testing.T) {
	want := job{
		Arguments: []string{"/x.test", "-test.run=A b"}, Environment: []string{"A=1\n2"}, Directory: "/x",
		Modules: []string{"9p.ko"}, Shares: []share{{Tag: "root", Path: "/", host: "/h"}}, Scratch: true,
	}
	b, err := encodeJob(want)
	require.NoError(t, err)
	got, err := decodeJob(b)
	require.NoError(t, err)
	want.Shares[0].host = "" // the guest has no use for it
	require.Equal(t, want, got)
	for _, text := range []string{"", "{", "{}", `{"Arguments":["a"]}`} {
		_, err := decodeJob([]byte(text))
		require.Error(t, err, "%q", text)
	}
}

// host makes a module with a package, a folder for a test binary, and a Debian
// tree with one program.
func host(t *testing.T) (h hostView, repository, build string) {
	t.Helper()
	dir := t.TempDir()
	repository, build = filepath.Join(dir, "repository"), filepath.Join(dir, "build")
	h = hostView{
		directory: filepath.Join(repository, "pkg"), rootfs: filepath.Join(dir, "rootfs"),
		kernel: kernel{release: "6.1.0", modules: "/modules"},
	}
	for _, name := range []string{
		repository + "/go.mod", repository + "/pkg/tool", build + "/x.test", h.rootfs + "/usr/bin/psql",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, nil, 0o755))
	}
	return h, repository, build
}

// seen maps the guest's paths to whether they are writable.
func seen(j job) map[string]bool {
	paths := map[string]bool{}
	for _, s := range j.Shares {
		paths[s.Path] = s.Writable
	}
	return paths
}

func TestPlanJob(t *testing.T) {
	h, repository, build := host(t)
	const modules = "/lib/modules/6.1.0"
	t.Run("shares the module and the folder of a test binary", func(t *testing.T) {
		j, err := planJob(options{arguments: []string{build + "/x.test", "-test.run=A"}, disk: gib}, h)
		require.NoError(t, err)
		require.Equal(t, []string{build + "/x.test", "-test.v=true", "-test.run=A"}, j.Arguments)
		require.Equal(t, h.directory, j.Directory)
		require.True(t, j.Scratch)
		require.Equal(t, map[string]bool{"/": false, modules: false, repository: false, build: false}, seen(j))
	})
	t.Run("shares a folder within the module once", func(t *testing.T) {
		j, err := planJob(options{arguments: []string{"./tool"}}, h)
		require.NoError(t, err)
		require.Equal(t, []string{filepath.Join(repository, "pkg/tool")}, j.Arguments)
		require.Equal(t, map[string]bool{"/": false, modules: false, repository: false}, seen(j))
		require.False(t, j.Scratch)
	})
	t.Run("takes the guest's own program by its absolute path", func(t *testing.T) {
		j, err := planJob(options{arguments: []string{"/usr/bin/psql"}}, h)
		require.NoError(t, err)
		require.Equal(t, []string{"/usr/bin/psql"}, j.Arguments)
		require.NotContains(t, seen(j), "/usr/bin")
	})
	t.Run("lets coverage and output reach the host", func(t *testing.T) {
		out, cover := filepath.Join(t.TempDir(), "out"), t.TempDir()
		j, err := planJob(options{out: out, coverDir: cover, arguments: []string{
			build + "/x.test", "-test.coverprofile=" + build + "/_cover_.out", "-test.gocoverdir=" + build + "/cover",
		}}, h)
		require.NoError(t, err)
		require.DirExists(t, out)
		paths := seen(j)
		for _, dir := range []string{out, cover, build, build + "/cover"} {
			require.True(t, paths[dir], dir)
		}
		require.False(t, paths[repository])
	})
	t.Run("mounts outer folders first", func(t *testing.T) {
		j, err := planJob(options{out: repository + "/pkg", arguments: []string{"true"}}, h)
		require.NoError(t, err)
		last := len(j.Shares) - 1
		require.Equal(t, repository, j.Shares[last-1].Path)
		require.Equal(t, repository+"/pkg", j.Shares[last].Path)
	})
	t.Run("refuses to hide the guest's own folders", func(t *testing.T) {
		_, err := planJob(options{out: "/tmp", arguments: []string{"true"}}, h)
		require.ErrorContains(t, err, "would hide the guest's own")
	})
	t.Run("refuses a program that is nowhere", func(t *testing.T) {
		_, err := planJob(options{arguments: []string{"./none"}}, h)
		require.ErrorContains(t, err, "neither in the guest's tree nor here")
		_, err = planJob(options{arguments: []string{h.directory}}, h)
		require.ErrorContains(t, err, "is not a file")
	})
}

func TestVerboseTest(t *testing.T) {
	for name, c := range map[string]struct{ in, want []string }{
		"is added":            {[]string{"x"}, []string{"x", "-test.v=true"}},
		"replaces a refusal":  {[]string{"x", "-test.v=false"}, []string{"x", "-test.v=true"}},
		"leaves the plain":    {[]string{"x", "-test.v"}, []string{"x", "-test.v"}},
		"leaves test2json's":  {[]string{"x", "-test.v=test2json"}, []string{"x", "-test.v=test2json"}},
		"keeps the arguments": {[]string{"x", "-test.run=A"}, []string{"x", "-test.v=true", "-test.run=A"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, verboseTest(c.in)) })
	}
}

func TestGuestEnvironment(t *testing.T) {
	list := guestEnvironment([]string{
		"PATH=/host", "TMPDIR=/host", "TOKEN=secret", "GODEBUG=a=1", "MOORING_X=1", "MOORING_CACHE=/host", "GOCOVERDIR=/c",
	})
	require.Subset(t, list, []string{"VMTEST=1", "HOME=/root", "GODEBUG=a=1", "MOORING_X=1", "GOCOVERDIR=/c"})
	for _, e := range list {
		require.NotContains(t, e, "/host")
		require.NotContains(t, e, "secret")
	}
}
