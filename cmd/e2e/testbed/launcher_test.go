package testbed

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLauncher(t *testing.T) {
	l := NewLauncher()
	dir := t.TempDir()
	start := func(t *testing.T, ended func(error), script string) *Process {
		t.Helper()
		p, err := l.Start("it", filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")), exec.Command("/bin/sh", "-c", script), ended)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, p.Kill()) })
		return p
	}
	t.Run("tells of a process that ends by itself", func(t *testing.T) {
		told := make(chan error, 1)
		p := start(t, func(err error) { told <- err }, "echo why; exit 3")
		require.ErrorContains(t, <-told, "it ended by itself: exit status 3")
		require.Error(t, p.Wait(t.Context()))
		out, err := p.Output()
		require.NoError(t, err)
		require.Equal(t, "why\n", out)
	})
	t.Run("tells nothing of one that was stopped", func(t *testing.T) {
		told := make(chan error, 1)
		p := start(t, func(err error) { told <- err }, "exec sleep 1000")
		require.NoError(t, p.Stop(10*time.Second))
		require.Empty(t, told)
		require.NoError(t, p.Stop(time.Second), "a second time does nothing")
	})
	t.Run("kills one that does not want to end", func(t *testing.T) {
		p := start(t, nil, "trap '' TERM; echo ready; while :; do sleep 0.01; done")
		require.Eventually(t, func() bool { out, _ := p.Output(); return out == "ready\n" }, 10*time.Second, time.Millisecond)
		require.NoError(t, p.Stop(10*time.Millisecond))
		<-p.Done()
	})
	t.Run("gives the output of a program that failed", func(t *testing.T) {
		out, err := l.Run(exec.Command("/bin/sh", "-c", "echo both; echo of them >&2; exit 1"))
		require.Equal(t, "both\nof them\n", out)
		require.ErrorContains(t, err, "exit status 1: both\nof them")
	})
	t.Run("freezes a process and thaws it", func(t *testing.T) {
		p := start(t, nil, "while :; do :; done")
		require.Error(t, frozen("/proc", p.PID()))
		require.NoError(t, p.Freeze(t.Context()))
		require.NoError(t, frozen("/proc", p.PID()))
		require.NoError(t, p.Thaw())
		require.Eventually(t, func() bool { return frozen("/proc", p.PID()) != nil }, 10*time.Second, time.Millisecond)
	})
	t.Run("waits no longer than its context", func(t *testing.T) {
		p := start(t, nil, "exec sleep 1000")
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, p.Wait(ctx), context.DeadlineExceeded)
		require.Positive(t, p.Memory())
	})
}

func TestResidentMemoryCountsChildren(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "7/status"), "Name:\tx\nVmRSS:\t     100 kB\n")
	write(t, filepath.Join(proc, "7/task/7/children"), "8 9 ")
	write(t, filepath.Join(proc, "7/task/70/children"), "")
	write(t, filepath.Join(proc, "8/status"), "VmRSS:\t     20 kB\n")
	require.NoError(t, os.MkdirAll(filepath.Join(proc, "8/task"), 0o755))
	require.EqualValues(t, 120<<10, residentMemory(proc, 7), "9 has gone meanwhile")
}

func TestPollNamesWhatItWaitedFor(t *testing.T) {
	err := poll(t.Context(), time.Millisecond, "the moon", func(context.Context) error { return os.ErrNotExist })
	require.ErrorContains(t, err, "wait for the moon: not within 1ms")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, poll(t.Context(), time.Minute, "nothing", func(context.Context) error { return nil }))
}

func TestTogetherReturnsTheFirstError(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	err := together(ctx, cancel,
		func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		func(context.Context) error { return os.ErrClosed },
	)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestDecodeSamples(t *testing.T) {
	list, err := decodeSamples([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"a"},"value":[1.5,"2.25"]}]}}`))
	require.NoError(t, err)
	require.Equal(t, []Sample{{map[string]string{"job": "a"}, 2.25}}, list)
	_, err = decodeSamples([]byte(`{"data":{"resultType":"matrix"}}`))
	require.ErrorContains(t, err, `"matrix", not a vector`)
	_, err = decodeSamples([]byte(`{"data":{"resultType":"vector","result":[{"value":[1,2]}]}}`))
	require.ErrorContains(t, err, "decode Prometheus' answer")
}
