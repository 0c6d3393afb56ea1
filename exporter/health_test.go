package exporter

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
