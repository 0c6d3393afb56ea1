//go:build vmhost

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// programs are what the tests run: the runner, and the programs for its guests.
// One boot takes seconds, so a test asks as much of its guest as it can.
type programs struct{ vmtest, probe, skips string }

func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	p := programs{filepath.Join(dir, "vmtest"), filepath.Join(dir, "probe"), filepath.Join(dir, "skips.test")}
	for _, arguments := range [][]string{
		{"build", "-o", p.vmtest, "."},
		{"build", "-o", p.probe, "./testdata/probe"},
		{"test", "-c", "-o", p.skips, "./testdata/skips"},
	} {
		command := exec.CommandContext(t.Context(), "go", arguments...)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := command.CombinedOutput()
		require.NoError(t, err, "go %q: %s", arguments, out)
	}
	return p
}

// outcome is what a run of the runner came to.
type outcome struct {
	code           int
	stdout, stderr string
}

func (p programs) run(t *testing.T, arguments ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, p.vmtest, arguments...)
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var ended *exec.ExitError
	if err != nil {
		require.ErrorAs(t, err, &ended)
	}
	return outcome{command.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestRunner(t *testing.T) {
	p := build(t)
	t.Run("serves go test and brings its coverage back", func(t *testing.T) {
		profile := filepath.Join(t.TempDir(), "profile")
		command := exec.CommandContext(t.Context(), "go", "test", "-tags", "kernel", "-run", "^TestGuest", "-count=1",
			"-coverprofile", profile, "-exec", p.vmtest, ".")
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "\tcoverage: ")
		require.FileExists(t, profile)
	})
	t.Run("carries status, output and files through", func(t *testing.T) {
		out := t.TempDir()
		got := p.run(t, "-out", out, "--", p.probe, "report", out, "3")
		require.Equal(t, 3, got.code, got.stderr)
		require.True(t, got.stdout == strings.Repeat("0123456789abcde\n", 256<<10), "all of the output, in order")
		require.Contains(t, got.stderr, "to standard error\n")
		kept, err := os.ReadFile(filepath.Join(out, "kept"))
		require.NoError(t, err)
		require.Equal(t, "by the guest", string(kept))
		require.NoFileExists(t, "lost")
	})
	t.Run("mounts an image and leaves it as it was", func(t *testing.T) {
		image := filepath.Join(t.TempDir(), "image")
		rootfs, err := cache{cacheFolder(os.Getenv)}.rootfs()
		require.NoError(t, err)
		require.NoError(t, makeScratch(image, rootfs, 64*mib))
		before, err := os.ReadFile(image)
		require.NoError(t, err)
		got := p.run(t, "-image", image, "/bin/sh", "-c", "echo new >/state/file; sync; findmnt -no SOURCE,FSTYPE /state")
		require.Equal(t, 0, got.code, got.stderr)
		require.Equal(t, "/dev/vdb ext4", strings.Join(strings.Fields(got.stdout), " "))
		after, err := os.ReadFile(image)
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after))
	})
	t.Run("fails on a skipped test and on an oops", func(t *testing.T) {
		got := p.run(t, p.skips)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.stdout, "\nPASS\n")
		require.Contains(t, got.stderr, "tests were skipped, which counts as a failure here: TestPasses/skips_a_part")
		require.Regexp(t, `kernel reported trouble.*\n.*Oops: test`, got.stderr)
	})
	t.Run("kills a guest that hangs, says where it was, and tries once", func(t *testing.T) {
		got := p.run(t, "-hang", "8s", p.probe, "freeze")
		require.Equal(t, 1, got.code)
		require.Contains(t, got.stderr, "no sign of life for 8s; it was killed and not tried again")
		require.Contains(t, got.stderr, "RIP=")
		require.Equal(t, 1, strings.Count(got.stderr, startMark), "one boot")
	})
	t.Run("keeps to its time limit", func(t *testing.T) {
		got := p.run(t, "-timeout", "15s", p.probe, "wait")
		require.Equal(t, 1, got.code)
		require.Contains(t, got.stderr, "longer than -timeout 15s")
	})
	t.Run("says what it cannot set up", func(t *testing.T) {
		got := p.run(t, "no-such-program")
		require.Equal(t, exitSetup, got.code)
		require.Contains(t, got.stderr, "set up the guest: find program")
		got = p.run(t, "-kernel", "0.99", "true")
		require.Equal(t, exitSetup, got.code)
		require.Contains(t, got.stderr, `kernel "0.99" is not in`)
	})
}

func TestNoQEMUOutlivesTheRunner(t *testing.T) {
	p := build(t)
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGTERM, 128 + 15}, {syscall.SIGKILL, -1}} {
		t.Run("ended by "+c.signal.String(), func(t *testing.T) {
			temporary := t.TempDir()
			command := exec.CommandContext(t.Context(), p.vmtest, p.probe, "wait")
			command.Env = append(os.Environ(), "TMPDIR="+temporary)
			stdout, err := command.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, command.Start())
			_, err = io.ReadFull(stdout, make([]byte, len("waiting\n")))
			require.NoError(t, err)
			guest := child(t, command.Process.Pid)
			require.NoError(t, command.Process.Signal(c.signal))
			var ended *exec.ExitError
			require.ErrorAs(t, command.Wait(), &ended)
			require.Equal(t, c.code, ended.ExitCode())
			require.Eventually(t, func() bool { return !executing(guest) }, 10*time.Second, 20*time.Millisecond)
			left, err := os.ReadDir(temporary)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// child returns the only child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	var all []byte
	for _, l := range lists {
		b, err := os.ReadFile(l)
		require.NoError(t, err)
		all = append(all, b...)
	}
	var id int
	_, err = fmt.Sscan(string(all), &id)
	require.NoError(t, err, "children: %q", all)
	return id
}

// executing reports whether a process runs; a zombie that nobody reaps does not.
func executing(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}
