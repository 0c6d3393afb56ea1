package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/mooring-dev/mooring"

// arrows says which packages of ours each package may import outside its
// tests. A package that is not here fails the test: add it on purpose.
var arrows = map[string][]string{
	"agent":                   {"agent/active", "agent/agentpb", "agent/cgroup", "agent/change", "agent/digest", "agent/explain", "agent/journal", "agent/keeper", "agent/pages", "agent/pods", "agent/record", "agent/resource", "agent/sqltext", "agent/state", "agent/trend", "bpf", "chaos", "numa"},
	"agent/explain":           {"agent/state", "agent/trend"},
	"agent/trend":             {"agent/state"},
	"agent/active":            {"agent/osthread", "agent/state"},
	"agent/agentpb":           {},
	"agent/cgroup":            {"agent/change"},
	"agent/change":            {},
	"agent/journal":           {},
	"agent/keeper":            {},
	"agent/osthread":          {},
	"agent/pages":             {},
	"agent/pods":              {"agent/osthread", "agent/state"},
	"agent/sqltext":           {},
	"agent/digest":            {"agent/state"},
	"agent/record":            {},
	"agent/resource":          {"agent/osthread", "agent/state"},
	"agent/state":             {},
	"bpf":                     {"agent/change", "agent/osthread"},
	"bpf/kerneltest":          {"bpf/kerneltest/dbserver"},
	"bpf/kerneltest/dbserver": {},
	"bpf/kerneltest/wire":     {},
	"chaos":                   {"agent/change", "agent/state"},
	"controller":              {"agent/agentpb", "chaos", "controller/fleet", "controller/v1alpha1"},
	"controller/fleet":        {"agent/agentpb"},
	"controller/v1alpha1":     {},
	"exporter":                {"agent/state"},
	"numa":                    {},
	"cmd":                     {},
	"cmd/mooring-controller":  {"cmd/internal/calm", "controller"},
	"cmd/mooring-agent":       {"agent", "agent/keeper", "cmd/internal/calm", "exporter"},
	"cmd/mooringctl":          {"agent/agentpb", "agent/explain", "agent/trend", "chaos", "cmd/mooringctl/certs", "cmd/mooringctl/kube", "cmd/mooringctl/screen"},
	"cmd/mooringctl/screen":   {"agent/agentpb", "agent/explain", "agent/trend"},
	"cmd/mooringctl/certs":    {},
	"cmd/mooringctl/kube":     {"chaos", "controller/v1alpha1"},
	"deploy":                  {},
	"deploy/monitoring":       {},
	"cmd/vmtest":              {},
	"cmd/demo":                {"agent/agentpb", "bpf/kerneltest/dbserver", "cmd/internal/figure"},
	"cmd/bench":               {"agent/sqltext", "bpf", "bpf/kerneltest/dbserver", "cmd/internal/figure"},
	"cmd/internal/figure":     {},
	"cmd/internal/calm":       {},
	"cmd/monitorcheck":        {"bpf/kerneltest/dbserver", "cmd/internal/figure", "deploy/monitoring"},
	"cmd/e2e":                 {"agent/agentpb", "bpf/kerneltest/dbserver", "cmd/e2e/node", "cmd/e2e/testbed", "cmd/internal/figure", "controller/v1alpha1"},
	"cmd/e2e/image":           {},
	"cmd/e2e/node":            {},
	"cmd/e2e/pause":           {},
	"cmd/e2e/testbed":         {"bpf/kerneltest/dbserver", "cmd/e2e/image", "cmd/e2e/node"},
}

// owners says which packages may import an outside module, so that an upgrade
// touches one directory. "" stands for test files only.
var owners = map[string][]string{
	"github.com/cilium/ebpf":                 {"bpf"},
	"github.com/vishvananda/netlink":         {"bpf", "agent/pods", "agent/resource", "cmd/e2e", "cmd/e2e/testbed"},
	"github.com/containerd/cgroups/v3":       {"agent/cgroup"},
	"github.com/opencontainers/runtime-spec": {"agent/cgroup"},
	"github.com/prometheus/procfs":           {"numa", "agent/pods", "agent/resource"},
	"github.com/shirou/gopsutil/v3":          {"agent/pods"},
	"github.com/prometheus/client_golang":    {"exporter", "controller"},
	"k8s.io/client-go":                       {"agent/pods", "cmd/mooringctl/kube", "cmd/e2e", "cmd/e2e/testbed", "controller", "cmd/mooring-controller"},
	"sigs.k8s.io/controller-runtime":         {"controller", "cmd/mooring-controller", "cmd/mooringctl/kube", "cmd/e2e", "cmd/e2e/testbed"},
	"google.golang.org/grpc":                 {"agent", "agent/agentpb", "cmd/mooringctl", "cmd/demo", "controller", "controller/fleet"},
	"github.com/jackc/pgx/v5":                {"agent/active"},
	"github.com/go-sql-driver/mysql":         {"agent/active"},
	"gopkg.in/natefinch/lumberjack.v2":       {"agent/record"},
	"golang.org/x/time":                      {"agent/record"},
	"github.com/stretchr/testify":            {"", "bpf/kerneltest"},
	"pgregory.net/rapid":                     {""},
	"golang.org/x/term":                      {"cmd/mooringctl", "cmd/mooringctl/screen"},
	"golang.org/x/text":                      {"cmd/mooringctl/screen"},
	"github.com/spf13/cobra":                 {"cmd/mooring-agent", "cmd/mooringctl", "cmd/mooringctl/kube", "cmd/mooring-controller"},
}

// starters may start other programs. Everything else that needs one is wrong.
var starters = []string{"cmd/vmtest", "cmd/demo", "cmd/bench", "bpf/kerneltest", "bpf/kerneltest/dbserver", "cmd/e2e", "cmd/e2e/node", "cmd/e2e/testbed", "cmd/monitorcheck"}

type pkg struct {
	ImportPath string
	Name       string
	Dir        string
	Doc        string
	Imports    []string
	GoFiles    []string
	Deps       []string
}

// short is the import path below the module, "" for the root.
func (p pkg) short() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,Doc,Imports,GoFiles,Deps", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

func TestPackagesImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := arrows[p.short()]
		require.True(t, known, "package %q is not in the import table", p.short())
		for _, i := range p.Imports {
			if ours, ok := strings.CutPrefix(i, module+"/"); ok {
				require.Contains(t, allowed, ours, "%s imports %s", p.short(), ours)
			}
		}
	}
}

func TestOutsideModulesHaveOneOwner(t *testing.T) {
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			for mod, who := range owners {
				if i == mod || strings.HasPrefix(i, mod+"/") {
					require.Contains(t, who, p.short(), "%s imports %s", p.short(), i)
				}
			}
			if i == "os/exec" {
				require.Contains(t, starters, p.short(), "%s starts programs", p.short())
			}
		}
	}
}

func TestShippedBinariesHoldNoTestCode(t *testing.T) {
	for _, p := range packages(t) {
		if p.short() != "cmd/mooring-agent" && p.short() != "cmd/mooring-controller" && p.short() != "cmd/mooringctl" {
			continue
		}
		for _, d := range p.Deps {
			require.NotEqual(t, "testing", d, "%s links testing", p.short())
			require.False(t, strings.HasPrefix(d, "github.com/stretchr/testify"), "%s links testify", p.short())
		}
		if p.short() != "cmd/mooring-agent" {
			require.NotContains(t, p.Deps, "github.com/cilium/ebpf", "%s links eBPF", p.short())
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		require.True(t, strings.HasPrefix(p.Doc, want), "%s: its doc begins %q, not %q", p.short(), p.Doc, want)
	}
}

func TestFilesKeepTheHouseRules(t *testing.T) {
	note := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		generated := strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, "_bpfel.go") || strings.HasSuffix(path, "zz_generated.deepcopy.go")
		if d.IsDir() || generated || filepath.Ext(path) != ".go" && filepath.Ext(path) != ".c" {
			return nil
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		if !strings.HasSuffix(path, "layout_test.go") {
			require.Nil(t, note.Find(b), "%s leaves a note for later", path)
			require.NotRegexp(t, `\bt\.Skip(f|Now)?\(`, string(b), "%s skips", path)
		}
		if strings.HasSuffix(path, ".bpf.c") {
			require.True(t, strings.HasPrefix(string(b), "//go:build ignore\n"), "%s would be built by cgo", path)
			require.Contains(t, string(b), "GPL-2.0-only OR BSD-2-Clause", path)
		}
		if filepath.Ext(path) == ".go" {
			f, err := parser.ParseFile(token.NewFileSet(), path, b, parser.SkipObjectResolution)
			require.NoError(t, err)
			require.NotContains(t, functions(f), "init", "%s registers behind the reader's back", path)
			if !strings.HasSuffix(path, "_test.go") {
				require.LessOrEqual(t, bytes.Count(b, []byte("\n")), 450, "%s is too long", path)
			}
		}
		return nil
	})
	require.NoError(t, err)
}

func TestTopLevelIsFixed(t *testing.T) {
	want := []string{"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "agent", "bin",
		"bpf", "chaos", "cmd", "controller", "deploy", "exporter", "go.mod", "go.sum", "numa"}
	entries, err := os.ReadDir("..")
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			require.True(t, slices.Contains(want, e.Name()), "%q does not belong at the top", e.Name())
		}
	}
}

// functions are the names of the plain functions that f declares.
func functions(f *ast.File) []string {
	var names []string
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
			names = append(names, fn.Name.Name)
		}
	}
	return names
}
