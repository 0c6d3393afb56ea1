package dbserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// The servers that are built from Go modules.
const (
	mysqlServer = "mysqlserver"
	ferretDB    = "ferretdb"
)

// Cache returns the folder that cmd/vmtest/setup.sh fills.
func Cache() (string, error) {
	if dir := os.Getenv("MOORING_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "mooring"), nil
}

// Tree returns the tree of a Debian release: bullseye, bookworm or trixie.
//
//	bullseye  PostgreSQL 13, MariaDB 10.5, Redis 6.0
//	bookworm  PostgreSQL 15, MariaDB 10.11, Redis 7.0
//	trixie    PostgreSQL 17, MariaDB 11.8, Redis 8.0, Valkey 8.1
func Tree(release string) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	tree := filepath.Join(cache, "servers", release)
	step := "servers"
	if release == "bookworm" {
		tree, step = filepath.Join(cache, "rootfs"), "vm"
	}
	if _, err := os.Stat(filepath.Join(tree, ".stamp")); err != nil {
		return "", fmt.Errorf("find the tree of %s (cmd/vmtest/setup.sh %s makes it): %w", release, step, err)
	}
	return tree, nil
}

// postgresBin returns the folder of the newest PostgreSQL in a tree.
func postgresBin(root string) string {
	dirs, err := filepath.Glob(filepath.Join("/", root, "usr/lib/postgresql/*/bin"))
	if err != nil || len(dirs) == 0 {
		return "/usr/bin"
	}
	slices.Sort(dirs) // two digits each for decades
	return filepath.Join("/usr/lib/postgresql", filepath.Base(filepath.Dir(dirs[len(dirs)-1])), "bin")
}

// StartRedis starts Redis without persistence and waits until it answers.
func StartRedis(ctx context.Context, o Options) (*Server, error) {
	return startRedis(ctx, o, "redis", "redis-server")
}

// StartValkey is StartRedis for Valkey.
func StartValkey(ctx context.Context, o Options) (*Server, error) {
	return startRedis(ctx, o, "valkey", "valkey-server")
}

func startRedis(ctx context.Context, o Options, user, program string) (*Server, error) {
	if err := own(ctx, o, user); err != nil {
		return nil, err
	}
	args := []string{
		"--bind", o.Address, "--port", strconv.Itoa(o.Port), "--unixsocket", filepath.Join(o.Dir, "sock"),
		"--dir", o.Dir, "--save", "", "--appendonly", "no", "--protected-mode", "no",
	}
	return start(ctx, o, user, program, append(args, o.Args...)...)
}

// StartMySQLServer starts the MySQL-protocol server that is written in Go. Its
// binary needs no tree: Root is not used, and Dir neither.
func StartMySQLServer(ctx context.Context, o Options) (*Server, error) {
	return startBuilt(ctx, o, mysqlServer, "-listen", o.Address+":"+strconv.Itoa(o.Port))
}

// StartFerretDB starts FerretDB with its data in SQLite files in Dir, which is a
// folder on this machine.
func StartFerretDB(ctx context.Context, o Options) (*Server, error) {
	return startBuilt(ctx, o, ferretDB, "-listen", o.Address+":"+strconv.Itoa(o.Port), "-data", o.Dir)
}

// startBuilt starts a program of the cache folder.
func startBuilt(ctx context.Context, o Options, program string, args ...string) (*Server, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	o.Root = "/"
	path := filepath.Join(cache, "servers/go/bin", program)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("find %s (cmd/vmtest/setup.sh servers builds it): %w", program, err)
	}
	return start(ctx, o, "", path, append(args, o.Args...)...)
}

// own makes an empty data directory for a user of the tree.
func own(ctx context.Context, o Options, user string) error {
	cmd, err := Command(ctx, o.Root, "", "/bin/sh", "-c", `set -e; rm -rf "$1"; mkdir -p "$1"; chown "$2:" "$1"; chmod a+x "$(dirname "$1")"`, "sh", o.Dir, user)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make data directory %s: %w: %s", o.Dir, err, out)
	}
	return nil
}
