package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func begin(argv ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = start(argv, &out, &errs)
	return code, out.String(), errs.String()
}

func TestTheProgramsNameChoosesTheTree(t *testing.T) {
	for _, name := range []string{"kubectl-mooring", "/usr/bin/kubectl_mooring", `kubectl-mooring.exe`} {
		code, out, _ := begin(name, "--help")
		require.Zero(t, code)
		require.Contains(t, out, "kubectl mooring [command]")
		require.Contains(t, out, "chaos")
		require.NotContains(t, out, "--socket")
	}
	code, out, _ := begin("/bin/mooringctl", "--help")
	require.Zero(t, code)
	require.Contains(t, out, "--socket")
	require.Contains(t, out, "kube ")
	code, out, _ = begin("mooringctl", "kube", "chaos", "run", "--help")
	require.Zero(t, code)
	require.Contains(t, out, "mooringctl kube chaos run")
	require.Contains(t, out, "--set delay=")
}

func TestThePluginsErrorsCarryItsNameAndStatus(t *testing.T) {
	code, _, errs := begin("kubectl-mooring", "chaos", "run", "--policy", "p")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "kubectl mooring: chaos run:")
	code, _, errs = begin("mooringctl", "kube", "frobnicate")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "frobnicate")
	missing := filepath.Join(t.TempDir(), "none")
	code, _, errs = begin("kubectl-mooring", "instances", "--kubeconfig", missing)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "kubeconfig")
	require.NoError(t, os.WriteFile(missing, []byte(config), 0o600))
	code, _, errs = begin("kubectl-mooring", "instances", "--kubeconfig", missing)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "the API server does not answer")
}

// config names an API server that is not there.
const config = `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: x}}]
`

func TestCertsAreMadeOnceAndPrintedAsSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	code, out, errs := begin("mooringctl", "certs", "--out", dir)
	require.Zero(t, code, errs)
	require.Contains(t, out, "ca.key off the cluster")
	code, _, errs = begin("mooringctl", "certs", "--out", dir)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "--renew replaces them")
	secrets := func(args ...string) map[string]corev1.Secret {
		code, out, errs := begin(append([]string{"mooringctl", "certs", "--out", dir, "-o", "yaml"}, args...)...)
		require.Zero(t, code, errs)
		all := map[string]corev1.Secret{}
		for _, doc := range strings.Split(strings.TrimPrefix(out, "---\n"), "\n---\n") {
			var s corev1.Secret
			require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &s))
			all[s.Name] = s
		}
		require.Len(t, all, 2)
		return all
	}
	first, again, renewed := secrets(), secrets(), secrets("--renew")
	require.Equal(t, first, again, "printing changes nothing")
	for name := range first {
		require.NotEqual(t, first[name].Data["tls.key"], renewed[name].Data["tls.key"])
		require.Equal(t, first[name].Data["ca.crt"], renewed[name].Data["ca.crt"])
	}
	for args, says := range map[string]string{
		"--out " + dir + " --renew --new-ca": "one by one", "--days 0 --out x": "at least 1", "": "--out", "--out x -o json": "json", "extra": "extra",
	} {
		code, _, errs := begin(append([]string{"mooringctl", "certs"}, strings.Fields(args)...)...)
		require.Equal(t, 2, code, args)
		require.Contains(t, errs, says)
	}
	code, _, errs = begin("mooringctl", "certs", "--out", filepath.Join(dir, "nothing"), "--renew")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no such file")
}
