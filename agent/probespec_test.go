package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

func TestAProbeIsReadStrictly(t *testing.T) {
	good := func() *agentpb.ActiveProbeSpec {
		return &agentpb.ActiveProbeSpec{
			Secret: "login", Read: durationpb.New(time.Second), Write: "replicated", WritePeriod: durationpb.New(10 * time.Second),
			Database: strings.Repeat("d", 63), Tls: "verify-ca",
		}
	}
	got, err := probeSpecOf(good())
	require.NoError(t, err)
	require.Equal(t, state.ProbeSpec{
		Secret: "login", Read: time.Second, Write: "replicated", WritePeriod: 10 * time.Second, Database: strings.Repeat("d", 63), TLS: "verify-ca",
	}, got)
	none, err := probeSpecOf(nil)
	require.NoError(t, err)
	require.Zero(t, none)
	for name, c := range map[string]struct {
		spoil func(*agentpb.ActiveProbeSpec)
		says  string
	}{
		"no secret":                      {func(p *agentpb.ActiveProbeSpec) { p.Secret = "" }, "no secret"},
		"a read period that cannot be":   {func(p *agentpb.ActiveProbeSpec) { p.Read = &durationpb.Duration{Seconds: 1, Nanos: -1} }, "period cannot be"},
		"a write period that cannot be":  {func(p *agentpb.ActiveProbeSpec) { p.WritePeriod = &durationpb.Duration{Seconds: 1 << 62} }, "period cannot be"},
		"a short read period":            {func(p *agentpb.ActiveProbeSpec) { p.Read = durationpb.New(time.Millisecond) }, "read period 1ms"},
		"a short write period":           {func(p *agentpb.ActiveProbeSpec) { p.WritePeriod = durationpb.New(time.Second) }, "write period 1s"},
		"writing that is not known":      {func(p *agentpb.ActiveProbeSpec) { p.Write = "often" }, `write "often"`},
		"TLS that is not known":          {func(p *agentpb.ActiveProbeSpec) { p.Tls = "maybe" }, `tls "maybe"`},
		"a database of 66 bytes, not 63": {func(p *agentpb.ActiveProbeSpec) { p.Database = strings.Repeat("\u5e93", 22) }, "63 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good()
			c.spoil(p)
			_, err := probeSpecOf(p)
			require.ErrorContains(t, err, c.says)
		})
	}
}
