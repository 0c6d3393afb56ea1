package monitoring

import (
	"regexp"
	"strings"
)

var (
	quoted    = regexp.MustCompile(`"(\\.|[^"\\])*"`)
	bracketed = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]`)
	grouping  = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	word      = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	number    = regexp.MustCompile(`\b[0-9][0-9.]*(e-?[0-9]+)?\b`)
)

// Names are the metrics that an expression of ours names, in order: the words that are
// neither functions, keywords, labels nor text. It is no parser; promtool has checked
// the syntax.
func Names(expr string) []string {
	for _, re := range []*regexp.Regexp{quoted, bracketed, grouping, number} {
		expr = re.ReplaceAllString(expr, " ")
	}
	var names []string
	for _, w := range word.FindAllString(expr, -1) {
		switch w = strings.TrimSpace(w); {
		case strings.HasSuffix(w, "("), w == "and", w == "or", w == "unless", w == "bool":
		default:
			names = append(names, w)
		}
	}
	return names
}
