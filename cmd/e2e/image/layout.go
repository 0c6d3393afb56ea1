package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// Image is what a layout is written from.
type Image struct {
	// Name is the full reference, such as "mooring.local/redis:7".
	Name   string
	Config Config
	// Layers go from the lowest up.
	Layers []Layer
}

// Config is the part of the OCI image configuration that says how to run it.
type Config struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
}

// Media types of the OCI image specification, version 1.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type configuration struct {
	platform
	Config Config `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// blob is a small file of a layout, held in memory.
type blob struct {
	descriptor
	data []byte
}

func newBlob(mediaType string, value any) (blob, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return blob{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	sum := sha256.Sum256(b)
	return blob{descriptor{MediaType: mediaType, Digest: digest(sum[:]), Size: int64(len(b))}, b}, nil
}

// WriteLayout writes the images as one OCI image layout, a tar. A layer that
// several images share is in it once. The layers' files must not change meanwhile.
func WriteLayout(w io.Writer, images ...Image) error {
	t := tar.NewWriter(w)
	list := index{SchemaVersion: 2, MediaType: indexType}
	written := map[string]bool{}
	if err := writeFile(t, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, i := range images {
		blobs, err := i.blobs()
		if err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
		for _, l := range i.Layers {
			if err := writeLayerBlob(t, l, written); err != nil {
				return fmt.Errorf("image %s: %w", i.Name, err)
			}
		}
		for _, b := range blobs {
			if written[b.Digest] {
				continue
			}
			written[b.Digest] = true
			if err := writeFile(t, blobName(b.Digest), b.data); err != nil {
				return fmt.Errorf("image %s: %w", i.Name, err)
			}
		}
		entry := blobs[0].descriptor
		entry.Platform = &platform{runtime.GOARCH, "linux"}
		// The first is what containerd reads, the second what the specification names.
		entry.Annotations = map[string]string{"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": i.Name}
		list.Manifests = append(list.Manifests, entry)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode index: %w", err)
	}
	return errors.Join(writeFile(t, "index.json", b), t.Close())
}

// blobs returns the manifest and then the configuration.
func (i Image) blobs() ([]blob, error) {
	if len(i.Layers) == 0 || !strings.Contains(i.Name, ":") {
		return nil, errors.New("it needs a layer, and a name with a tag")
	}
	c := configuration{platform: platform{runtime.GOARCH, "linux"}, Config: i.Config}
	c.RootFS.Type = "layers"
	m := manifest{SchemaVersion: 2, MediaType: manifestType}
	for _, l := range i.Layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, l.Digest)
		m.Layers = append(m.Layers, descriptor{MediaType: layerType, Digest: l.Digest, Size: l.Size})
	}
	config, err := newBlob(configType, c)
	if err != nil {
		return nil, err
	}
	m.Config = config.descriptor
	top, err := newBlob(manifestType, m)
	return []blob{top, config}, err
}

func blobName(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func writeLayerBlob(t *tar.Writer, l Layer, written map[string]bool) error {
	if written[l.Digest] {
		return nil
	}
	written[l.Digest] = true
	f, err := os.Open(l.Path)
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	defer f.Close()
	if err := t.WriteHeader(&tar.Header{Name: blobName(l.Digest), Mode: 0o644, Size: l.Size, Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	if _, err := io.Copy(t, f); err != nil {
		return fmt.Errorf("write layer %s: %w", l.Path, err)
	}
	return nil
}

func writeFile(t *tar.Writer, name string, b []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b)), Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := t.Write(b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
