package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/mooring-dev/mooring/cmd/e2e/image"
	"github.com/mooring-dev/mooring/cmd/e2e/node"
)

// Names of the images that are made from the programs just built.
const (
	pauseImage      = "mooring.local/pause:1"
	AgentImage      = "mooring.local/mooring-agent:e2e"
	ControllerImage = "mooring.local/mooring-controller:e2e"
)

// Build says where the programs under test are.
type Build struct {
	// Bin is the folder of the built programs, Dockerfile the file whose final
	// stages say how they become images.
	Bin, Dockerfile string
}

// WriteOwnImages writes one image layout with the pause image and those of the
// Dockerfile's stages "agent" and "controller". It makes layers in dir.
func WriteOwnImages(b Build, dir, layout string) error {
	pause, err := image.WriteLayer(filepath.Join(dir, "pause.tar"), []image.Entry{{Name: "pause", Mode: 0o755, Source: filepath.Join(b.Bin, "pause")}})
	if err != nil {
		return err
	}
	images := []image.Image{{Name: pauseImage, Config: image.Config{User: "65534", Entrypoint: []string{"/pause"}}, Layers: []image.Layer{pause}}}
	for stage, name := range map[string]string{"agent": AgentImage, "controller": ControllerImage} {
		i, err := b.stage(stage, name, dir)
		if err != nil {
			return err
		}
		images = append(images, i)
	}
	f, err := os.Create(layout)
	if err != nil {
		return fmt.Errorf("make image layout: %w", err)
	}
	return errors.Join(image.WriteLayout(f, images...), f.Close())
}

// stage makes one image as the Dockerfile says, with what its build stage
// would have put into /out taken from Bin.
func (b Build) stage(stage, name, dir string) (image.Image, error) {
	f, err := os.Open(b.Dockerfile)
	if err != nil {
		return image.Image{}, fmt.Errorf("open Dockerfile: %w", err)
	}
	defer f.Close()
	s, err := image.ParseStage(f, stage)
	if err != nil {
		return image.Image{}, err
	}
	entries, err := b.entries(s)
	if err != nil {
		return image.Image{}, err
	}
	layer, err := image.WriteLayer(filepath.Join(dir, stage+".tar"), entries)
	return image.Image{Name: name, Config: s.Config, Layers: []image.Layer{layer}}, err
}

// entries are the files a stage copies, with the folders they lie in. Docker
// would make a layer of each COPY; one layer holds the same files.
func (b Build) entries(s image.Stage) ([]image.Entry, error) {
	var entries []image.Entry
	made := map[string]bool{"/": true}
	for _, c := range s.Copies {
		out, err := filepath.Rel("/out", c.Source)
		if err != nil || !filepath.IsLocal(out) {
			return nil, fmt.Errorf("COPY %s: only files below /out of stage %s are known here", c.Source, c.From)
		}
		source := filepath.Join(b.Bin, out)
		if _, err := os.Stat(source); err != nil {
			return nil, fmt.Errorf("COPY %s for %s/%s: %w: run make build", c.Source, "linux", runtime.GOARCH, err)
		}
		for d := filepath.Dir(c.Target); !made[d]; d = filepath.Dir(d) {
			made[d] = true
			entries = append(entries, image.Entry{Name: d[1:], Mode: fs.ModeDir | 0o755})
		}
		entries = append(entries, image.Entry{Name: c.Target[1:], Mode: 0o755, Source: source})
	}
	return entries, nil
}

// Load makes the images of the programs under test anew and imports them into
// the running node. Pods use them when they are started the next time.
func Load(ctx context.Context, b Build, n *node.Client) error {
	dir, err := os.MkdirTemp("", "e2e-load-")
	if err != nil {
		return fmt.Errorf("make folder for images: %w", err)
	}
	defer os.RemoveAll(dir)
	layout := filepath.Join(dir, "own.tar")
	if err := WriteOwnImages(b, dir, layout); err != nil {
		return err
	}
	return Import(ctx, n, layout)
}

// Load is Load for this cluster.
func (c *Cluster) Load(ctx context.Context) error { return Load(ctx, c.Build, c.Node) }

// Import puts the images of a layout into the running node.
func Import(ctx context.Context, n *node.Client, layout string) error {
	f, err := os.Open(layout)
	if err != nil {
		return fmt.Errorf("open image layout: %w", err)
	}
	defer f.Close()
	const there = node.StateDir + "/import.tar"
	if err := n.WriteFile(ctx, there, f); err != nil {
		return err
	}
	_, err = n.Must(ctx, "ctr --namespace k8s.io images import --local --discard-unpacked-layers "+there+" && rm "+there)
	return err
}
