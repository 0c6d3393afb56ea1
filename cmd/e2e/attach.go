package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
	"golang.org/x/sys/unix"
)

// attach runs a command on a cluster that is up, from within its network
// namespace.
func attach(ctx context.Context, o options) (int, error) {
	cache, err := testbed.OpenCache(os.Getenv)
	if err != nil {
		return 1, err
	}
	defer cache.Close()
	dir, err := living(filepath.Join(cache.Dir, "runs"), o.run)
	if err != nil {
		return 1, err
	}
	if o.command == "env" {
		fmt.Printf("export KUBECONFIG=%s\n# kubectl is %s\n# ip netns exec %s COMMAND\n", kubeconfig(dir), cache.Kube("kubectl"), filepath.Base(dir))
		return 0, nil
	}
	return 1, again(dir, o)
}

func kubeconfig(dir string) string { return filepath.Join(dir, "keys", "admin.conf") }

// attachedCommand is how attach starts this program again within the network
// namespace: of a program with many threads, only one would be in it. Its
// arguments are the folder of the run, the command and that one's arguments.
const attachedCommand = "attached"

// again enters the namespace and becomes this program anew. It returns only an error.
func again(dir string, o options) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	runtime.LockOSThread()
	if err := enter(filepath.Join(netnsDir, filepath.Base(dir))); err != nil {
		return err
	}
	args := append([]string{self, "--", attachedCommand, dir, o.command}, o.args...)
	return fmt.Errorf("start again in the network namespace: %w", unix.Exec(self, args, os.Environ()))
}

// attached runs a command within the network namespace.
func attached(ctx context.Context, o options) (int, error) {
	if len(o.args) < 2 {
		return 2, errors.New("attached is what the other commands start: see e2e -h")
	}
	dir, args := o.args[0], o.args[2:]
	cache, err := testbed.OpenCache(os.Getenv)
	if err != nil {
		return 1, err
	}
	defer cache.Close()
	switch o.args[1] {
	case "kubectl":
		cmd := exec.CommandContext(ctx, cache.Kube("kubectl"), args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig(dir), "NO_PROXY=*", "no_proxy=*")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return status(cmd.Run())
	case "sh":
		r, err := node.NewClient(node.Address).Run(ctx, strings.Join(args, " "))
		fmt.Fprint(os.Stdout, r.Stdout)
		fmt.Fprint(os.Stderr, r.Stderr)
		return r.Exit, err
	case "load":
		b, err := build()
		if err != nil {
			return 1, err
		}
		return 0, testbed.Load(ctx, b, node.NewClient(node.Address))
	}
	return 2, fmt.Errorf("no command %q: see e2e -h", o.args[1])
}

func enter(netns string) error {
	f, err := os.Open(netns)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

func status(err error) (int, error) {
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return ended.ExitCode(), nil
	}
	return 0, err
}

// build finds the programs under test: beside this one.
func build() (testbed.Build, error) {
	self, err := os.Executable()
	if err != nil {
		return testbed.Build{}, fmt.Errorf("find own program: %w", err)
	}
	bin := filepath.Dir(self)
	return testbed.Build{Bin: bin, Dockerfile: filepath.Join(filepath.Dir(bin), "deploy", "Dockerfile")}, nil
}
