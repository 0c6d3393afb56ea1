package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// blobOf returns the blob a descriptor names, having checked its hash and size.
func blobOf(t *testing.T, files map[string]string, d descriptor) string {
	t.Helper()
	b, ok := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
	require.True(t, ok, "blob %s is missing", d.Digest)
	sum := sha256.Sum256([]byte(b))
	require.Equal(t, d.Digest, digest(sum[:]))
	require.EqualValues(t, d.Size, len(b))
	return b
}

func TestWriteLayout(t *testing.T) {
	base := layer(t, Entry{Name: "base", Mode: 0o644, Content: []byte("b")})
	own := layer(t, Entry{Name: "own", Mode: 0o644, Content: []byte("o")})
	config := Config{User: "7", Entrypoint: []string{"/own"}, Env: []string{"A=b"}, Labels: map[string]string{"l": "v"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}}}
	var out bytes.Buffer
	require.NoError(t, WriteLayout(&out,
		Image{Name: "x.local/one:1", Layers: []Layer{base, own}, Config: config},
		Image{Name: "x.local/two:2", Layers: []Layer{base}}))
	headers, files := read(t, &out)
	require.JSONEq(t, `{"imageLayoutVersion":"1.0.0"}`, files["oci-layout"])
	require.Len(t, headers, 2+2+2+2, "the shared layer is there once")

	var x index
	require.NoError(t, json.Unmarshal([]byte(files["index.json"]), &x))
	require.Len(t, x.Manifests, 2)
	require.Equal(t, "x.local/one:1", x.Manifests[0].Annotations["io.containerd.image.name"])
	require.Equal(t, &platform{runtime.GOARCH, "linux"}, x.Manifests[0].Platform)

	var m manifest
	require.NoError(t, json.Unmarshal([]byte(blobOf(t, files, x.Manifests[0])), &m))
	require.Len(t, m.Layers, 2)
	for _, l := range m.Layers {
		blobOf(t, files, l)
	}
	var c configuration
	require.NoError(t, json.Unmarshal([]byte(blobOf(t, files, m.Config)), &c))
	require.Equal(t, config, c.Config)
	require.Equal(t, []string{base.Digest, own.Digest}, c.RootFS.DiffIDs)
	require.Equal(t, "layers", c.RootFS.Type)
	require.Equal(t, "linux", c.OS)
}

func TestWriteLayoutRefuses(t *testing.T) {
	l := layer(t, Entry{Name: "a", Mode: 0o644})
	gone := l
	gone.Path, gone.Digest = "/nonexistent", "sha256:00"
	short := l
	short.Size, short.Digest = 1, "sha256:01"
	for name, c := range map[string]struct {
		image   Image
		message string
	}{
		"an image of nothing":           {Image{Name: "a:b"}, "needs a layer"},
		"a name without a tag":          {Image{Name: "a", Layers: []Layer{l}}, "a name with a tag"},
		"a layer that is gone":          {Image{Name: "a:b", Layers: []Layer{gone}}, "open layer"},
		"a layer that is not as it was": {Image{Name: "a:b", Layers: []Layer{short}}, "write layer"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, WriteLayout(&bytes.Buffer{}, c.image), c.message)
		})
	}
}
