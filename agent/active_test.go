package agent

import (
	"bytes"
	"encoding/base64"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

// TestNothingActsUponActiveProbes holds that what a database says of itself is
// read only where it is shown: in the agent by what fills the snapshot and by
// what sends it on, and nowhere in what places, resizes, breaks or controls.
func TestNothingActsUponActiveProbes(t *testing.T) {
	may := map[string]bool{"agent/active.go": true, "agent/convert.go": true}
	seen := map[string]bool{}
	for _, dir := range []string{"agent", "agent/cgroup", "agent/change", "agent/keeper", "agent/pods", "bpf", "chaos", "numa", "controller", "controller/fleet"} {
		names, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, names, dir)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			ast.Inspect(f, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "Active" && s.Sel.Name != "GetActive" {
					return true
				}
				file := filepath.Join(dir, filepath.Base(name))
				seen[file] = true
				require.True(t, may[file], "%s reads what active probes found", file)
				return true
			})
		}
	}
	require.Equal(t, may, seen, "the test finds the files that do read it")
}

func TestWhatProbesFoundIsPassedOn(t *testing.T) {
	yes, lag, bytes, age, at := true, time.Second, int64(7), 2*time.Second, time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC)
	r := activeToPB(&state.Active{
		Up: &yes, Role: "replica", ReadOnly: &yes, Lag: &lag, LagBytes: &bytes, HeartbeatAge: &age, Stopped: "s", Note: "n",
		Probes: []state.ActiveProbe{{Kind: "read", Ended: at, Took: time.Millisecond, Err: "e", Failures: map[string]uint64{"gone": 2}}},
	})
	require.True(t, r.GetUp())
	require.True(t, r.GetReadOnly())
	require.Equal(t, []string{"replica", "s", "n"}, []string{r.GetRole(), r.GetStopped(), r.GetNote()})
	require.Equal(t, []time.Duration{lag, age}, []time.Duration{r.GetLag().AsDuration(), r.GetHeartbeatAge().AsDuration()})
	require.EqualValues(t, 7, r.GetLagBytes())
	p := r.GetProbes()[0]
	require.Equal(t, "read e", p.GetKind()+" "+p.GetError())
	require.True(t, p.GetEnded().AsTime().Equal(at))
	require.Equal(t, uint64(2), p.GetFailures()["gone"])
	empty := activeToPB(&state.Active{})
	require.Nil(t, empty.Up)
	require.Nil(t, empty.LagBytes)
	require.Nil(t, empty.GetLag())
	require.Nil(t, activeToPB(nil))
}

func TestAProbeThatIsWrongIsRefused(t *testing.T) {
	good := func() *agentpb.ActiveProbeSpec {
		return &agentpb.ActiveProbeSpec{Secret: "s", Read: durationpb.New(time.Second), Write: "replicated", WritePeriod: durationpb.New(10 * time.Second), Tls: "verify-ca", Database: "d"}
	}
	s, err := probeSpecOf(good())
	require.NoError(t, err)
	require.Equal(t, state.ProbeSpec{Secret: "s", Read: time.Second, Write: "replicated", WritePeriod: 10 * time.Second, TLS: "verify-ca", Database: "d"}, s)
	none, err := probeSpecOf(nil)
	require.NoError(t, err)
	require.Zero(t, none)
	for says, spoil := range map[string]func(*agentpb.ActiveProbeSpec){
		"no secret":    func(p *agentpb.ActiveProbeSpec) { p.Secret = "" },
		"read period":  func(p *agentpb.ActiveProbeSpec) { p.Read = durationpb.New(time.Millisecond) },
		"cannot be":    func(p *agentpb.ActiveProbeSpec) { p.Read = nil },
		`write "local`: func(p *agentpb.ActiveProbeSpec) { p.Write = "local" },
		"write period": func(p *agentpb.ActiveProbeSpec) { p.WritePeriod = durationpb.New(time.Second) },
		`tls "prefer`:  func(p *agentpb.ActiveProbeSpec) { p.Tls = "prefer" },
	} {
		p := good()
		spoil(p)
		_, err := probeSpecOf(p)
		require.ErrorContains(t, err, says)
	}
}

func TestRefusedLoginsAreKeptForTheNextAgent(t *testing.T) {
	var log bytes.Buffer
	a := &Agent{log: slog.New(slog.NewTextHandler(&log, nil))}
	a.cfg = Default()
	a.cfg.StateDir = t.TempDir()
	path := filepath.Join(a.cfg.StateDir, refusedFile)
	a.setProber(nil)
	require.Empty(t, log.String(), "none were refused yet")
	require.NoFileExists(t, path)
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	a.setProber(nil)
	require.Contains(t, log.String(), "not known from before")
	kept := `{"key": "` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `", "refused": {}}`
	require.NoError(t, os.WriteFile(path, []byte(kept), 0o600))
	log.Reset()
	a.setProber(nil)
	require.Empty(t, log.String())
}

func TestOnlyWhoMayBeAskedIsAsked(t *testing.T) {
	a := &Agent{}
	a.cfg.ProbeLogins = filepath.Join(t.TempDir(), "logins")
	require.NoError(t, os.WriteFile(a.cfg.ProbeLogins, []byte(`{"/pg": {"username": "u", "password": "p"}}`), 0o600))
	spec := state.ProbeSpec{Secret: "s", Read: time.Second, Write: state.WriteOff, TLS: state.TLSDisable}
	targets, err := a.mayBeAsked([]state.Instance{
		{ID: "/pg", Source: "standalone", Engine: state.PostgreSQL},
		{ID: "/other", Source: "standalone", Engine: state.PostgreSQL},
		{ID: "ns/a/c", Namespace: "ns", Source: "kubernetes", Engine: state.MySQL, Declared: &state.Declared{Probe: spec}},
		{ID: "ns/b/c", Namespace: "ns", Source: "kubernetes", Engine: state.MySQL, Declared: &state.Declared{}},
		{ID: "ns/d/c", Namespace: "ns", Source: "kubernetes", Engine: state.MySQL},
		{ID: "ns/e/c", Namespace: "ns", Source: "kubernetes", Engine: state.TiDB, Declared: &state.Declared{Probe: spec}},
	})
	require.NoError(t, err)
	require.Len(t, targets, 3)
	require.Equal(t, state.TiDB, targets[2].Engine, "what cannot be asked is told of, not left out")
	require.Equal(t, "/pg ", targets[0].ID+" "+targets[0].Namespace)
	require.Equal(t, "ns/a/c ns", targets[1].ID+" "+targets[1].Namespace)
	require.NoError(t, os.Chmod(a.cfg.ProbeLogins, 0o644))
	targets, err = a.mayBeAsked([]state.Instance{{ID: "/pg", Source: "standalone", Engine: state.PostgreSQL}})
	require.ErrorContains(t, err, "0600")
	require.Empty(t, targets)
}
