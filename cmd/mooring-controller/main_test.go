package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExitStatus(t *testing.T) {
	good := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(good, []byte(`{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],"contexts":[{"name":"x","context":{"cluster":"c"}}],"current-context":"x"}`), 0o600))
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"help":               {[]string{"--help"}, 0, "--agent-selector"},
		"version":            {[]string{"--version"}, 0, "dev"},
		"unknown flag":       {[]string{"--agents"}, 2, "--help"},
		"an argument":        {[]string{"run"}, 2, "run"},
		"a selector of all":  {[]string{"--kubeconfig", good, "--agent-selector", ""}, 2, "agent selector is empty"},
		"no such port":       {[]string{"--kubeconfig", good, "--agent-port", "70000"}, 2, "70000"},
		"no kubeconfig":      {[]string{"--kubeconfig", filepath.Join(t.TempDir(), "none")}, 1, "--kubeconfig"},
		"no metrics address": {[]string{"--kubeconfig", good, "--metrics", "nowhere:x"}, 1, "--metrics"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, err bytes.Buffer
			require.Equal(t, c.status, run(c.args, &out, &err), err.String())
			require.Contains(t, out.String()+err.String(), c.says)
		})
	}
}
