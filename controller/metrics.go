package controller

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// metrics are the controller's own figures.
type metrics struct {
	reconciles *prometheus.CounterVec
	errors     *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	started    prometheus.Histogram
	epoch      prometheus.Gauge
	leader     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		reconciles: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mooring_controller_reconciles_total", Help: "Turns of the loop, by the kind of what was looked at.",
		}, []string{"kind"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mooring_controller_reconcile_errors_total", Help: "Turns that failed and are repeated, by kind.",
		}, []string{"kind"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mooring_controller_reconcile_seconds", Help: "How long a turn took, by kind.", Buckets: []float64{.001, .01, .1, 1, 10},
		}, []string{"kind"}),
		started: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mooring_controller_fault_start_seconds", Help: "Time from the first look at an experiment until its fault was in force on every target.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2, 5, 10},
		}),
		epoch: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mooring_controller_epoch", Help: "Fencing epoch under which this controller leads, 0 when it does not.",
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mooring_controller_leader", Help: "1 when this controller leads.",
		}),
	}
	reg.MustRegister(m.reconciles, m.errors, m.duration, m.started, m.epoch, m.leader)
	return m
}

// turn notes one turn of the loop.
func (m *metrics) turn(k kind, took time.Duration, err error) {
	m.reconciles.WithLabelValues(string(k)).Inc()
	m.duration.WithLabelValues(string(k)).Observe(took.Seconds())
	if err != nil {
		m.errors.WithLabelValues(string(k)).Inc()
	}
}

// gauges are the figures that are looked up when they are asked for.
type gauges struct {
	// read lists from the cache; nil before that is synced.
	read func() client.Reader
	// depth is the length of the queue.
	depth func() int
	// agents counts agents by state.
	agents func() map[string]int

	queue, byState, experiments, resizes, policies *prometheus.Desc
}

func newGauges(read func() client.Reader, depth func() int, agents func() map[string]int) *gauges {
	return &gauges{
		read: read, depth: depth, agents: agents,
		queue:       prometheus.NewDesc("mooring_controller_queue_depth", "Keys waiting for a turn.", nil, nil),
		byState:     prometheus.NewDesc("mooring_controller_agents", "Agents by state, on the controller that leads.", []string{"state"}, nil),
		experiments: prometheus.NewDesc("mooring_controller_experiments", "ChaosExperiments by phase.", []string{"phase"}, nil),
		resizes:     prometheus.NewDesc("mooring_controller_resizes", "InstanceResizes by phase.", []string{"phase"}, nil),
		policies:    prometheus.NewDesc("mooring_controller_policies", "DatabasePolicies.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.queue, g.byState, g.experiments, g.resizes, g.policies} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(g.queue, g.depth())
	for state, n := range g.agents() {
		gauge(g.byState, n, state)
	}
	reader := g.read()
	if reader == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var experiments v1alpha1.ChaosExperimentList
	if reader.List(ctx, &experiments) == nil {
		counts := map[v1alpha1.ExperimentPhase]int{}
		for i := range experiments.Items {
			counts[experiments.Items[i].Status.Phase]++
		}
		for phase, n := range counts {
			gauge(g.experiments, n, orNew(string(phase)))
		}
	}
	var resizes v1alpha1.InstanceResizeList
	if reader.List(ctx, &resizes) == nil {
		counts := map[v1alpha1.ResizePhase]int{}
		for i := range resizes.Items {
			counts[resizes.Items[i].Status.Phase]++
		}
		for phase, n := range counts {
			gauge(g.resizes, n, orNew(string(phase)))
		}
	}
	var policies v1alpha1.DatabasePolicyList
	if reader.List(ctx, &policies) == nil {
		gauge(g.policies, len(policies.Items))
	}
}

func orNew(phase string) string {
	if phase == "" {
		return "New"
	}
	return phase
}
