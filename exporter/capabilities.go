package exporter

import (
	"strings"
	"unicode"
)

// maxDetailBytes bounds the text of a capability as a label value.
const maxDetailBytes = 200

// capabilities is what this node can do.
func capabilities() family {
	var (
		ok = gauge("mooring_capability",
			"1 when this node can do it, found by firing it once at start, else 0; mooring_capability_info says why.", "name")
		info = gauge("mooring_capability_info",
			"Always 1; how this node does it, or why it cannot, cut after 200 bytes. Found once at start, so a series lasts as long as the agent's process.",
			"name", "detail")
	)
	return family{
		name:    "capabilities",
		metrics: []*metric{ok, info},
		collect: func(s *scrape) {
			for _, c := range s.snap.Capabilities {
				s.set(ok, boolean(c.OK), c.Name)
				s.set(info, 1, c.Name, sentence(c.Detail, maxDetailBytes))
			}
		},
	}
}

// sentence makes a text from outside fit a label: one line, at most longest
// bytes, no rune cut in two.
func sentence(text string, longest int) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "\uFFFD"), func(r rune) bool {
		return unicode.IsControl(r) || r == ' '
	}), " ")
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "..."
}
