package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// joined is set in the environment of a process that started itself again in
// the host's cgroup namespace.
const joined = "MOORING_CGROUP_NAMESPACE=host"

// joinHostCgroups puts the whole process into the cgroup namespace of process 1.
// A container runtime gives a container a namespace of its own, in which
// /proc/PID/cgroup counts from the container's cgroup and not from the root of
// what is mounted at /sys/fs/cgroup: every path would be wrong. The namespace is
// a property of each thread, so one thread enters it and starts the program
// again in its place; then this does not return.
//
// It returns nil where there is nothing to do: the namespace is the same, the
// kernel has none, or it does not let us look at process 1. In that last case
// discovery refuses what lies outside the agent's namespace.
func joinHostCgroups(args []string) error {
	proc := procRoot(args)
	host := filepath.Join(proc, "1/ns/cgroup")
	theirs, err := os.Readlink(host)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the host's cgroup namespace: %w", err)
	}
	ours, err := os.Readlink("/proc/self/ns/cgroup")
	if err != nil {
		return fmt.Errorf("look at the own cgroup namespace: %w", err)
	}
	if ours == theirs {
		return nil
	}
	if slices.Contains(os.Environ(), joined) {
		return fmt.Errorf("the host's cgroup namespace is %s and this one still %s after it was entered", theirs, ours)
	}
	ns, err := os.Open(host)
	if err != nil {
		return fmt.Errorf("open the host's cgroup namespace: %w", err)
	}
	defer ns.Close()
	runtime.LockOSThread()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter the host's cgroup namespace (run the container privileged, or with CAP_SYS_ADMIN): %w", err)
	}
	if err := unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), joined)); err != nil {
		return fmt.Errorf("start again in the host's cgroup namespace: %w", err)
	}
	return nil
}

// procRoot finds --proc-root before the flags are read: reading them takes a
// process that is in its right place.
func procRoot(args []string) string {
	root := "/proc"
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--proc-root="); ok {
			root = v
		} else if a == "--proc-root" && i+1 < len(args) {
			root = args[i+1]
		}
	}
	return root
}
