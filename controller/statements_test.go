package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func TestStatementsInTheAgentsWords(t *testing.T) {
	require.Nil(t, statementsOf(nil), "then the agents' flags decide")
	yes, no, none, below, few := true, false, int32(0), int32(-3), int32(7)
	usual := durationpb.New(100 * time.Millisecond)
	for name, c := range map[string]struct {
		spec v1alpha1.StatementsSpec
		want *agentpb.StatementsPolicy
	}{
		"what is not given": {v1alpha1.StatementsSpec{}, &agentpb.StatementsPolicy{Top: 100, Slow: usual}},
		"digests":           {v1alpha1.StatementsSpec{Digests: &yes, Top: &few, Text: v1alpha1.TextNormalized}, &agentpb.StatementsPolicy{Top: 7, Slow: usual}},
		"no digests":        {v1alpha1.StatementsSpec{Digests: &no}, &agentpb.StatementsPolicy{DigestsOff: true, Top: 100, Slow: usual}},
		"no top":            {v1alpha1.StatementsSpec{Top: &none}, &agentpb.StatementsPolicy{Slow: usual}},
		"a top below none":  {v1alpha1.StatementsSpec{Top: &below}, &agentpb.StatementsPolicy{Slow: usual}},
		"no texts":          {v1alpha1.StatementsSpec{Text: v1alpha1.TextOff}, &agentpb.StatementsPolicy{Top: 100, NoText: true, Slow: usual}},
		"nothing is slow":   {v1alpha1.StatementsSpec{SlowThreshold: &metav1.Duration{}}, &agentpb.StatementsPolicy{Top: 100, Slow: durationpb.New(0)}},
		"audit, in order":   {v1alpha1.StatementsSpec{Audit: []v1alpha1.AuditClass{"session", "ddl"}}, &agentpb.StatementsPolicy{Top: 100, Slow: usual, Audit: []string{"ddl", "session"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := statementsOf(&c.spec)
			require.True(t, proto.Equal(c.want, got), "%v", got)
		})
	}
}

func TestTheDigestIsOfAllThatIsDeclared(t *testing.T) {
	whole := func() *agentpb.Declared {
		return &agentpb.Declared{
			Namespace: "db", Pod: "pg-0", PodUid: "u", Container: "server", Engine: "postgresql", Cluster: "orders", Role: "primary", Policy: "db/pg", Numa: "none",
			Statements: &agentpb.StatementsPolicy{Top: 100, Slow: durationpb.New(time.Second), Audit: []string{"ddl"}},
			Probe: &agentpb.ActiveProbeSpec{
				Secret: "login", Read: durationpb.New(time.Second), Write: "replicated", WritePeriod: durationpb.New(time.Minute), Database: "app", Tls: "disable",
			},
		}
	}
	of := func(d *agentpb.Declared) string { return digest([]*agentpb.Declared{d}) }
	seen := map[string]string{of(whole()): "the same"}
	require.Contains(t, seen, of(whole()))
	for name, change := range map[string]func(d *agentpb.Declared){
		"namespace":       func(d *agentpb.Declared) { d.Namespace = "x" },
		"pod":             func(d *agentpb.Declared) { d.Pod = "x" },
		"uid":             func(d *agentpb.Declared) { d.PodUid = "x" },
		"container":       func(d *agentpb.Declared) { d.Container = "x" },
		"engine":          func(d *agentpb.Declared) { d.Engine = "x" },
		"cluster":         func(d *agentpb.Declared) { d.Cluster = "x" },
		"role":            func(d *agentpb.Declared) { d.Role = "x" },
		"policy":          func(d *agentpb.Declared) { d.Policy = "x" },
		"placement":       func(d *agentpb.Declared) { d.Numa = "x" },
		"no statements":   func(d *agentpb.Declared) { d.Statements = nil },
		"no digests":      func(d *agentpb.Declared) { d.Statements.DigestsOff = true },
		"another top":     func(d *agentpb.Declared) { d.Statements.Top = 99 },
		"no texts":        func(d *agentpb.Declared) { d.Statements.NoText = true },
		"slow":            func(d *agentpb.Declared) { d.Statements.Slow = durationpb.New(time.Minute) },
		"nothing audited": func(d *agentpb.Declared) { d.Statements.Audit = nil },
		"more audited":    func(d *agentpb.Declared) { d.Statements.Audit = []string{"ddl", "read"} },
		"no probe":        func(d *agentpb.Declared) { d.Probe = nil },
		"secret":          func(d *agentpb.Declared) { d.Probe.Secret = "x" },
		"read":            func(d *agentpb.Declared) { d.Probe.Read = durationpb.New(time.Hour) },
		"write":           func(d *agentpb.Declared) { d.Probe.Write = "off" },
		"write period":    func(d *agentpb.Declared) { d.Probe.WritePeriod = durationpb.New(time.Hour) },
		"database":        func(d *agentpb.Declared) { d.Probe.Database = "x" },
		"tls":             func(d *agentpb.Declared) { d.Probe.Tls = "verify-ca" },
	} {
		d := whole()
		change(d)
		require.NotContains(t, seen, of(d), name)
		seen[of(d)] = name
	}
}
