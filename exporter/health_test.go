package exporter

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

func TestHealth(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot bool
		since    time.Duration // since the snapshot, or since New without one
		ready    string        // the error's beginning; empty means healthy
		live     string
	}{
		"starting":                           {false, 59 * time.Second, "agent is starting: no snapshot yet", ""},
		"never finished its first tick":      {false, 61 * time.Second, "agent is starting: no snapshot yet", "agent loop is stuck: no snapshot yet 1m1s after start"},
		"fresh":                              {true, time.Second, "", ""},
		"three ticks old":                    {true, 6 * time.Second, "", ""},
		"more than three ticks old":          {true, 6*time.Second + time.Millisecond, "", "agent loop is stuck: last snapshot is 6.001s old, at most 6s (3 ticks) expected"},
		"from the future, the clock stepped": {true, -time.Hour, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			now := taken()
			src := new(holder)
			e := New(src, bounds(), WithTick(2*time.Second), WithClock(func() time.Time { return now }))
			if c.snapshot {
				src.Store(snapshot())
			}
			now = now.Add(c.since)
			check(t, e, "/readyz", e.Ready(), c.ready)
			check(t, e, "/healthz", e.Live(), c.live)
		})
	}
}

func check(t *testing.T, e *Exporter, path string, err error, want string) {
	t.Helper()
	rec := get(t, e.Handler(), path, "")
	require.Equal(t, "no-store", rec.Header().Get("Cache-Control"))
	if want == "" {
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, rec.Code)
		require.Equal(t, "ok\n", rec.Body.String())
		return
	}
	require.ErrorContains(t, err, want)
	require.Equal(t, http.StatusServiceUnavailable, rec.Code)
	require.Contains(t, rec.Body.String(), want)
}

func TestReadyErrorIsErrNoSnapshot(t *testing.T) {
	require.ErrorIs(t, New(new(holder), bounds()).Ready(), ErrNoSnapshot)
}

func TestReadinessFollowsTheAPIServerAndLivenessDoesNot(t *testing.T) {
	for name, c := range map[string]struct{ server, pods, want string }{
		"both are there":           {"", "", ""},
		"the API server is away":   {"ask the API server: connection refused", "", "api-server: ask the API server: connection refused"},
		"the pods have not come":   {"", "pods of this node not received yet", "pods: pods of this node not received yet"},
		"neither is there at once": {"connection refused", "not received yet", "api-server: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			snap := snapshot()
			snap.Collectors = []state.Collector{{Name: state.CollectorAPIServer, Err: c.server}, {Name: state.CollectorPods, Err: c.pods}}
			e := New(hold(snap), bounds(), WithClock(clock))
			check(t, e, "/readyz", e.Ready(), c.want)
			check(t, e, "/healthz", e.Live(), "")
			if c.want != "" {
				require.ErrorIs(t, e.Ready(), ErrNotReady)
			}
			got := text(t, gather(t, e))
			require.Contains(t, got, map[bool]string{true: "mooring_api_server_reachable 1\n", false: "mooring_api_server_reachable 0\n"}[c.server == ""])
		})
	}
}

func TestWithoutKubernetesTheAPIServerIsNotSpokenOf(t *testing.T) {
	snap := snapshot()
	snap.Collectors = nil
	snap.LimitsWriter, snap.PolicyDigest = "", ""
	e := New(hold(snap), bounds(), WithClock(clock))
	require.NoError(t, e.Ready())
	got := text(t, gather(t, e))
	for _, name := range []string{"mooring_api_server_reachable", "mooring_limits_writer_info", "mooring_policy_info"} {
		require.NotContains(t, got, name)
	}
}

func TestPlacementErrorIsThereOnlyWhereAPolicyWantsAPlace(t *testing.T) {
	snap := snapshot()
	snap.Instances[0].Declared.NUMA = state.NUMANone
	all := gather(t, New(hold(snap), bounds(), WithClock(clock)))
	require.NotContains(t, of(all, snap.Instances[0].ID), "mooring_instance_placement_error")
	require.InDelta(t, 1, of(all, snap.Instances[1].ID)["mooring_instance_placement_error"], 0)
	require.NotContains(t, of(all, snap.Instances[2].ID), "mooring_instance_placement_error")
}

func TestACapabilitysReasonFitsALabel(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"as it is":           {"by tc", "by tc"},
		"lines become one":   {"load:\n\tno BTF\r\n", "load: no BTF"},
		"bytes that are not": {"a\xffb", "a\uFFFDb"},
		"no rune is cut":     {strings.Repeat("x", 199) + "é", strings.Repeat("x", 199) + "..."},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, sentence(c.text, maxDetailBytes)) })
	}
}
