package numa

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlaceScenarios runs the commands of testdata/place/*.txt and compares
// the whole file with what they print, which follows each command indented by
// four spaces. Write the commands and run the test with -update, then read the
// difference. The commands are
//
//	topology NAME               a tree below testdata/topology
//	placed ID cpu= memory= node=   an instance that is there
//	reset                       forgets the placed instances
//	place ID cpu= memory= [node=] [explicit=] [policy=]
func TestPlaceScenarios(t *testing.T) {
	update := flag.Lookup("update").Value.String() == "true"
	files, err := filepath.Glob("testdata/place/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			want, err := os.ReadFile(name)
			require.NoError(t, err)
			got := runScenario(t, string(want))
			if update {
				require.NoError(t, os.WriteFile(name, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(want), got)
		})
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the expected output in testdata/place")
	os.Exit(m.Run())
}

func runScenario(t *testing.T, script string) string {
	var (
		out      strings.Builder
		topology *Topology
		placed   []Workload
	)
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "    ") {
			continue // what was printed last time
		}
		out.WriteString(line + "\n")
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		switch words[0] {
		case "topology":
			topology = fixture(t, words[1])
		case "reset":
			placed = nil
		case "placed":
			placed = append(placed, parseRequest(t, words[1:]).Workload)
		case "place":
			p, err := Place(topology, placed, parseRequest(t, words[1:]))
			for _, l := range describe(p, err) {
				out.WriteString("    " + l + "\n")
			}
		default:
			t.Fatalf("unknown command %q", line)
		}
	}
	return out.String()
}

func describe(p Placement, err error) []string {
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	lines := []string{fmt.Sprintf("node %d, CPUs %s, memory of %v, by %s", p.Node, p.CPUs, p.Mems, p.Policy)}
	for _, r := range p.Reasons {
		lines = append(lines, "- "+r)
	}
	return lines
}

func parseRequest(t *testing.T, words []string) Request {
	r := Request{Workload: Workload{ID: words[0], Node: -1}}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		number := value
		unit := int64(1)
		for suffix, u := range map[string]int64{"Mi": 1 << 20, "Gi": 1 << 30} {
			if n, ok := strings.CutSuffix(value, suffix); ok {
				number, unit = n, u
			}
		}
		n, err := strconv.ParseInt(number, 10, 64)
		switch key {
		case "cpu":
			r.CPUMillicores = n
		case "memory":
			r.MemoryBytes = n * unit
		case "node":
			r.Workload.Node = int(n)
		case "explicit":
			node := int(n)
			r.Node = &node
		case "policy":
			r.Policy, err = value, nil
		default:
			t.Fatalf("unknown argument %q", w)
		}
		require.NoError(t, err)
	}
	return r
}
