// Package figure prints what was measured: a table for people, then one JSON
// object per line for programs. The goal and the comparison belong to the code
// that measures; whether a figure is good is computed here, never stated.
package figure

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// Figure is one measured value.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Goal is the comparison in words, such as ">= 0.99".
	Goal string `json:"goal"`
	OK   bool   `json:"ok"`
	// N is how many measurements went into Value.
	N int `json:"n"`
	// Spread is the distance between the quartiles, 0 for a single value.
	Spread float64 `json:"spread"`
}

// Set collects figures in the order they were measured.
type Set struct{ figures []Figure }

// AtLeast records a value that must not be below goal.
func (s *Set) AtLeast(name string, value float64, unit string, goal float64) Figure {
	return s.add(name, value, unit, ">=", goal, value >= goal)
}

// AtMost records a value that must not be above goal.
func (s *Set) AtMost(name string, value float64, unit string, goal float64) Figure {
	return s.add(name, value, unit, "<=", goal, value <= goal)
}

// Equal records a value that must be exactly goal.
func (s *Set) Equal(name string, value float64, unit string, goal float64) Figure {
	return s.add(name, value, unit, "==", goal, value == goal)
}

// Measured records a figure whose N and spread are known.
func (s *Set) Measured(f Figure) Figure {
	f.OK = f.OK && !math.IsNaN(f.Value)
	s.figures = append(s.figures, f)
	return f
}

func (s *Set) add(name string, value float64, unit, op string, goal float64, ok bool) Figure {
	return s.Measured(Figure{Name: name, Value: value, Unit: unit, Goal: fmt.Sprintf("%s %s", op, number(goal)), OK: ok, N: 1})
}

// OK says whether there are figures and all of them meet their goals.
func (s *Set) OK() bool {
	for _, f := range s.figures {
		if !f.OK {
			return false
		}
	}
	return len(s.figures) > 0
}

// Print writes the table, then the JSON lines.
func (s *Set) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "CHECK\tMEASURED\tGOAL\tRESULT")
	for _, f := range s.figures {
		result := "ok"
		if !f.OK {
			result = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\n", f.Name, number(f.Value), f.Unit, f.Goal, result)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, f := range s.figures {
		// JSON has no NaN or infinity; such a figure has failed anyway.
		if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) {
			f.Value = -1
		}
		b, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("encode figure %q: %w", f.Name, err)
		}
		fmt.Fprintln(w, string(b))
	}
	return nil
}

// number writes a value with three digits behind the point at most.
func number(v float64) string {
	return fmt.Sprint(math.Round(v*1000) / 1000)
}
