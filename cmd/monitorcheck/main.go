// Command monitorcheck runs every query of every dashboard against a real
// Prometheus that scrapes the real agent while PostgreSQL, MariaDB and Redis are
// under load, with the variables filled in, and fails on each that returns no
// data and is not in the list of exceptions. It does so twice: with classic
// histograms and with native ones.
//
// It runs as root and installs nothing: servers come from the Debian tree in the
// cache folder, mounted in a mount namespace of its own, Prometheus from the same
// cache, and all of them listen on loopback.
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

	"github.com/mooring-dev/mooring/cmd/internal/figure"
)

// inside marks the process that has the mount namespace to itself.
const inside = "MOORING_MONITORCHECK_ROOT"

type options struct {
	rules string
	warm  time.Duration
	probe string
}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.rules, "rules", "deploy/monitoring/rules", "folder of the rule files")
	flag.DurationVar(&o.warm, "warm", 2*time.Minute, "how long the load runs before the queries")
	flag.StringVar(&o.probe, "probe", "tracepoint", "statement probe of the agent")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(inside) == "" {
		return enter(ctx)
	}
	var figures figure.Set
	if err := check(ctx, os.Getenv(inside), o, &figures); err != nil {
		fmt.Fprintln(os.Stderr, "monitorcheck:", err)
		return 1
	}
	fmt.Println()
	if err := figures.Print(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "monitorcheck:", err)
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
		fmt.Fprintln(os.Stderr, "monitorcheck: run as root: the agent loads BPF programs, and the databases' tree is mounted")
		return 1
	}
	dir, err := os.MkdirTemp("", "mooring-monitorcheck")
	if err != nil {
		fmt.Fprintln(os.Stderr, "monitorcheck:", err)
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
		fmt.Fprintln(os.Stderr, "monitorcheck:", err)
		return 1
	}
	return 0
}

// tree mounts the cached Debian tree below dir, writable in memory only. The
// mounts end with the mount namespace.
func tree(dir string) (string, error) {
	lower, err := cached("rootfs")
	if err != nil {
		return "", err
	}
	root, work := filepath.Join(dir, "root"), filepath.Join(dir, "work")
	mounts := []struct{ source, target, kind, data string }{
		{"tmpfs", work, "tmpfs", "size=2g"},
		{"overlay", root, "overlay", fmt.Sprintf("lowerdir=%s,upperdir=%s/u,workdir=%s/w", lower, work, work)},
		{"proc", filepath.Join(root, "proc"), "proc", ""},
		{"/dev", filepath.Join(root, "dev"), "", ""},
	}
	for _, m := range mounts {
		var flags uintptr
		if m.kind == "" {
			flags = unix.MS_BIND | unix.MS_REC
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return "", fmt.Errorf("make mount point: %w", err)
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
		return "", fmt.Errorf("%w; run `make tools` and `cmd/vmtest/setup.sh control` first", err)
	}
	return dir, nil
}
