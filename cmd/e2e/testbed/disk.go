package testbed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// diskSize is what the node's disk can hold, in bytes. The image is sparse.
const diskSize = 8 << 30

// builder makes the node's disk.
type builder struct {
	cache    *Cache
	launcher *Launcher
	build    Build
	dir      string // on the file system of the cache folder
}

// nodePrograms are the files that the guest runs from the disk and not from its
// own tree, by their path there.
func (b *builder) nodePrograms() map[string]string {
	list := map[string]string{"bin/runc": b.cache.Control("usr/sbin/runc")}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr", "kubelet"} {
		list["bin/"+name] = b.cache.Kube(name)
	}
	for _, name := range []string{"bridge", "host-local", "loopback"} {
		list["cni/"+name] = b.cache.Control("usr/lib/cni/" + name)
	}
	return list
}

// make makes the disk: the database images from the cache, the images under
// test, and the node's programs. It returns the image file.
func (b *builder) make(ctx context.Context, note func(string)) (string, error) {
	stage := filepath.Join(b.dir, "disk")
	store := filepath.Join(stage, "containerd")
	if err := b.copyDatabaseStore(ctx, store); err != nil {
		return "", err
	}
	note("database images")
	layout := filepath.Join(b.dir, "own.tar")
	if err := WriteOwnImages(b.build, b.dir, layout); err != nil {
		return "", err
	}
	if err := b.importLayouts(ctx, store, layout); err != nil {
		return "", err
	}
	note("images under test")
	for to, from := range b.nodePrograms() {
		to = filepath.Join(stage, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", fmt.Errorf("make folder of the disk: %w", err)
		}
		if err := os.Link(from, to); err != nil {
			return "", fmt.Errorf("put program on the disk: %w", err)
		}
	}
	disk := filepath.Join(b.dir, "state.raw")
	if err := b.format(ctx, stage, disk); err != nil {
		return "", err
	}
	note("disk")
	return disk, os.RemoveAll(stage)
}

// format makes an ext4 with what lies in stage on it, by the Debian tree's
// mke2fs and without mounting anything. No journal: the disk is thrown away, and
// a write that a test makes fail must not take the file system down with it.
func (b *builder) format(ctx context.Context, stage, disk string) error {
	f, err := os.Create(disk)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	args := append(b.cache.foreign("usr/sbin/mkfs.ext4"), "-q", "-F", "-L", "state", "-O", "^has_journal",
		"-E", "lazy_itable_init=1,root_owner=0:0", "-d", stage, disk)
	_, err = b.launcher.Run(exec.CommandContext(ctx, args[0], args[1:]...))
	return err
}

// linkStore makes a second containerd root of the same content. The databases
// that containerd writes to are copied; all else it only adds to, so the files
// are shared.
func linkStore(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case d.IsDir():
			return copyFolder(path, target)
		case strings.HasSuffix(name, ".db") && !strings.Contains(name, "/fs/"):
			return copyFile(path, target)
		default:
			return os.Link(path, target)
		}
	})
	if err != nil {
		return fmt.Errorf("copy image store: %w", err)
	}
	return nil
}

func copyFolder(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	e, err := owner(info)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	// The owner first: a change of it takes the special bits away.
	return errors.Join(os.Chown(to, e.uid, e.gid), os.Chmod(to, info.Mode()))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// socketPathLimit is what fits into a sockaddr_un (unix(7)) with the final zero.
const socketPathLimit = 107

// importLayouts runs a containerd of its own on this machine over the given root
// and has it import and unpack the layouts: in the guest the same takes minutes.
func (b *builder) importLayouts(ctx context.Context, root string, layouts ...string) error {
	run, err := os.MkdirTemp(b.dir, "c")
	if err != nil {
		return fmt.Errorf("make folder for containerd: %w", err)
	}
	defer os.RemoveAll(run)
	socket := filepath.Join(run, "sock")
	if longest := socket + ".ttrpc"; len(longest) > socketPathLimit {
		return fmt.Errorf("the path of a socket would be %q, which is longer than %d bytes: set MOORING_CACHE to a shorter path", longest, socketPathLimit)
	}
	config := filepath.Join(run, "config.toml")
	if err := os.WriteFile(config, []byte(hostConfig(root, filepath.Join(run, "state"), socket)), 0o600); err != nil {
		return fmt.Errorf("configure containerd: %w", err)
	}
	cmd := exec.Command(b.cache.Kube("containerd"), "--config", config)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(b.cache.Kube("containerd"))+":"+os.Getenv("PATH"))
	p, err := b.launcher.Start("containerd", filepath.Join(b.dir, "containerd.log"), cmd, nil)
	if err != nil {
		return err
	}
	err = poll(ctx, 30*time.Second, "containerd", func(context.Context) error {
		select {
		case <-p.Done():
			return fmt.Errorf("it ended: %s", p.Tail())
		default:
		}
		c, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
	for _, l := range layouts {
		if err == nil {
			_, err = b.launcher.Run(exec.CommandContext(ctx, b.cache.Kube("ctr"), "--address", socket, "--namespace", "k8s.io",
				"images", "import", "--snapshotter", "overlayfs", "--local", "--discard-unpacked-layers", l))
		}
	}
	return errors.Join(err, p.Stop(10*time.Second))
}

// hostConfig configures a containerd that only holds images.
func hostConfig(root, state, socket string) string {
	return fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
  "io.containerd.image-verifier.v1.bindir",
]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, root, state, socket, socket+".ttrpc")
}

type ids struct{ uid, gid int }

func owner(info fs.FileInfo) (ids, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ids{}, fmt.Errorf("%s has no owner", info.Name())
	}
	return ids{int(st.Uid), int(st.Gid)}, nil
}
