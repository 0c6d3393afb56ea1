package node

import (
	"context"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pair is a server with one service of ours and a client for it.
func pair(t *testing.T) (*guest, *Client) {
	t.Helper()
	g := &guest{ended: make(chan error, 4), halt: make(chan struct{}, 1), services: map[string]*service{}}
	s := httptest.NewServer(g.handler())
	t.Cleanup(s.Close)
	return g, NewClient(strings.TrimPrefix(s.URL, "http://"))
}

func TestClientRunsCommands(t *testing.T) {
	_, c := pair(t)
	t.Run("and says how they ended", func(t *testing.T) {
		r, err := c.Run(t.Context(), "echo out; echo err >&2; exit 7")
		require.NoError(t, err)
		require.Equal(t, Result{Stdout: "out\n", Stderr: "err\n", Exit: 7}, r)
		r, err = c.Run(t.Context(), "kill -9 $$")
		require.NoError(t, err)
		require.Equal(t, 137, r.Exit)
	})
	t.Run("and takes a failure for an error when it must not be", func(t *testing.T) {
		out, err := c.Must(t.Context(), "echo ' 42 '")
		require.NoError(t, err)
		require.Equal(t, "42", out)
		_, err = c.Must(t.Context(), "echo no >&2; false")
		require.ErrorContains(t, err, "exit status 1: no")
	})
	t.Run("and says that a program is not there", func(t *testing.T) {
		_, err := c.Exec(t.Context(), "no-such-program")
		require.ErrorContains(t, err, "no-such-program")
	})
	t.Run("and does not wait for what they leave in the background", func(t *testing.T) {
		begun := time.Now()
		r, err := c.Run(t.Context(), "sleep 1000 & echo $!")
		require.NoError(t, err)
		require.Less(t, time.Since(begun), 30*time.Second)
		_, err = c.Run(t.Context(), "kill "+r.Stdout)
		require.NoError(t, err)
	})
	t.Run("and kills them at the deadline with their children", func(t *testing.T) {
		mark := filepath.Join(t.TempDir(), "pid")
		r, err := run(t.Context(), command{Args: []string{"/bin/sh", "-c", "sleep 1000 & echo $! >" + mark + "; wait"}, Limit: 200 * time.Millisecond})
		require.ErrorContains(t, err, "did not end in 200ms")
		require.Zero(t, r)
		b, err := os.ReadFile(mark)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return !runs(strings.TrimSpace(string(b))) }, 10*time.Second, time.Millisecond)
	})
}

// runs says whether a process executes; a zombie does not.
func runs(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestClientMovesFiles(t *testing.T) {
	_, c := pair(t)
	name := filepath.Join(t.TempDir(), "a file")
	require.NoError(t, c.WriteFile(t.Context(), name, strings.NewReader("content")))
	b, err := c.ReadFile(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, "content", string(b))
	_, err = c.ReadFile(t.Context(), name+"x")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Error(t, c.WriteFile(t.Context(), "/nonexistent/x", strings.NewReader("")))
}

func TestClientFindsTheClockOffset(t *testing.T) {
	_, c := pair(t)
	o, err := c.Clock(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, o.BootID)
	require.Positive(t, o.Boottime)
	require.LessOrEqual(t, o.Ahead.Abs(), o.Error, "server and client share one clock here")
}

func TestClientHaltsOnce(t *testing.T) {
	g, c := pair(t)
	require.NoError(t, c.Halt(t.Context()))
	require.NoError(t, c.Halt(t.Context()))
	require.Len(t, g.halt, 1)
}

func TestService(t *testing.T) {
	g, c := pair(t)
	ended := make(chan error, 1)
	add := func(t *testing.T, script string, ready func() bool) {
		t.Helper()
		g.services["s"] = newService("s", ended, ready, "/bin/sh", "-c", script)
		g.services["s"].dir = t.TempDir()
		t.Cleanup(func() { require.NoError(t, g.services["s"].kill()) })
	}
	yes := func() bool { return true }
	state := func(t *testing.T) string {
		t.Helper()
		s, err := c.Status(t.Context())
		require.NoError(t, err)
		return s.Services["s"]
	}
	t.Run("starts, stops and starts again", func(t *testing.T) {
		add(t, "exec sleep 1000", yes)
		require.Equal(t, "stopped", state(t))
		require.NoError(t, c.StartService(t.Context(), "s"))
		require.Equal(t, "runs", state(t))
		require.ErrorContains(t, c.StartService(t.Context(), "s"), "it runs")
		require.NoError(t, c.StopService(t.Context(), "s"))
		require.Equal(t, "stopped", state(t))
		require.NoError(t, c.StartService(t.Context(), "s"))
		require.NoError(t, c.KillService(t.Context(), "s"))
		require.Empty(t, ended, "it was told to")
	})
	t.Run("tells when it ends by itself", func(t *testing.T) {
		add(t, "echo trouble; exit 2", yes)
		require.NoError(t, c.StartService(t.Context(), "s"))
		require.ErrorContains(t, <-ended, "s ended by itself: exit status 2\nend of its log:\ntrouble")
		require.Equal(t, "ended", state(t))
	})
	t.Run("is not started if it ends before it serves", func(t *testing.T) {
		add(t, "echo no; exit 1", func() bool { return false })
		require.ErrorContains(t, c.StartService(t.Context(), "s"), "it ended: no")
		require.Error(t, <-ended)
	})
	t.Run("must be one that is there", func(t *testing.T) {
		require.ErrorContains(t, c.StopService(t.Context(), "t"), `no service "t"`)
	})
}

func TestRunRefusesAnyOtherMachine(t *testing.T) {
	t.Setenv("VMTEST", "")
	require.ErrorContains(t, Run(context.Background(), t.TempDir()), "it runs in the guest")
}

func TestEveryFileOfTheConfigurationIsThere(t *testing.T) {
	entries, err := files.ReadDir("files")
	require.NoError(t, err)
	require.Len(t, entries, len(configuration()))
	for name := range configuration() {
		_, err := files.ReadFile("files/" + name)
		require.NoError(t, err)
	}
}
