package controller

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// What holds for a field of StatementsSpec that was not given, where the API
// server has not filled it in.
const (
	defaultTop  = 100
	defaultSlow = 100 * time.Millisecond
)

// statementsOf is a policy of statements in the agents' words, nil for nil.
func statementsOf(s *v1alpha1.StatementsSpec) *agentpb.StatementsPolicy {
	if s == nil {
		return nil
	}
	out := &agentpb.StatementsPolicy{Top: defaultTop, Slow: durationpb.New(defaultSlow), NoText: s.Text == v1alpha1.TextOff}
	if s.Digests != nil {
		out.DigestsOff = !*s.Digests
	}
	if s.Top != nil {
		out.Top = uint32(max(0, *s.Top))
	}
	if s.SlowThreshold != nil {
		out.Slow = durationpb.New(s.SlowThreshold.Duration)
	}
	for _, a := range s.Audit {
		out.Audit = append(out.Audit, string(a))
	}
	slices.Sort(out.Audit)
	return out
}
