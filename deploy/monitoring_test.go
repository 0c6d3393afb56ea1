package deploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// monitored renders an overlay with both components in a copy of this directory.
func monitored(t *testing.T) map[string]object {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"base", "crds", "components", "monitoring"} {
		require.NoError(t, os.CopyFS(filepath.Join(root, dir), os.DirFS(dir)))
	}
	require.NoError(t, os.Mkdir(filepath.Join(root, "mine"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "mine/kustomization.yaml"),
		[]byte("resources: [../base]\ncomponents: [../components/monitoring, ../monitoring/dashboards]\n"), 0o644))
	return byName(kustomize(t, filepath.Join(root, "mine")))
}

func TestMonitoringIsTheSameByBothWays(t *testing.T) {
	all, err := chart(t, "mooring-system", map[string]any{
		"serviceMonitor": map[string]any{"enabled": true}, "prometheusRule": map[string]any{"enabled": true}, "dashboards": map[string]any{"enabled": true},
	})
	require.NoError(t, err)
	want, have := monitored(t), byName(all)
	found := 0
	for name, o := range want {
		kind := o.text("kind")
		if kind != "ConfigMap" && !foreign(o) {
			continue
		}
		found++
		require.Equal(t, o, have[name], name)
		require.Equal(t, "mooring", o.at("metadata", "labels").(map[string]any)["app.kubernetes.io/part-of"], name)
		if kind == "ConfigMap" {
			data := typed(t, o).(*corev1.ConfigMap)
			require.Equal(t, "1", data.Labels["grafana_dashboard"])
			for file, text := range data.Data {
				require.Equal(t, read(t, "monitoring/dashboards/"+file), text)
				require.Less(t, len(text), 250<<10, "kubectl apply could not keep its annotation")
			}
		}
	}
	require.Equal(t, len(files(t, "monitoring/dashboards", "*.json"))+3, found)
	require.NotEmpty(t, want["PrometheusRule mooring"].at("spec", "groups"))
	require.False(t, strings.Contains(read(t, "components/monitoring/rules.yaml"), "{{`"), "the object is not a template")
}
