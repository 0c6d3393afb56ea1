package kube

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

func table(w io.Writer, head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	return t
}

// row prints one line; an empty cell is a dash, and no cell breaks the line.
func row(t io.Writer, cells ...any) {
	s := make([]string, len(cells))
	for i, cell := range cells {
		s[i] = oneLine(fmt.Sprint(cell))
		if s[i] == "" {
			s[i] = "-"
		}
	}
	fmt.Fprintln(t, strings.Join(s, "\t"))
}

// oneLine keeps what others wrote on one line of a table.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// age is how long ago t was, as kubectl writes it.
func (c *command) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return duration.HumanDuration(c.now().Sub(t))
}

// ends is how long it is to t, or that it is past.
func (c *command) ends(t *metav1.MicroTime) string {
	if t == nil {
		return ""
	}
	left := t.Sub(c.now())
	if left <= 0 {
		return "past"
	}
	return "in " + duration.HumanDuration(left)
}

// unmet is the message of the first condition that is false.
func unmet(all []metav1.Condition) string {
	for _, c := range all {
		if c.Status == metav1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}
