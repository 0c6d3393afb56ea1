package deploy

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
)

// chart renders the chart as `helm template` does.
func chart(t *testing.T, namespace string, values map[string]any) ([]object, error) {
	t.Helper()
	c, err := loader.Load("helm/mooring")
	require.NoError(t, err)
	v, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "mooring", Namespace: namespace, IsInstall: true}, nil)
	require.NoError(t, err)
	rendered, err := engine.Render(c, v)
	if err != nil {
		return nil, err
	}
	var all []object
	for name, text := range rendered {
		if strings.TrimSpace(text) != "" && filepath.Ext(name) == ".yaml" {
			all = append(all, split(t, []byte(text))...)
		}
	}
	return all, nil
}

func byName(all []object) map[string]object {
	m := map[string]object{}
	for _, o := range all {
		m[o.name()] = o
	}
	return m
}

func TestTheChartRendersTheBase(t *testing.T) {
	got, err := chart(t, "mooring-system", nil)
	require.NoError(t, err)
	want := byName(slices.DeleteFunc(kustomize(t, "base"), func(o object) bool {
		// Helm makes the namespace itself and installs crds/ on its own.
		return o.text("kind") == "Namespace" || o.text("kind") == "CustomResourceDefinition"
	}))
	have := byName(got)
	require.Len(t, got, len(want))
	for name, o := range want {
		require.Equal(t, o, have[name], name)
	}
}

func TestTheChartHasTheSameResources(t *testing.T) {
	want, have := files(t, "crds", "mooring.dev_*.yaml"), files(t, "helm/mooring/crds", "*.yaml")
	require.Len(t, have, len(want))
	for _, path := range want {
		require.Equal(t, read(t, path), read(t, filepath.Join("helm/mooring/crds", filepath.Base(path))), "run make generate")
		require.Contains(t, read(t, "crds/kustomization.yaml"), "- "+filepath.Base(path)+"\n")
	}
}

func TestTheChartsValuesDoWhatTheySay(t *testing.T) {
	all, err := chart(t, "db", map[string]any{
		"tag": "v9.9.9", "imagePullPolicy": "Never", "priorityClasses": false,
		"imagePullSecrets": []any{map[string]any{"name": "pull"}},
		"tls":              map[string]any{"mode": "certManager", "agentSecret": "a", "controllerSecret": "c"},
		"agent":            map[string]any{"image": "r/a", "nodeSelector": map[string]any{"disk": "ssd"}, "tolerations": []any{}},
		"controller":       map[string]any{"replicas": 1, "tolerations": []any{map[string]any{"operator": "Exists"}}},
		"networkPolicy":    map[string]any{"enabled": false},
		"serviceMonitor":   map[string]any{"enabled": true},
	})
	require.NoError(t, err)
	have := byName(all)
	require.NotContains(t, have, "NetworkPolicy mooring-controller")
	require.NotContains(t, have, "PriorityClass mooring-agent")
	require.Contains(t, have, "ServiceMonitor mooring-agent")
	require.Equal(t, "a", have["Certificate mooring-agent"].text("spec", "secretName"))
	for _, o := range all {
		if ns := o.at("metadata", "namespace"); ns != nil {
			require.Equal(t, "db", ns, o.name())
		}
	}
	agent := find[*appsv1.DaemonSet](t, all, "DaemonSet mooring-agent").Spec.Template.Spec
	require.Equal(t, "r/a:v9.9.9", agent.Containers[0].Image)
	require.EqualValues(t, "Never", agent.Containers[0].ImagePullPolicy)
	require.Equal(t, "ssd", agent.NodeSelector["disk"])
	require.Empty(t, agent.Tolerations)
	require.Empty(t, agent.PriorityClassName)
	require.Equal(t, "pull", agent.ImagePullSecrets[0].Name)
	controller := find[*appsv1.Deployment](t, all, "Deployment mooring-controller").Spec
	require.EqualValues(t, 1, *controller.Replicas)
	require.Len(t, controller.Template.Spec.Tolerations, 1)
	require.Equal(t, "c", controller.Template.Spec.Volumes[0].Secret.SecretName)

	_, err = chart(t, "db", map[string]any{"tls": map[string]any{"mode": "magic"}})
	require.ErrorContains(t, err, `"magic"`)
}
