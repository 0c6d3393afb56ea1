package exporter

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mooring-dev/mooring/agent/state"
)

// families is the table of everything that is served from a snapshot, in the
// order of README.md. Adding a family is adding a line here.
func families(classicBounds []time.Duration, protocol int) []family {
	return []family{
		statements(classicBounds),
		traffic(),
		transactions(),
		digests(),
		instances(),
		resources(),
		usage(),
		ioLatency(classicBounds),
		network(),
		space(),
		machine(),
		placement(),
		nodes(),
		faults(),
		capabilities(),
		probe(),
		records(),
		active(),
		sources(),
		agent(protocol),
	}
}

// family is a group of metrics that are filled together.
type family struct {
	name    string
	metrics []*metric
	// collect sends the family's series of s.snap, which it must not change.
	collect func(s *scrape)
}

// metric is what is declared of a metric: enough to serve and to document it.
type metric struct {
	name   string
	typ    string // as README.md prints it
	help   string
	labels []string
	value  prometheus.ValueType
	desc   *prometheus.Desc
}

func gauge(name, help string, labels ...string) *metric {
	return declare("gauge", prometheus.GaugeValue, name, help, labels)
}

func counter(name, help string, labels ...string) *metric {
	return declare("counter", prometheus.CounterValue, name, help, labels)
}

func declare(typ string, value prometheus.ValueType, name, help string, labels []string) *metric {
	return &metric{
		name: name, typ: typ, help: help, labels: labels, value: value,
		desc: prometheus.NewDesc(name, help, labels, nil),
	}
}

// instanceLabels returns the labels that tell instances apart, and more.
func instanceLabels(more ...string) []string {
	return append([]string{"namespace", "pod", "container", "instance"}, more...)
}

// labelValues returns the values of instanceLabels. Namespace, pod and
// container are empty for an instance outside Kubernetes.
func labelValues(in *state.Instance, more ...string) []string {
	return append([]string{in.Namespace, in.Pod, in.Container, in.ID}, more...)
}

// scrape is one family's part of one answer to Prometheus. It is used by one
// goroutine.
type scrape struct {
	ch   chan<- prometheus.Metric
	snap *state.Snapshot
	now  time.Time

	omitted int
	first   error // why the first omitted series was left out
}

// run collects f and returns what went wrong, if anything did. A panic ends
// the family, not the scrape: one bad value of one instance must not blind
// whoever watches all the others.
func (s *scrape) run(f family) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("collect %s: panic: %v", f.name, p)
		}
	}()
	f.collect(s)
	if s.omitted > 0 {
		return fmt.Errorf("collect %s: %d series left out, first: %w", f.name, s.omitted, s.first)
	}
	return nil
}

// set sends one series of m.
func (s *scrape) set(m *metric, value float64, labels ...string) {
	series, err := prometheus.NewConstMetric(m.desc, m.value, value, valid(labels)...)
	if err != nil {
		s.omit(fmt.Errorf("%s: %w", m.name, err))
		return
	}
	s.ch <- series
}

// omit notes that a series was left out.
func (s *scrape) omit(err error) {
	if s.omitted == 0 {
		s.first = err
	}
	s.omitted++
}

// valid returns the label values with bytes that are not UTF-8 replaced. A
// cgroup may be named in any bytes, but one invalid label makes Prometheus
// refuse the whole scrape.
func valid(labels []string) []string {
	if !slices.ContainsFunc(labels, func(v string) bool { return strings.ToValidUTF8(v, "") != v }) {
		return labels
	}
	out := make([]string, len(labels))
	for i, v := range labels {
		out[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
	return out
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns t as Prometheus writes moments, seconds since the epoch.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
