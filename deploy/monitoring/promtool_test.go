package monitoring

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// casesPath is the rendered form of the tables in cases_test.go, for
// `promtool test rules`; make monitoring-test runs it.
const casesPath = "testdata/cases.yaml"

// Every case is about this instance.
const (
	id  = `container="pg",instance="db/pg-0/pg",namespace="db",node="n1",pod="pg-0"`
	sys = id + `,db_system_name="postgresql"`
	// self is an agent's own series.
	self = `instance="10.0.0.1:9750",job="mooring-agent",node="n1"`
)

// series are lines of input, each with a value a minute.
type series map[string]string

// alertCase holds what makes an alert fire by a minute, and what comes near to
// that and must not.
type alertCase struct {
	alert        string
	at           int
	fires, quiet series
}

// recordCase holds what a recorded series is at a minute, in thousandths.
type recordCase struct {
	record string
	labels string // of the result
	at     int
	input  series
	want   float64
}

// line is one series of a metric, its labels joined.
func line(metric string, labels ...string) string {
	return metric + "{" + strings.Join(labels, ",") + "}"
}

// growing counts up by each a minute, from minute 0.
func growing(each float64) string { return fmt.Sprintf("0+%gx600", each) }

// steady is one value.
func steady(v float64) string { return fmt.Sprintf("%g+0x600", v) }

// turning counts up by before a minute until minute m, and then by after.
func turning(before float64, m int, after float64) string {
	return fmt.Sprintf("0+%gx%d %g+%gx600", before, m, before*float64(m)+after, after)
}

// histogram is a classic histogram: counts a minute by upper bound, cumulative.
func histogram(metric, labels string, seconds string, bounds map[string]string) series {
	s := series{line(metric+"_sum", labels): seconds, line(metric+"_count", labels): bounds["+Inf"]}
	for le, values := range bounds {
		s[line(metric+"_bucket", labels, fmt.Sprintf("le=%q", le))] = values
	}
	return s
}

func join(all ...series) series {
	out := series{}
	for _, s := range all {
		for k, v := range s {
			out[k] = v
		}
	}
	return out
}

// promtoolFile is the input of `promtool test rules`.
func promtoolFile() map[string]any {
	var tests []any
	for _, c := range alertCases() {
		firing := fmt.Sprintf(`count(ALERTS{alertname=%q,alertstate="firing"})`, c.alert)
		one := []any{map[string]any{"labels": "{}", "value": 1}}
		tests = append(tests, promtoolTest(c.alert+" fires", c.fires, firing, c.at, one), promtoolTest(c.alert+" keeps quiet", c.quiet, firing, c.at, nil))
	}
	for _, c := range recordCases() {
		want := []any{map[string]any{"labels": "{" + c.labels + "}", "value": c.want}}
		tests = append(tests, promtoolTest(c.record, c.input, "round(1000 * "+c.record+")", c.at, want))
		tests = append(tests, promtoolTest(c.record+" of nothing", series{"unrelated": "0x10"}, c.record, 5, nil))
	}
	return map[string]any{
		"rule_files":          []string{"../rules/recording.yaml", "../rules/alerts.yaml"},
		"evaluation_interval": "1m",
		"tests":               tests,
	}
}

func promtoolTest(name string, in series, expr string, at int, want []any) map[string]any {
	var input []any
	for s, values := range in {
		input = append(input, map[string]any{"series": s, "values": values})
	}
	sortBySeries(input)
	test := map[string]any{"expr": expr, "eval_time": fmt.Sprintf("%dm", at)}
	if want != nil {
		test["exp_samples"] = want
	}
	return map[string]any{"name": name, "interval": "1m", "input_series": input, "promql_expr_test": []any{test}}
}

func TestEveryRuleHasItsCases(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range alertCases() {
		require.NotEmpty(t, c.fires, c.alert)
		require.NotEmpty(t, c.quiet, c.alert)
		tested[c.alert] = true
	}
	for _, c := range recordCases() {
		require.NotZero(t, c.want, "%s: 0 is also what a mistake gives", c.record)
		tested[c.record] = true
	}
	for _, g := range Groups() {
		for _, r := range g.Rules {
			require.True(t, tested[r.Record+r.Alert], "%s has no case", r.Record+r.Alert)
			delete(tested, r.Record+r.Alert)
		}
	}
	require.Empty(t, tested, "cases of rules that are not there")
}
