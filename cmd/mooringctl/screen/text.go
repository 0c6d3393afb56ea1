package screen

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
)

// Clean makes a text from outside harmless on a terminal: blanks of all sorts
// become spaces; whatever steers a terminal or the direction of writing, and
// what is no character at all, becomes "?".
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == unicode.ReplacementChar, !unicode.IsGraphic(r):
			return '?'
		}
		return r
	}, s)
}

// cells is how many columns a rune takes.
func cells(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Width is how many columns a clean text takes.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += cells(r)
	}
	return n
}

// Cut shortens a clean text to at most so many columns.
func Cut(s string, columns int) string {
	if Width(s) <= columns {
		return s
	}
	if columns < 1 {
		return ""
	}
	n := 0
	for i, r := range s {
		if n += cells(r); n > columns-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// wrap breaks a clean text at spaces into lines of at most so many columns; a
// longer word is cut in pieces.
func wrap(s string, columns int) []string {
	columns = max(columns, 8)
	var lines []string
	line, n := "", 0
	for _, word := range strings.Fields(s) {
		for Width(word) > columns {
			head := strings.TrimSuffix(Cut(word, columns), "…")
			if line != "" {
				lines = append(lines, line)
				line, n = "", 0
			}
			lines = append(lines, head)
			word = word[len(head):]
		}
		if w := Width(word); line == "" {
			line, n = word, w
		} else if n+1+w <= columns {
			line, n = line+" "+word, n+1+w
		} else {
			lines = append(lines, line)
			line, n = word, w
		}
	}
	if line != "" || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// table aligns cells by the columns they take; numbers, which is all but the
// named columns, to the right.
type table struct {
	head []string
	left map[int]bool
	rows [][]string
}

func (t *table) add(row ...string) {
	for i := range row {
		row[i] = Clean(row[i])
	}
	t.rows = append(t.rows, row)
}

func (t *table) lines() []string {
	widths := make([]int, len(t.head))
	all := append([][]string{t.head}, t.rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], Width(cell))
		}
	}
	var out []string
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			gap := strings.Repeat(" ", widths[i]-Width(cell))
			if t.left[i] {
				b.WriteString(cell + gap)
			} else {
				b.WriteString(gap + cell)
			}
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

// number writes a figure in few characters.
func number(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 9.995:
		return fmt.Sprintf("%.2f", f)
	case f < 99.95:
		return fmt.Sprintf("%.1f", f)
	case f < 99999.5:
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.3gM", f/1e6)
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", share*100) }

// span writes a duration in few characters.
func span(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int64(d.Hours()), int64(d.Minutes())%60)
	case d >= 100*time.Second:
		return fmt.Sprintf("%dm%02ds", int64(d.Minutes()), int64(d.Seconds())%60)
	case d >= time.Second:
		return fmt.Sprintf("%.3gs", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.3gms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.3gµs", float64(d)/1e3)
}

// dash is the figure where it is known, "-" where not.
func dash(known bool, figure string) string {
	if !known {
		return "-"
	}
	return figure
}
