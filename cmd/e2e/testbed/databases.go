package testbed

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
	"github.com/mooring-dev/mooring/cmd/e2e/image"
	"golang.org/x/sys/unix"
)

//go:embed files
var files embed.FS

// Names of the images that do not change from run to run.
const (
	postgresImage = "mooring.local/postgres:15"
	mariadbImage  = "mooring.local/mariadb:10.11"
	redisImage    = "mooring.local/redis:7"
)

// database says what an image of a database server holds above the Debian tree.
type database struct {
	image string
	user  string // of the server, in the tree
	seed  string // data directory, in the image below /seed; or empty
	entry string // one of files, or empty
	args  []string
	port  string
}

func databases() []database {
	return []database{
		{image: postgresImage, user: "postgres", seed: "postgres", entry: "postgres.sh", port: "5432/tcp"},
		{image: mariadbImage, user: "mysql", seed: "mariadb", entry: "mariadb.sh", port: "3306/tcp"},
		{image: redisImage, user: "redis", port: "6379/tcp",
			args: []string{"redis-server", "--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", "0.0.0.0", "--dir", "/tmp"}},
	}
}

// inTree tells what of the guest's Debian tree goes into the images: all but
// what no server and no shell script of ours needs, which is two thirds of it.
func inTree() func(name string) bool {
	dropped := regexp.MustCompile(`^(\.stamp|boot|home|media|mnt|opt|root|run|srv|proc|sys|dev|tmp)(/|$)|` +
		`^etc/(apt|init\.d|perl|rc.\.d|systemd)$|` +
		`^var/(cache|backups|log|lib/(apt|dpkg|mysql|postgresql|systemd|ucf|pam))$|` +
		`^usr/(games|include|lib/(apt|systemd|tmpfiles\.d|udev|modules)|local|src)$|` +
		`^usr/share/(apport|bash-completion|bug|doc|doc-base|i18n|info|initramfs-tools|lintian|locale|man|perl.*|rsync|gdb|pixmaps)$|` +
		`^usr/lib/x86_64-linux-gnu/(libLLVM.*|libz3\..*|libperl.*|perl.*|libapt.*|gconv)$|` +
		`^usr/lib/postgresql/15/lib/(llvmjit.*|bitcode|pgxs)$|^usr/lib/mysql/plugin/ha_.*|` +
		`^usr/s?bin/(aria_.*|myisam.*|mysql.*|my_print_.*|innochecksum|replace|resolve.*|perror|perl.*|` +
		`mariadb-(admin|binlog|check|conv|dump|import|plugin|show|slap|tzinfo.*|upgrade|waitpid)|mariadbd-safe.*)$`)
	return func(name string) bool { return !dropped.MatchString(name) }
}

// databaseKey names the images by what they are made from.
func databaseKey(c *Cache) (string, error) {
	h := sha256.New()
	for _, name := range []string{filepath.Join(c.Rootfs(), ".stamp"), filepath.Join(c.Dir, "kube", ".stamp")} {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("name database images: %w", err)
		}
		h.Write(b)
	}
	fmt.Fprintln(h, "layout 1", databases(), layerOrder())
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(path)
		h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// layerOrder is what the images' layers are, for people and for the key.
func layerOrder() []string { return []string{"tree", "seed and entry point"} }

// copyDatabaseStore makes a containerd root with the database images at to, from
// the one in the cache, which is made first if it is not there or was made from
// something else. No other run changes it meanwhile.
func (b *builder) copyDatabaseStore(ctx context.Context, to string) error {
	place := filepath.Join(b.cache.Dir, "databases")
	lock, err := os.OpenFile(filepath.Join(b.cache.Dir, "databases.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock database images: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock database images: %w", err)
	}
	key, err := databaseKey(b.cache)
	if err != nil {
		return err
	}
	if stamp, err := os.ReadFile(filepath.Join(place, ".stamp")); err != nil || string(stamp) != key {
		if err := b.makeDatabaseStore(ctx, place, key); err != nil {
			return err
		}
	}
	return linkStore(filepath.Join(place, "containerd"), to)
}

// makeDatabaseStore makes the one in the cache. The stamp comes last: what has
// none is half made.
func (b *builder) makeDatabaseStore(ctx context.Context, place, key string) error {
	if err := os.RemoveAll(place); err != nil {
		return fmt.Errorf("remove old database images: %w", err)
	}
	store := filepath.Join(place, "containerd")
	if err := os.MkdirAll(store, 0o755); err != nil {
		return fmt.Errorf("make folder for images: %w", err)
	}
	layout, err := b.databaseLayout(ctx)
	if err != nil {
		return err
	}
	if err := b.importLayouts(ctx, store, layout); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(place, ".stamp"), []byte(key), 0o644); err != nil {
		return fmt.Errorf("finish database images: %w", err)
	}
	return nil
}

// databaseLayout writes one layout with all images that stay the same.
func (b *builder) databaseLayout(ctx context.Context) (string, error) {
	tree, err := b.overlay("seed")
	if err != nil {
		return "", err
	}
	defer tree.unmount()
	entries, err := image.Tree(b.cache.Rootfs(), inTree())
	if err != nil {
		return "", err
	}
	for _, name := range []string{"proc", "sys", "dev", "run", "root"} {
		entries = append(entries, image.Entry{Name: name, Mode: fs.ModeDir | 0o755})
	}
	entries = append(entries, image.Entry{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777})
	base, err := image.WriteLayer(filepath.Join(b.dir, "tree.tar"), entries)
	if err != nil {
		return "", err
	}
	var images []image.Image
	for _, d := range databases() {
		i, err := b.databaseImage(ctx, d, tree, base)
		if err != nil {
			return "", fmt.Errorf("make image %s: %w", d.image, err)
		}
		images = append(images, i)
	}
	layout := filepath.Join(b.dir, "databases.tar")
	f, err := os.Create(layout)
	if err != nil {
		return "", fmt.Errorf("make image layout: %w", err)
	}
	return layout, errors.Join(image.WriteLayout(f, images...), f.Close())
}

func (b *builder) databaseImage(ctx context.Context, d database, tree *overlay, base image.Layer) (image.Image, error) {
	i := image.Image{Name: d.image, Layers: []image.Layer{base}, Config: image.Config{
		User: d.user, ExposedPorts: map[string]struct{}{d.port: {}}, Entrypoint: d.args,
		Env: []string{"PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"},
	}}
	if d.entry == "" {
		return i, nil
	}
	if err := b.seed(ctx, d, tree); err != nil {
		return i, err
	}
	own, err := image.Tree(tree.upper, func(name string) bool {
		return name == "seed" || name == "seed/"+d.seed || strings.HasPrefix(name, "seed/"+d.seed+"/")
	})
	if err != nil {
		return i, err
	}
	script, err := files.ReadFile("files/" + d.entry)
	if err != nil {
		return i, fmt.Errorf("read entry point: %w", err)
	}
	own = append(own, image.Entry{Name: "entry", Mode: 0o755, Content: script})
	layer, err := image.WriteLayer(filepath.Join(b.dir, d.seed+".tar"), own)
	i.Layers = append(slices.Clone(i.Layers), layer)
	i.Config.Entrypoint = []string{"/entry"}
	return i, err
}

// seed makes the data directory /seed/NAME in the tree by the script of the
// same name.
func (b *builder) seed(ctx context.Context, d database, tree *overlay) error {
	for _, name := range []string{"postgresql.conf", d.seed + "-seed.sh"} {
		content, err := files.ReadFile("files/" + name)
		if err != nil {
			return fmt.Errorf("read seed: %w", err)
		}
		if err := os.MkdirAll(filepath.Join(tree.merged, "seed"), 0o755); err != nil {
			return fmt.Errorf("make seed: %w", err)
		}
		if err := os.WriteFile(filepath.Join(tree.merged, "seed", name), content, 0o755); err != nil {
			return fmt.Errorf("make seed: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(tree.merged, "seed"), 0o777); err != nil {
		return fmt.Errorf("make seed: %w", err)
	}
	cmd, err := dbserver.Command(ctx, tree.merged, d.user, "/bin/sh", "/seed/"+d.seed+"-seed.sh")
	if err != nil {
		return err
	}
	_, err = b.launcher.Run(cmd)
	return err
}

// overlay is the guest's Debian tree under a folder that takes all writes.
type overlay struct{ upper, merged string }

// overlay mounts the tree. The mount is in this process's own namespace and
// goes with it.
func (b *builder) overlay(name string) (*overlay, error) {
	dir := filepath.Join(b.dir, name)
	o := &overlay{upper: filepath.Join(dir, "upper"), merged: filepath.Join(dir, "merged")}
	work := filepath.Join(dir, "work")
	for _, d := range []string{o.upper, o.merged, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make overlay: %w", err)
		}
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", b.cache.Rootfs(), o.upper, work)
	if err := unix.Mount("overlay", o.merged, "overlay", 0, data); err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	for _, m := range []struct{ kind, target, data string }{
		{"proc", "proc", ""}, {"tmpfs", "dev/shm", "mode=1777"}, {"tmpfs", "tmp", "mode=1777"},
	} {
		if err := unix.Mount(m.kind, filepath.Join(o.merged, m.target), m.kind, 0, m.data); err != nil {
			return nil, errors.Join(fmt.Errorf("mount %s: %w", m.target, err), o.unmount())
		}
	}
	return o, nil
}

func (o *overlay) unmount() error {
	for _, target := range []string{"proc", "dev/shm", "tmp", ""} {
		if err := unix.Unmount(filepath.Join(o.merged, target), unix.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("unmount overlay: %w", err)
		}
	}
	return nil
}
