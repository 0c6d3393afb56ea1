package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Run("the whole story is the default", func(t *testing.T) {
		o, err := parse(nil, io.Discard)
		require.NoError(t, err)
		require.Equal(t, options{command: "run", kernel: "6.1", memory: "2G", limit: 30 * time.Minute, pace: 6 * time.Minute}, o)
	})
	t.Run("a cluster that is kept has a day", func(t *testing.T) {
		for _, arguments := range [][]string{{"up"}, {"-keep"}} {
			o, err := parse(arguments, io.Discard)
			require.NoError(t, err)
			require.Equal(t, 24*time.Hour, o.limit)
		}
	})
	t.Run("what follows a command is the command's", func(t *testing.T) {
		o, err := parse([]string{"-run", "e2e-7", "kubectl", "get", "pods", "-A"}, io.Discard)
		require.NoError(t, err)
		require.Equal(t, "e2e-7", o.run)
		require.Equal(t, []string{"get", "pods", "-A"}, o.args)
	})
	t.Run("help is not an error of the caller", func(t *testing.T) {
		_, err := parse([]string{"-h"}, io.Discard)
		require.ErrorIs(t, err, flag.ErrHelp)
	})
}

func TestTheOneInsideGetsTheSameOptions(t *testing.T) {
	o, err := parse([]string{"-kernel", "6.12", "-memory", "5G", "-pace", "9m", "-keep", "-logs", "/l", "run"}, io.Discard)
	require.NoError(t, err)
	got, err := parse(insideArguments(o, "/dir"), io.Discard)
	require.NoError(t, err)
	require.Equal(t, insideCommand, got.command)
	require.Equal(t, []string{"run", "/dir"}, got.args)
	got.command, got.args = o.command, o.args
	require.Equal(t, o, got)
}

func TestDispatchRefuses(t *testing.T) {
	for _, command := range []string{"dance", "node", insideCommand, attachedCommand} {
		code, err := dispatch(t.Context(), options{command: command})
		require.Error(t, err, command)
		require.Equal(t, 2, code)
	}
}

func TestRunFolders(t *testing.T) {
	runs := t.TempDir()
	_, err := living(runs, "")
	require.ErrorContains(t, err, "no cluster is up")

	r, err := newRun(runs)
	require.NoError(t, err)
	t.Run("one that lives is found", func(t *testing.T) {
		dir, err := living(runs, "")
		require.NoError(t, err)
		require.Equal(t, r.dir, dir)
		_, err = living(runs, "e2e-0")
		require.ErrorContains(t, err, "no cluster is up")
	})
	t.Run("one that was killed is swept, one that lives is not", func(t *testing.T) {
		dead := filepath.Join(runs, "e2e-1")
		require.NoError(t, os.MkdirAll(filepath.Join(dead, "keys"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dead, "lock"), nil, 0o644))
		dir, err := living(runs, "")
		require.NoError(t, err)
		require.Equal(t, r.dir, dir)
		require.NoError(t, sweep(runs))
		require.NoDirExists(t, dead)
		require.DirExists(t, r.dir)
	})
	t.Run("one that ends leaves nothing", func(t *testing.T) {
		require.NoError(t, r.remove())
		require.NoDirExists(t, r.dir)
	})
}

func TestEveryActHasATitle(t *testing.T) {
	s := &stage{}
	seen := map[string]bool{}
	for _, a := range s.acts() {
		require.NotEmpty(t, a.title)
		require.False(t, seen[a.title], a.title)
		seen[a.title] = true
	}
}
