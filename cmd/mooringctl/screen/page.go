package screen

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/explain"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// WritePage prints what Explain answered, each line at most so many columns
// wide.
func WritePage(w io.Writer, r *agentpb.ExplainReply, columns int, zone *time.Location) error {
	var b strings.Builder
	clock := func(t *timestamppb.Timestamp) string {
		at := t.AsTime().In(zone)
		if at.Format(time.DateOnly) != r.GetTo().AsTime().In(zone).Format(time.DateOnly) {
			return at.Format(time.DateTime)
		}
		return at.Format(time.TimeOnly)
	}
	line := func(indent, first, text string) {
		for i, l := range wrap(Clean(text), columns-len(indent)-len(first)) {
			if i > 0 {
				first = strings.Repeat(" ", len(first))
			}
			fmt.Fprintln(&b, indent+first+l)
		}
	}
	p := explain.Page{From: r.GetFrom().AsTime(), To: r.GetTo().AsTime(), Checked: r.GetChecked()}
	for _, f := range r.GetFindings() {
		p.Findings = append(p.Findings, explain.Finding{Severity: severity(f.GetSeverity())})
	}
	line("", "", fmt.Sprintf("%s (%s)  %s to %s, history of %s", r.GetInstance(), r.GetEngine(), clock(r.GetFrom()), clock(r.GetTo()), span(r.GetHistory().AsDuration())))
	line("", "", p.Verdict())
	for _, f := range r.GetFindings() {
		when := "since " + clock(f.GetSince())
		if f.GetSinceAtLeast() {
			when = "since " + clock(f.GetSince()) + " or before"
		}
		if f.GetUntil() != nil {
			when += " until " + clock(f.GetUntil())
		}
		fmt.Fprintln(&b)
		line("", "", strings.ToUpper(f.GetSeverity())+"  "+f.GetTitle())
		line("  ", "", when)
		for _, e := range f.GetEvidence() {
			line("  ", "- ", e)
		}
		line("  ", "next: ", f.GetNext())
	}
	list := func(head string, items []string) {
		if len(items) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s\n", head)
		for _, i := range items {
			line("  ", "", i)
		}
	}
	list("Looked at:", r.GetChecked())
	list("Not measured:", r.GetNotMeasured())
	_, err := io.WriteString(w, b.String())
	return err
}

func severity(name string) explain.Severity {
	for s := explain.Notice; s <= explain.Critical; s++ {
		if s.String() == name {
			return s
		}
	}
	return explain.Notice
}
