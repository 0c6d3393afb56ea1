package figure

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestResultsAreComputed(t *testing.T) {
	for _, c := range []struct {
		name string
		fill func(*Set)
		ok   bool
	}{
		{"an empty set is not a success", func(*Set) {}, false},
		{"at the goal is enough", func(s *Set) { s.AtLeast("x", 1, "", 1) }, true},
		{"below the goal is not", func(s *Set) { s.AtLeast("x", 0.9, "", 1) }, false},
		{"above a maximum is not", func(s *Set) { s.AtMost("x", 2, "ms", 1) }, false},
		{"equal means equal", func(s *Set) { s.Equal("x", 400, "", 399) }, false},
		{"one failure fails the set", func(s *Set) { s.Equal("x", 1, "", 1); s.Equal("y", 1, "", 2) }, false},
		{"what was not measured fails", func(s *Set) { s.Measured(Figure{Name: "x", Value: math.NaN(), OK: true}) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Set
			c.fill(&s)
			require.Equal(t, c.ok, s.OK())
		})
	}
}

func TestPrintEndsInOneJSONObjectPerFigure(t *testing.T) {
	var s Set
	s.AtLeast("ratio", 0.995, "", 0.99)
	s.AtMost("delay", 3, "ms", 1)
	var out bytes.Buffer
	require.NoError(t, s.Print(&out))
	require.Contains(t, out.String(), "FAILED")
	var got []Figure
	for sc := bufio.NewScanner(&out); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "{") {
			var f Figure
			require.NoError(t, json.Unmarshal(sc.Bytes(), &f))
			got = append(got, f)
		}
	}
	require.Equal(t, s.figures, got)
}
