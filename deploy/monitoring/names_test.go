package monitoring

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// foreignNames are served by Prometheus itself or by the Go library in the agent.
var foreignNames = []string{
	"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped",
	"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "go_goroutines",
}

// served reads the exporter's generated table: types by name.
func served(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../exporter/README.md")
	require.NoError(t, err)
	names := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-zA-Z0-9_:]+)` \\| ([a-z, ]+) \\|").FindAllStringSubmatch(string(b), -1) {
		names[m[1]] = m[2]
	}
	require.Greater(t, len(names), 30)
	return names
}

func TestNames(t *testing.T) {
	require.Equal(t, []string{"a_total", "b:c:d5m", "up"}, Names(`sum by (x, y) (rate(a_total{l="m_n",k=~"o(p)"}[5m])) / on (x) group_left (z) b:c:d5m > 1e3 and up == 0.5`))
}

func TestEveryNameIsServed(t *testing.T) {
	known := served(t)
	for _, n := range foreignNames {
		known[n] = ""
	}
	for _, g := range recordings() {
		for _, r := range g.Rules {
			known[r.Record] = "recorded"
		}
	}
	check := func(where, expr string) {
		t.Helper()
		names := Names(expr)
		require.NotEmpty(t, names, "%s: %s", where, expr)
		for _, n := range names {
			_, ok := known[n]
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				base, cut := strings.CutSuffix(n, part)
				ok = ok || cut && strings.Contains(known[base], "histogram")
			}
			require.True(t, ok, "%s: nothing serves %s", where, n)
		}
	}
	for _, g := range Groups() {
		for _, r := range g.Rules {
			check(r.Record+r.Alert, r.Expr)
		}
	}
	for _, d := range Dashboards() {
		for _, v := range d.Variables {
			check(d.UID+" variable "+v.Name, v.Metric)
		}
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, query := range p.Queries {
					check(d.UID+" "+p.Title, query.Expr)
				}
			}
		}
	}
}
