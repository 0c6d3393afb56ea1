package chaos

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

var update = flag.Bool("update", false, "write what was planned into testdata/plan")

// TestPlan runs the scenarios of testdata/plan. A line that begins with ">" is
// a fault; the lines after it, up to an empty one, are its plan or its error:
//
//	> KIND on TARGET for DURATION [name=value…] [!has=KIND:PHASE] [!cannot=CAPABILITY]
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txt")
	require.NoError(t, err)
	require.Len(t, files, len(Kinds()), "one file for each kind")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			got := replay(t, string(b))
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			require.Equal(t, string(b), got)
			kind := strings.TrimSuffix(filepath.Base(file), ".txt")
			require.Contains(t, got, "> "+kind+" ")
		})
	}
}

// replay returns the scenario file with the answers of this code.
func replay(t *testing.T, file string) string {
	t.Helper()
	var out strings.Builder
	answer := false
	for line := range strings.Lines(file) {
		switch {
		case strings.HasPrefix(line, "> "):
			fmt.Fprintf(&out, "%s%s", line, planned(t, strings.Fields(line[2:])))
			answer = true
		case line == "\n":
			answer = false
			out.WriteString(line)
		case !answer:
			out.WriteString(line)
		}
	}
	return out.String()
}

func planned(t *testing.T, words []string) string {
	t.Helper()
	require.GreaterOrEqual(t, len(words), 5, "scenario %q", words)
	require.Equal(t, []string{"on", "for"}, []string{words[1], words[3]})
	target, ok := fixtures()[words[2]]
	require.True(t, ok, "no target %q", words[2])
	duration, err := time.ParseDuration(words[4])
	require.NoError(t, err)
	spec := Spec{UID: "u1", Kind: words[0], Instance: target.Instance.ID, Params: map[string]string{}, Duration: duration}
	var active []state.Fault
	caps := able()
	for _, w := range words[5:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "!has":
			kind, phase, _ := strings.Cut(value, ":")
			active = append(active, state.Fault{
				UID: "u0", Kind: kind, Instance: target.Instance.ID, Phase: state.Phase(phase),
				Deadline: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			})
		case "!cannot":
			caps = able(value)
		default:
			spec.Params[name] = value
		}
	}
	changes, err := Plan(spec, target, active, caps, now)
	if err != nil {
		var out strings.Builder
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(&out, "refused: %s\n", line)
		}
		return out.String()
	}
	var out strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&out, c)
	}
	return out.String()
}
