package exporter

import (
	"bytes"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

var update = flag.Bool("update", false, "rewrite README.md and testdata/metrics.golden")

// holder is a Source whose snapshot is swapped by the test.
type holder struct{ atomic.Pointer[state.Snapshot] }

func (h *holder) Snapshot() *state.Snapshot { return h.Load() }

func hold(snap *state.Snapshot) *holder {
	h := new(holder)
	h.Store(snap)
	return h
}

// gather collects the snapshot's families alone, with the registry's pedantic
// checks: every series must be declared and consistent with its declaration.
func gather(t *testing.T, e *Exporter) []*dto.MetricFamily {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(collector{e})
	all, err := r.Gather()
	require.NoError(t, err)
	return all
}

func text(t *testing.T, all []*dto.MetricFamily) string {
	t.Helper()
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, mf := range all {
		require.NoError(t, enc.Encode(mf))
	}
	return buf.String()
}

func get(t *testing.T, h http.Handler, path, accept string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

func TestGolden(t *testing.T) {
	const path = "testdata/metrics.golden"
	got := text(t, gather(t, fixed()))
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run go test ./exporter -run TestGolden -update and review the difference")
}

func TestNamesFollowTheConventions(t *testing.T) {
	problems, err := promlint.NewWithMetricFamilies(gather(t, fixed())).Lint()
	require.NoError(t, err)
	// node_exporter has the names of /proc/meminfo as they are, and so do we.
	problems = slices.DeleteFunc(problems, func(p promlint.Problem) bool { return strings.HasPrefix(p.Metric, "node_memory_") })
	require.Empty(t, problems)
}

func TestEveryDeclaredMetricIsInTheFixedSnapshot(t *testing.T) {
	e := fixed()
	served := make(map[string]string)
	for _, mf := range gather(t, e) {
		served[mf.GetName()] = mf.GetHelp()
	}
	for _, f := range e.families {
		for _, m := range f.metrics {
			require.Equal(t, m.help, served[m.name], m.name)
		}
	}
}

func TestHandler(t *testing.T) {
	h := fixed().Handler()
	t.Run("a plain request gets text with the agent's own process metrics", func(t *testing.T) {
		rec := get(t, h, "/metrics", "")
		require.Equal(t, http.StatusOK, rec.Code)
		require.Contains(t, rec.Header().Get("Content-Type"), "text/plain")
		require.Contains(t, rec.Body.String(), `mooring_capability{name="net-delay"} 1`)
		require.Contains(t, rec.Body.String(), "go_goroutines ")
		require.Contains(t, rec.Body.String(), "process_resident_memory_bytes ")
		require.Contains(t, rec.Body.String(), "promhttp_metric_handler_errors_total")
	})
	t.Run("OpenMetrics is served to who asks for it", func(t *testing.T) {
		rec := get(t, h, "/metrics", "application/openmetrics-text;version=1.0.0")
		require.Contains(t, rec.Header().Get("Content-Type"), "application/openmetrics-text")
		require.Contains(t, rec.Body.String(), "# TYPE mooring_instance_oom_kills counter\n")
		require.True(t, bytes.HasSuffix(rec.Body.Bytes(), []byte("# EOF\n")))
	})
	t.Run("other methods and paths are refused", func(t *testing.T) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/metrics", nil))
		require.Equal(t, http.StatusMethodNotAllowed, rec.Code)
		require.Equal(t, http.StatusNotFound, get(t, h, "/debug/pprof/", "").Code)
	})
	t.Run("two handlers of one exporter can be made", func(t *testing.T) {
		e := fixed()
		require.NotPanics(t, func() { e.Handler(); e.Handler() })
	})
}

func TestBeforeTheFirstTickOnlyTheAgentItselfIsServed(t *testing.T) {
	e := New(new(holder), bounds())
	all := gather(t, e)
	require.Len(t, all, 1)
	require.Contains(t, text(t, all), "mooring_snapshot_present 0\n")
	rec := get(t, e.Handler(), "/metrics", "")
	require.Equal(t, http.StatusOK, rec.Code)
	require.Contains(t, rec.Body.String(), "go_goroutines ")
}

// of returns what is served about one instance, values by metric name.
func of(all []*dto.MetricFamily, instance string) map[string]float64 {
	out := make(map[string]float64)
	for _, mf := range all {
		for _, m := range mf.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "instance" && l.GetValue() == instance {
					out[mf.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue() +
						float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
	}
	return out
}

func TestAnInstanceThatCouldNotBeRead(t *testing.T) {
	snap := snapshot()
	in := &snap.Instances[0]
	resourceMetrics := append(resources().metrics, placement().metrics...)

	t.Run("is whole as long as it can be read", func(t *testing.T) {
		got := of(gather(t, New(hold(snap), bounds(), WithClock(clock))), in.ID)
		for _, m := range resourceMetrics {
			require.Contains(t, got, m.name)
		}
		require.InDelta(t, 1, got["mooring_instance_read_success"], 0)
	})
	in.Err = "read memory.stat: no such file or directory"
	got := of(gather(t, New(hold(snap), bounds(), WithClock(clock))), in.ID)
	t.Run("keeps its statements and where it was asked to be", func(t *testing.T) {
		require.InDelta(t, 13, got["db_server_operation_duration_seconds"], 0)
		require.Contains(t, got, "mooring_instance_placement_info")
		require.Contains(t, got, "mooring_instance_info")
	})
	t.Run("has no series that would have to be read", func(t *testing.T) {
		for _, m := range resourceMetrics {
			// Where it is to be, and why it is not, the agent knows all the same.
			if m.name != "mooring_instance_placement_info" && m.name != "mooring_instance_placement_error" {
				require.NotContains(t, got, m.name)
			}
		}
	})
	t.Run("says so", func(t *testing.T) {
		require.Contains(t, got, "mooring_instance_read_success")
		require.Zero(t, got["mooring_instance_read_success"])
	})
}

// A counter that is 0 while the cgroup is shared, and what it was before afterwards,
// would be thousands of cores to whoever takes its rate.
func TestASharedCgroupHasNoSeriesRatherThanZeros(t *testing.T) {
	snap := snapshot()
	in := &snap.Instances[0]
	in.Cgroup.Shared, in.Resources, in.Placement = "2 database servers live in it", state.Resources{}, nil
	got := of(gather(t, New(hold(snap), bounds(), WithClock(clock))), in.ID)
	for _, m := range append(resources().metrics, placement().metrics...) {
		if m.name != "mooring_instance_placement_error" {
			require.NotContains(t, got, m.name)
		}
	}
	require.Contains(t, got, "mooring_instance_read_success")
	require.Zero(t, got["mooring_instance_read_success"])
	require.InDelta(t, 1, got["mooring_instance_cgroup_shared"], 0)
	require.InDelta(t, 13, got["db_server_operation_duration_seconds"], 0, "its statements are its own")
}

func TestADeclaredInstanceThatIsGoneKeepsItsLabels(t *testing.T) {
	const metric = "mooring_declared_instance_found"
	snap := snapshot()
	series := func() string {
		for line := range strings.Lines(text(t, gather(t, New(hold(snap), bounds(), WithClock(clock))))) {
			if strings.HasPrefix(line, metric+"{") && strings.Contains(line, `"pg-0"`) {
				return line
			}
		}
		return ""
	}
	found := series()
	require.True(t, strings.HasSuffix(found, " 1\n"), found)
	gone := *snap.Instances[0].Declared
	gone.Namespace, gone.Pod, gone.Container, gone.Engine = "db", "pg-0", "postgres", state.PostgreSQL
	snap.Instances, snap.Missing = snap.Instances[1:], []state.Declared{gone}
	require.Equal(t, strings.Replace(found, " 1\n", " 0\n", 1), series())

	require.Equal(t, "db/pg-0", missing(&state.Declared{Namespace: "db", Pod: "pg-0"}).ID)
}

func TestTextsOfStatementsFitALabel(t *testing.T) {
	snap := snapshot()
	snap.Instances[0].Statements.Digests[0].Text = "SELECT " + strings.Repeat("\u00e9, ", 400)
	var texts []string
	for _, mf := range gather(t, New(hold(snap), bounds(), WithClock(clock))) {
		for _, m := range mf.GetMetric() {
			for _, l := range m.GetLabel() {
				require.LessOrEqual(t, len(l.GetValue()), 256+len("..."), "%s %s", mf.GetName(), l.GetName())
				if l.GetName() == "query" {
					texts = append(texts, l.GetValue())
				}
			}
		}
	}
	require.Len(t, texts, 1)
	require.True(t, strings.HasPrefix(texts[0], "SELECT \u00e9, ") && strings.HasSuffix(texts[0], "..."), texts[0])
	require.LessOrEqual(t, len(texts[0]), 256)
}

func TestReadmeSaysHowManySeriesAnInstanceHas(t *testing.T) {
	var n int
	for line := range strings.Lines(text(t, gather(t, New(hold(snapshot()), bounds(), WithClock(clock))))) {
		if strings.Contains(line, `pod="pg-0"`) && !strings.Contains(line, "db_operation_name=") &&
			!regexp.MustCompile("^(mooring_fault_|db_query_digest_|mooring_instance_(fsync|block_io)_duration_)").MatchString(line) {
			n++
		}
	}
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), fmt.Sprintf("about %d series", (n+5)/10*10))
}

func TestALimitThatIsNotSetIsAbsent(t *testing.T) {
	snap := snapshot()
	snap.Instances = snap.Instances[:1]
	snap.Instances[0].Resources.CPUMillicores = 0
	snap.Instances[0].Resources.MemoryLimitBytes = 0
	got := text(t, gather(t, New(hold(snap), bounds(), WithClock(clock))))
	require.NotContains(t, got, "_limit_")
	require.Contains(t, got, "mooring_instance_memory_usage_bytes{")
}

func TestABrokenPartDoesNotBreakTheScrape(t *testing.T) {
	var log bytes.Buffer
	snap := snapshot()
	snap.Instances[0].Operations[0].Classic = nil
	broken := hold(snap)
	e := New(broken, bounds(), WithClock(clock), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	e.families = append([]family{{
		name:    "panicking",
		collect: func(*scrape) { panic("nil map") },
	}}, e.families...)
	h := e.Handler()

	t.Run("the other series are served", func(t *testing.T) {
		rec := get(t, h, "/metrics", "")
		require.Equal(t, http.StatusOK, rec.Code)
		got := rec.Body.String()
		require.Contains(t, got, `mooring_exporter_success{family="panicking"} 0`)
		require.Contains(t, got, `mooring_exporter_success{family="statements"} 0`)
		require.Contains(t, got, `mooring_exporter_success{family="resources"} 1`)
		require.Contains(t, got, `db_operation_name="insert"`)
		require.Contains(t, got, "mooring_instance_cpu_usage_seconds_total{")
	})
	t.Run("the cause is logged once, and the recovery", func(t *testing.T) {
		get(t, h, "/metrics", "")
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("0 classic counts for")), log.String())
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("panic: nil map")), log.String())
		broken.Store(snapshot())
		get(t, h, "/metrics", "")
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("complete again")), log.String())
	})
}

func TestTwoEqualSeriesCostOnlyTheSecond(t *testing.T) {
	snap := snapshot()
	snap.Capabilities = append(snap.Capabilities, snap.Capabilities[0])
	h := New(hold(snap), bounds()).Handler()
	rec := get(t, h, "/metrics", "")
	require.Equal(t, http.StatusOK, rec.Code)
	require.Contains(t, rec.Body.String(), `mooring_capability{name="net-delay"} 1`)
	require.Contains(t, rec.Body.String(), "mooring_instances{")
	again := get(t, h, "/metrics", "").Body.String()
	require.Contains(t, again, `promhttp_metric_handler_errors_total{cause="gathering"} 1`)
}

func TestLabelsThatAreNotUTF8AreReplaced(t *testing.T) {
	snap := snapshot()
	snap.Instances[0].ID = "/system.slice/\xff.service"
	got := text(t, gather(t, New(hold(snap), bounds())))
	require.Contains(t, got, "instance=\"/system.slice/\uFFFD.service\"")
	require.NotRegexp(t, `mooring_exporter_success\{[^}]*\} 0`, got)
}

func TestALongListOfCPUsIsCut(t *testing.T) {
	require.Equal(t, "0-3", cut("0-3"))
	require.Len(t, cut(string(bytes.Repeat([]byte("0,"), 400))), maxListBytes+len("..."))
}

func TestNewRefusesBoundsThatDoNotAscend(t *testing.T) {
	for name, bad := range map[string][]time.Duration{
		"zero":       {0, time.Second},
		"equal":      {time.Second, time.Second},
		"descending": {time.Second, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			require.Panics(t, func() { New(new(holder), bad) })
		})
	}
}

func TestScrapesWhileSnapshotsAreSwapped(t *testing.T) {
	src := hold(nil)
	h := New(src, bounds(), WithClock(clock)).Handler()
	accepts := []string{"", "application/openmetrics-text;version=1.0.0", protobufFormat}
	done := make(chan struct{})
	var swapper, scrapers sync.WaitGroup
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			snap := snapshot()
			snap.Time = snap.Time.Add(time.Duration(i) * time.Second)
			snap.Instances = snap.Instances[:i%(len(snap.Instances)+1)]
			src.Store(snap)
		}
	})
	for i := range 8 {
		scrapers.Go(func() {
			for range 20 {
				rec := get(t, h, "/metrics", accepts[i%len(accepts)])
				if rec.Code != http.StatusOK {
					t.Errorf("scrape answered %d: %s", rec.Code, rec.Body)
				}
			}
		})
	}
	scrapers.Wait()
	close(done)
	swapper.Wait()
}
