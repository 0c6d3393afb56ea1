// Package deploy has no code: these tests hold the manifests, the chart, the
// Dockerfile and the examples to what the programs and the README say.
package deploy

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// object is one manifest as it was rendered.
type object map[string]any

func (o object) at(path ...string) any {
	var now any = map[string]any(o)
	for _, p := range path {
		m, ok := now.(map[string]any)
		if !ok {
			return nil
		}
		now = m[p]
	}
	return now
}

func (o object) text(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

// name is "Kind name".
func (o object) name() string { return o.text("kind") + " " + o.text("metadata", "name") }

// kustomize renders a directory below deploy.
func kustomize(t *testing.T, dir string) []object {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	b, err := m.AsYaml()
	require.NoError(t, err)
	return split(t, b)
}

// split reads a stream of YAML documents.
func split(t *testing.T, b []byte) []object {
	t.Helper()
	var all []object
	for _, doc := range bytes.Split(b, []byte("\n---\n")) {
		o := object{}
		require.NoError(t, yaml.Unmarshal(doc, &o), "%s", doc)
		if len(o) > 0 {
			all = append(all, o)
		}
	}
	require.NotEmpty(t, all)
	return all
}

// selfSigned renders the overlay of that name with files in the place of
// certificates, in a copy of this directory.
func selfSigned(t *testing.T) []object {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"base", "crds", "overlays"} {
		require.NoError(t, os.CopyFS(filepath.Join(root, dir), os.DirFS(dir)))
	}
	certs := filepath.Join(root, "overlays/self-signed/certs")
	require.NoError(t, os.RemoveAll(certs))
	for _, side := range []string{"agent", "controller"} {
		require.NoError(t, os.MkdirAll(filepath.Join(certs, side), 0o700))
		for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
			require.NoError(t, os.WriteFile(filepath.Join(certs, side, name), []byte(side+name), 0o600))
		}
	}
	return kustomize(t, filepath.Join(root, "overlays/self-signed"))
}

// renderings are all that an operator could apply.
func renderings(t *testing.T) map[string][]object {
	t.Helper()
	all := map[string][]object{"overlays/self-signed": selfSigned(t)}
	for _, dir := range []string{"base", "overlays/cert-manager", "overlays/agent-only", "uninstall", "crds"} {
		all[dir] = kustomize(t, dir)
	}
	return all
}

// foreign are the groups of others, whose types are not at hand.
func foreign(o object) bool {
	group, _, _ := strings.Cut(o.text("apiVersion"), "/")
	return group == "cert-manager.io" || group == "monitoring.coreos.com"
}

// typed decodes an object strictly: a field that its type does not have fails.
func typed(t *testing.T, o object) runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, clientscheme.AddToScheme(scheme))
	require.NoError(t, apiextensionsv1.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	b, err := yaml.Marshal(o)
	require.NoError(t, err)
	out, _, err := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer().Decode(b, nil, nil)
	require.NoError(t, err, o.name())
	return out
}

// find returns the one object of that kind and name, typed.
func find[T runtime.Object](t *testing.T, all []object, name string) T {
	t.Helper()
	var zero T
	for _, o := range all {
		if o.name() == name {
			got, ok := typed(t, o).(T)
			require.True(t, ok, "%s is a %T", name, got)
			return got
		}
	}
	t.Fatalf("there is no %s", name)
	return zero
}

// pods returns every pod template with the name of what it is in.
func pods(t *testing.T, all []object) map[string]corev1.PodSpec {
	t.Helper()
	specs := map[string]corev1.PodSpec{}
	for _, o := range all {
		switch o.text("kind") {
		case "DaemonSet":
			specs[o.text("metadata", "name")] = find[*appsv1.DaemonSet](t, all, o.name()).Spec.Template.Spec
		case "Deployment":
			specs[o.text("metadata", "name")] = find[*appsv1.Deployment](t, all, o.name()).Spec.Template.Spec
		}
	}
	return specs
}

// readme is this directory's, or another file's, text.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// files lists the files below dir.
func files(t *testing.T, dir, pattern string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if ok, merr := filepath.Match(pattern, d.Name()); err == nil && merr == nil && ok && !d.IsDir() {
			found = append(found, path)
		}
		return err
	}))
	return found
}
