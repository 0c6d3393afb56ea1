// Command bench measures on this machine what the statement probe costs a busy
// PostgreSQL and what the agent itself needs when idle. It runs as root and
// installs nothing: the servers come from the Debian tree in the cache folder,
// mounted in a mount namespace of its own, and listen on loopback.
//
// Absolute times belong to the machine; the price of the probe is therefore a
// ratio of interleaved runs with it on and off.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
	"github.com/mooring-dev/mooring/cmd/internal/figure"
)

// inside marks the process that has the mount namespace to itself.
const inside = "MOORING_BENCH_ROOT"

func main() { os.Exit(run()) }

func run() int {
	pairs := flag.Int("pairs", 11, "pairs of runs, one with and one without the probe")
	seconds := flag.Int("seconds", 3, "length of a run")
	flag.Parse()
	if *pairs < 9 || *seconds < 1 {
		fmt.Fprintln(os.Stderr, "bench: at least 9 pairs of at least 1 s each")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(inside) == "" {
		return enter(ctx)
	}
	var figures figure.Set
	err := measure(ctx, os.Getenv(inside), *pairs, *seconds, &figures)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	fmt.Println()
	if err := figures.Print(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if !figures.OK() {
		return 1
	}
	return 0
}

// enter runs this program again in a mount namespace of its own.
func enter(ctx context.Context) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: run as root: it loads BPF programs and mounts the databases' tree")
		return 1
	}
	dir, err := os.MkdirTemp("", "mooring-bench")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Run()
	var x *exec.ExitError
	if errors.As(err, &x) {
		return x.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// tree mounts the cached Debian tree under dir, writable in memory only, and
// returns its path. The mounts end with the mount namespace.
func tree(dir string) (string, error) {
	lower, err := cached("rootfs")
	if err != nil {
		return "", err
	}
	root := filepath.Join(dir, "root")
	work := filepath.Join(dir, "work")
	for _, m := range []struct{ source, target, kind, data string }{
		{"tmpfs", work, "tmpfs", "size=2g"},
		{"overlay", root, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s/u,workdir=%s/w", lower, work, work)},
		{"proc", filepath.Join(root, "proc"), "proc", ""},
		{"/dev", filepath.Join(root, "dev"), "", ""},
		{"tmpfs", filepath.Join(root, "dev/shm"), "tmpfs", "mode=1777"},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return "", fmt.Errorf("make mount point: %w", err)
		}
		var flags uintptr
		if m.kind == "" {
			flags = unix.MS_BIND | unix.MS_REC
		}
		if m.target == filepath.Join(root, "dev/shm") {
			if _, err := os.Stat(m.target); err == nil {
				continue
			}
		}
		if err := unix.Mount(m.source, m.target, m.kind, flags, m.data); err != nil {
			return "", fmt.Errorf("mount %s: %w", m.target, err)
		}
		if m.target == work {
			if err := errors.Join(os.Mkdir(work+"/u", 0o755), os.Mkdir(work+"/w", 0o755)); err != nil {
				return "", fmt.Errorf("make overlay directories: %w", err)
			}
		}
	}
	return root, nil
}

// cached returns a folder of the cache that setup.sh fills.
func cached(name string) (string, error) {
	base := os.Getenv("MOORING_CACHE")
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find cache folder: %w", err)
		}
		base = filepath.Join(user, "mooring")
	}
	dir := filepath.Join(base, name)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("%w; run `make tools` first", err)
	}
	return dir, nil
}

// measure starts the servers and takes the figures.
func measure(ctx context.Context, dir string, pairs, seconds int, figures *figure.Set) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := tree(dir)
	if err != nil {
		return err
	}
	pg, err := dbserver.StartPostgres(ctx, dbserver.Options{Root: root, Dir: "/srv/pg", Address: "127.0.0.1", Port: 25432})
	if err != nil {
		return err
	}
	defer stopServer(pg)
	if err := price(ctx, pg, pairs, seconds, figures); err != nil {
		return err
	}
	my, err := dbserver.StartMariaDB(ctx, dbserver.Options{Root: root, Dir: "/srv/my", Address: "127.0.0.1", Port: 23306})
	if err != nil {
		return err
	}
	defer stopServer(my)
	return footprint(ctx, dir, 20*time.Second, figures)
}

func stopServer(s *dbserver.Server) {
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}
