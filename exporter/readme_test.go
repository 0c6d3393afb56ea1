package exporter

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	tableBegin = "<!-- metrics: generated, do not edit -->\n"
	tableEnd   = "<!-- end of metrics -->\n"
)

func TestReadme(t *testing.T) {
	const path = "README.md"
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(have), tableBegin)
	require.True(t, ok, "%s has no line %s", path, tableBegin)
	_, tail, ok := strings.Cut(rest, tableEnd)
	require.True(t, ok, "%s has no line %s", path, tableEnd)
	want := head + tableBegin + table(New(new(holder), bounds())) + tableEnd + tail
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(have), "run go test ./exporter -run TestReadme -update")
}

// table renders every declared metric, a section for each family.
func table(e *Exporter) string {
	var b strings.Builder
	all := append(e.families, family{name: "exporter", metrics: e.self.metrics()})
	for _, f := range all {
		fmt.Fprintf(&b, "\n### %s\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n", f.name)
		for _, m := range f.metrics {
			labels := "-"
			if len(m.labels) > 0 {
				labels = "`" + strings.Join(m.labels, "` `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.typ, labels, strings.ReplaceAll(m.help, "|", `\|`))
		}
	}
	return b.String() + "\n"
}

func TestFamilyNamesAndMetricNamesAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range New(new(holder), bounds()).families {
		require.False(t, seen[f.name], f.name)
		seen[f.name] = true
		for _, m := range f.metrics {
			require.False(t, seen[m.name], m.name)
			seen[m.name] = true
			require.NotEmpty(t, m.help)
		}
	}
}

// TestLabelsAreBounded holds new metrics to labels whose values are few. A
// label that is added here needs a reason why its values are.
func TestLabelsAreBounded(t *testing.T) {
	known := map[string]string{
		"namespace": "an instance on this node", "pod": "an instance on this node",
		"container": "an instance on this node", "instance": "an instance on this node",
		"db_system_name": "the known engines", "engine": "the known engines",
		"db_operation_name": "the list in package bpf", "error_type": "two values",
		"cpu": "the machine's", "device": "the machine's", "result": "two values", "map": "the list in package bpf", "program": "the list in package bpf",
		"direction": "two values", "directory": "three values", "event": "five values",
		"failure_type": "one", "operation": "two values", "scope": "one", "stat": "two values", "state": "one",
		"source": "two values", "cgroup_version": "two values",
		"numa_node": "the machine's", "policy": "the known policies",
		"cpus": "one at a time for an instance", "mems": "one at a time for an instance",
		"kind": "the known faults, parts of memory", "phase": "three values",
		"name": "the known capabilities", "mode": "eight values", "probe": "three values", "reason": "the list in package bpf",
		"cluster": "an instance on this node", "role": "three values", "digest": "one at a time, or those an instance shows, see agent/digest", "writer": "two values",
		"outcome": "three values", "query": "one for each digest",
		"db_response_status_code": "forty of an instance and other",
		"protocol":                "one", "detail": "one for each capability, once at start",
		"collector": "the agent's own", "version": "one", "family": "the table",
	}
	e := New(new(holder), bounds())
	for _, f := range append(e.families, family{metrics: e.self.metrics()}) {
		for _, m := range f.metrics {
			for _, l := range m.labels {
				require.Contains(t, known, l, m.name)
			}
		}
	}
}
