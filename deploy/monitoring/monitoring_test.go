package monitoring

import (
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the rendered files")

const deploy = ".."

func rendered(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := Files()
	require.NoError(t, err)
	cases, err := yaml.Marshal(promtoolFile())
	require.NoError(t, err)
	files["monitoring/"+casesPath] = cases
	return files
}

func TestGeneratedFilesAreFresh(t *testing.T) {
	files := rendered(t)
	for path, want := range files {
		full := filepath.Join(deploy, path)
		if *update {
			require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
			require.NoError(t, os.WriteFile(full, want, 0o644))
		}
		have, err := os.ReadFile(full)
		require.NoError(t, err)
		require.Equal(t, string(want), string(have), "%s is stale: run make generate", path)
	}
	for _, dir := range []string{"monitoring/rules", "monitoring/dashboards", "monitoring/testdata", "helm/mooring/files"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(deploy, dir), func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			rel, err := filepath.Rel(deploy, path)
			require.NoError(t, err)
			if !d.IsDir() && d.Name() != "kustomization.yaml" {
				require.Contains(t, files, rel, "nothing renders this file")
			}
			return nil
		}))
	}
}

func TestReadme(t *testing.T) {
	const begin, end = "<!-- %s: generated, do not edit -->\n\n", "\n<!-- end -->\n"
	b, err := os.ReadFile("README.md")
	require.NoError(t, err)
	text := string(b)
	for name, table := range map[string]string{"alerts": AlertTable(), "recordings": RecordingTable()} {
		head, rest, ok := strings.Cut(text, strings.Replace(begin, "%s", name, 1))
		require.True(t, ok, "README.md has no place for %s", name)
		_, tail, ok := strings.Cut(rest, end)
		require.True(t, ok)
		text = head + strings.Replace(begin, "%s", name, 1) + table + end + tail
	}
	if *update {
		require.NoError(t, os.WriteFile("README.md", []byte(text), 0o644))
	}
	require.True(t, *update || text == string(b), "README.md is stale: run make generate")
}

func TestRuleNames(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range Groups() {
		require.NotEmpty(t, g.Rules, g.Name)
		for _, r := range g.Rules {
			name := r.Record + r.Alert
			require.False(t, seen[name], "%s is there twice", name)
			seen[name] = true
			if r.Record != "" {
				require.Regexp(t, `^[a-z_]+:[a-z_]+:[a-z0-9_]+$`, r.Record)
				continue
			}
			require.Regexp(t, `^(DB|Mooring)[A-Za-z]+$`, r.Alert)
			require.Contains(t, []string{critical, warning}, r.Labels["severity"])
			for _, a := range []string{"summary", "description", "runbook"} {
				require.NotEmpty(t, r.Annotations[a], "%s has no %s", name, a)
			}
			require.Greater(t, len(r.Annotations["runbook"]), 40, "%s: the next step is not named", name)
		}
	}
}

// TestPagesNamedInRunbooksExist holds runbook lines to rows and panels that are there.
func TestPagesNamedInRunbooksExist(t *testing.T) {
	titles := map[string]bool{}
	for _, d := range Dashboards() {
		titles[d.Title] = true
		for _, r := range d.Rows {
			titles[r.Title] = true
			for _, p := range r.Panels {
				titles[p.Title] = true
			}
		}
	}
	page := regexp.MustCompile(`Mooring / [A-Z][a-z]+`)
	part := regexp.MustCompile(`(?:panels?|row|and) ([A-Z][A-Za-z ]+?)(?: and [A-Z]|[:;,.)]| shows| names|$)`)
	found := 0
	for _, g := range alerts() {
		for _, r := range g.Rules {
			text := r.Annotations["runbook"]
			for _, m := range page.FindAllString(text, -1) {
				require.True(t, titles[m], "%s: there is no page %q", r.Alert, m)
			}
			if !strings.Contains(text, "Dashboard Mooring") && !strings.Contains(text, "dashboard Mooring") {
				continue
			}
			for _, m := range part.FindAllStringSubmatch(text, -1) {
				found++
				require.True(t, titles[m[1]], "%s: there is no panel or row %q", r.Alert, m[1])
			}
		}
	}
	require.Greater(t, found, 10)
}

// page is what is read back of a dashboard.
type page struct {
	UID           string
	SchemaVersion int
	Panels        []struct {
		ID         int
		Type       string
		GridPos    struct{ X, Y, W, H int }
		Datasource struct{ UID string }
		Targets    []struct{ Expr, RefID string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

func (p page) variables() map[string]bool {
	names := map[string]bool{}
	for _, v := range p.Templating.List {
		names[v.Name] = true
	}
	return names
}

func pages(t *testing.T) (map[string]page, map[string]string) {
	t.Helper()
	found, texts := map[string]page{}, map[string]string{}
	for path, b := range rendered(t) {
		if filepath.Dir(path) != dashboardsPath {
			continue
		}
		var p page
		require.NoError(t, json.Unmarshal(b, &p), path)
		require.NotContains(t, found, p.UID, "two pages have this uid")
		require.Equal(t, p.UID+".json", filepath.Base(path))
		found[p.UID], texts[p.UID] = p, string(b)
	}
	return found, texts
}

func TestPagesAreWellFormed(t *testing.T) {
	all, _ := pages(t)
	require.ElementsMatch(t, []string{"mooring-fleet", "mooring-cluster", "mooring-instance", "mooring-digest", "mooring-agents"},
		slices.Collect(func(yield func(string) bool) {
			for uid := range all {
				if !yield(uid) {
					return
				}
			}
		}), "uids are in links and bookmarks of users and never change")
	core := []string{"row", "timeseries", "stat", "table", "heatmap"}
	for uid, p := range all {
		require.GreaterOrEqual(t, p.SchemaVersion, 36)
		ids := map[int]bool{}
		taken := map[[2]int]int{}
		for _, panel := range p.Panels {
			require.False(t, ids[panel.ID], "%s: two panels have id %d", uid, panel.ID)
			ids[panel.ID] = true
			require.Contains(t, core, panel.Type)
			g := panel.GridPos
			require.LessOrEqual(t, g.X+g.W, pageWidth, "%s: panel %d leaves the page", uid, panel.ID)
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					require.Zero(t, taken[[2]int{x, y}], "%s: panels %d and %d overlap", uid, taken[[2]int{x, y}], panel.ID)
					taken[[2]int{x, y}] = panel.ID
				}
			}
			if panel.Type == "row" {
				continue
			}
			require.Equal(t, "${datasource}", panel.Datasource.UID)
			require.NotEmpty(t, panel.Targets)
			for _, target := range panel.Targets {
				require.NotEmpty(t, target.Expr)
			}
		}
	}
}

// TestVariablesAreDefined finds every $name and ${name} of queries and links.
func TestVariablesAreDefined(t *testing.T) {
	all, texts := pages(t)
	use := regexp.MustCompile(`\$\{?([a-z_]+)`)
	builtIn := []string{"__rate_interval", "__url_time_range", "__field", "__data", "__all"}
	for uid, text := range texts {
		known := all[uid].variables()
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			require.True(t, known[m[1]] || slices.Contains(builtIn, m[1]), "%s uses $%s and does not have it", uid, m[1])
		}
		for name := range known {
			require.Regexp(t, `\$\{?`+name+`\b`, text, "%s has %s and does not use it", uid, name)
		}
	}
}

func TestLinksResolve(t *testing.T) {
	all, texts := pages(t)
	link := regexp.MustCompile(`"url": "/d/([a-z-]+)(?:\?([^"]*))?"`)
	set := regexp.MustCompile(`var-([a-z]+)=`)
	reached := map[string]bool{}
	for uid, text := range texts {
		links := link.FindAllStringSubmatch(text, -1)
		require.Equal(t, strings.Count(text, `"url":`), len(links), "%s has a link of another form", uid)
		for _, l := range links {
			target, ok := all[l[1]]
			require.True(t, ok, "%s links to %s, which is not there", uid, l[1])
			for _, v := range set.FindAllStringSubmatch(l[2], -1) {
				require.True(t, target.variables()[v[1]], "%s sets %s of %s, which has no such variable", uid, v[1], l[1])
				reached[uid+">"+l[1]] = true
			}
		}
	}
	for _, way := range []string{"mooring-fleet>mooring-cluster", "mooring-cluster>mooring-instance", "mooring-instance>mooring-digest", "mooring-digest>mooring-instance"} {
		require.True(t, reached[way], "nothing on the way %s", way)
	}
}
