package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// read returns the headers and contents of a tar by name.
func read(t *testing.T, r io.Reader) (map[string]*tar.Header, map[string]string) {
	t.Helper()
	headers, contents := map[string]*tar.Header{}, map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents
		}
		require.NoError(t, err)
		require.NotContains(t, headers, h.Name)
		b, err := io.ReadAll(tr)
		require.NoError(t, err)
		headers[h.Name], contents[h.Name] = h, string(b)
	}
}

func layer(t *testing.T, entries ...Entry) Layer {
	t.Helper()
	l, err := WriteLayer(filepath.Join(t.TempDir(), "layer"), entries)
	require.NoError(t, err)
	return l
}

func TestWriteLayer(t *testing.T) {
	source := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(source, []byte("#!"), 0o600))
	entries := []Entry{
		{Name: "usr/bin/su", Mode: fs.ModeSetuid | 0o755, Source: source},
		{Name: "etc", Mode: fs.ModeDir | 0o755},
		{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Name: "etc/passwd", Mode: 0o644, Content: []byte("root"), UID: 7, GID: 8},
		{Name: "bin", Mode: fs.ModeSymlink | 0o777, Link: "usr/bin"},
	}
	l := layer(t, entries...)
	t.Run("names it by its hash and size", func(t *testing.T) {
		b, err := os.ReadFile(l.Path)
		require.NoError(t, err)
		sum := sha256.Sum256(b)
		require.Equal(t, "sha256:"+hex.EncodeToString(sum[:]), l.Digest)
		require.EqualValues(t, len(b), l.Size)
	})
	t.Run("keeps types, modes, owners and content", func(t *testing.T) {
		f, err := os.Open(l.Path)
		require.NoError(t, err)
		defer f.Close()
		h, content := read(t, f)
		require.Len(t, h, 5)
		require.EqualValues(t, 0o4755, h["usr/bin/su"].Mode)
		require.Equal(t, "#!", content["usr/bin/su"])
		require.EqualValues(t, tar.TypeDir, h["etc/"].Typeflag)
		require.EqualValues(t, 0o1777, h["tmp/"].Mode)
		require.Equal(t, []int{7, 8}, []int{h["etc/passwd"].Uid, h["etc/passwd"].Gid})
		require.Equal(t, "root", content["etc/passwd"])
		require.Equal(t, "usr/bin", h["bin"].Linkname)
	})
	t.Run("gives the same digest at another time and in another order", func(t *testing.T) {
		then := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(source, then, then))
		entries[0], entries[4] = entries[4], entries[0]
		require.Equal(t, l.Digest, layer(t, entries...).Digest)
	})
}

func TestWriteLayerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		entries []Entry
		message string
	}{
		"a name that comes twice":       {[]Entry{{Name: "a", Mode: 0o644}, {Name: "a", Mode: 0o644}}, `"a" comes twice`},
		"a name that leaves the image":  {[]Entry{{Name: "../a", Mode: 0o644}}, "must be relative"},
		"a name that begins at the top": {[]Entry{{Name: "/a", Mode: 0o644}}, "must be relative"},
		"a device":                      {[]Entry{{Name: "null", Mode: fs.ModeDevice | 0o666}}, "neither a file"},
		"a file that is not there":      {[]Entry{{Name: "a", Mode: 0o644, Source: "/nonexistent"}}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := WriteLayer(filepath.Join(t.TempDir(), "layer"), c.entries)
			require.ErrorContains(t, err, c.message)
		})
	}
}

func TestTreeListsWhatIsKept(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"usr/share/doc/x", "usr/bin"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "usr/bin/sh"), []byte("x"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "usr/share/doc/x/y"), nil, 0o644))
	require.NoError(t, os.Symlink("usr/bin", filepath.Join(root, "bin")))
	entries, err := Tree(root, func(name string) bool { return name != "usr/share/doc" })
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	require.Equal(t, []string{"bin", "usr", "usr/bin", "usr/bin/sh", "usr/share"}, names)
	require.Equal(t, "usr/bin", entries[0].Link)
	require.Equal(t, filepath.Join(root, "usr/bin/sh"), entries[3].Source)
}
