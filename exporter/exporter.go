package exporter

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mooring-dev/mooring/agent/state"
)

// maxScrapes bounds the scrapes served at once; what comes on top gets 503. A
// pair of Prometheus servers and a curious person need far fewer.
const maxScrapes = 16

// Source is where the snapshot comes from. Snapshot must not block and must be
// safe for concurrent use; it returns nil before the first tick.
type Source interface {
	Snapshot() *state.Snapshot
}

// Option changes a default of New.
type Option func(*Exporter)

// WithTick says how often the source publishes a snapshot; it decides when
// Live calls the agent stuck. The default is 5 s.
func WithTick(tick time.Duration) Option { return func(e *Exporter) { e.tick = tick } }

// WithLogger sets where a family that begins to fail, or recovers, is
// reported. The default is to discard.
func WithLogger(log *slog.Logger) Option {
	return func(e *Exporter) { e.log = log.With("component", "exporter") }
}

// WithProtocol sets the version of the protocol the agent speaks, for
// mooring_build_info. The default is 0.
func WithProtocol(version int) Option { return func(e *Exporter) { e.protocol = version } }

// WithClock replaces time.Now, for tests.
func WithClock(now func() time.Time) Option { return func(e *Exporter) { e.now = now } }

// Exporter serves one Source. It is safe for concurrent use and holds no
// resource that needs closing.
type Exporter struct {
	src      Source
	families []family
	self     selfMetrics
	registry *prometheus.Registry
	tick     time.Duration
	protocol int
	now      func() time.Time
	created  time.Time
	log      *slog.Logger

	mu      sync.Mutex
	failing map[string]bool // by family; guarded by mu
}

// New returns an exporter of src. The classic bounds are those by which the
// Classic counts of every state.Operation were made, ascending; New panics
// when they do not ascend from above zero, which only a mistake in the program
// can cause.
func New(src Source, classicBounds []time.Duration, opts ...Option) *Exporter {
	mustAscend(classicBounds)
	e := &Exporter{
		src:      src,
		self:     newSelfMetrics(),
		registry: prometheus.NewRegistry(),
		tick:     5 * time.Second,
		now:      time.Now,
		log:      slog.New(slog.DiscardHandler),
		failing:  make(map[string]bool),
	}
	for _, opt := range opts {
		opt(e)
	}
	e.created = e.now()
	e.families = families(classicBounds, e.protocol)
	e.registry.MustRegister(
		collector{e},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return e
}

func mustAscend(bounds []time.Duration) {
	var before time.Duration
	for i, b := range bounds {
		if b <= before {
			panic(fmt.Sprintf("exporter: classic bound %d is %s, not above %s", i, b, before))
		}
		before = b
	}
}

// Handler returns the handler of /metrics, /healthz and /readyz. The metrics
// are negotiated: text, OpenMetrics, or protobuf, the only form that carries
// native histograms.
func (e *Exporter) Handler() http.Handler {
	metrics := promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{
		// A series refused by the registry must not cost the others.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            e.registry,
		MaxRequestsInFlight: maxScrapes,
		CoalesceGather:      true,
		EnableOpenMetrics:   true,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.Handle("GET /healthz", health(e.Live))
	mux.Handle("GET /readyz", health(e.Ready))
	return mux
}

// collector keeps the methods the registry needs off the Exporter.
type collector struct{ e *Exporter }

// Describe sends every metric that Collect may send.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.e.families {
		for _, m := range f.metrics {
			ch <- m.desc
		}
	}
	for _, m := range c.e.self.metrics() {
		ch <- m.desc
	}
}

// Collect sends one snapshot's series. It runs all families in turn, in one
// goroutine and on one snapshot, so that no two series of a scrape disagree.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	e := c.e
	snap := e.src.Snapshot()
	self := &scrape{ch: ch, snap: snap, now: e.now()}
	if snap == nil {
		self.set(e.self.present, 0)
		return
	}
	self.set(e.self.present, 1)
	for _, f := range e.families {
		s := &scrape{ch: ch, snap: snap, now: self.now}
		err := s.run(f)
		self.set(e.self.success, boolean(err == nil), f.name)
		e.report(f.name, err)
	}
}

// report logs a family's turn from right to wrong and back, not every scrape.
func (e *Exporter) report(name string, err error) {
	e.mu.Lock()
	was := e.failing[name]
	e.failing[name] = err != nil
	e.mu.Unlock()
	switch {
	case err != nil && !was:
		e.log.Warn("metric family incomplete", "err", err)
	case err == nil && was:
		e.log.Info("metric family complete again", "family", name)
	}
}

// selfMetrics are those about exporting itself.
type selfMetrics struct{ present, success *metric }

func newSelfMetrics() selfMetrics {
	return selfMetrics{
		present: gauge("mooring_snapshot_present",
			"1 when the agent has finished its first tick, 0 before; at 0 nothing about instances is served."),
		success: gauge("mooring_exporter_success",
			"1 when every series of this metric family could be served in this scrape, 0 when some were left out.",
			"family"),
	}
}

func (s selfMetrics) metrics() []*metric { return []*metric{s.present, s.success} }
