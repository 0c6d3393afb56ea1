package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// printActive prints what active probes found; nothing where none are asked for.
func (c *client) printActive(in []*agentpb.Instance) error {
	in = slices.DeleteFunc(slices.Clone(in), func(i *agentpb.Instance) bool { return i.GetActive() == nil })
	if len(in) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	t := c.table("INSTANCE", "UP", "ROLE", "READ ONLY", "LAG", "BEHIND", "HEARTBEAT", "PROBES", "NOTE")
	for _, i := range in {
		a := i.GetActive()
		lag, behind, heartbeat := "-", "-", "-"
		if a.GetLag() != nil {
			lag = a.GetLag().AsDuration().Round(time.Millisecond).String()
		}
		if a.LagBytes != nil {
			behind = fmt.Sprintf("%d B", a.GetLagBytes())
		}
		if a.GetHeartbeatAge() != nil {
			heartbeat = a.GetHeartbeatAge().AsDuration().Round(time.Millisecond).String()
		}
		row(t, i.GetName(), yesNo(a.Up), a.GetRole(), yesNo(a.ReadOnly), lag, behind, heartbeat, probes(a), activeNote(a))
	}
	return t.Flush()
}

func yesNo(b *bool) string {
	switch {
	case b == nil:
		return "-"
	case *b:
		return "yes"
	}
	return "no"
}

// probes says how long each kind of probe took last.
func probes(a *agentpb.Active) string {
	var words []string
	for _, p := range a.GetProbes() {
		words = append(words, p.GetKind()+" "+short(p.GetTook().AsDuration()))
	}
	return strings.Join(words, ", ")
}

// activeNote is what keeps the probes from telling more.
func activeNote(a *agentpb.Active) string {
	words := []string{a.GetStopped(), a.GetNote()}
	for _, p := range a.GetProbes() {
		if p.GetError() != "" {
			words = append(words, p.GetKind()+": "+p.GetError())
		}
	}
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	return strings.ReplaceAll(strings.Join(words, "; "), "\n", "; ")
}
