package kube

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func (c *command) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor NODE",
		Short: "Show what a node can do and what is wrong there",
		Long: "doctor reads the metrics of the node's agent through the API server. The agent fired each probe when it\n" +
			"started: a line says yes only if the thing was seen to work.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := c.open()
			if err != nil {
				return err
			}
			// What policies and experiments say of the node is shown also, and just
			// then, when its agent does not answer.
			return errors.Join(c.examine(cmd.Context(), s, args[0]), c.complaints(cmd.Context(), s, args[0]))
		},
	}
}

// examine prints what the node's agent says of itself.
func (c *command) examine(ctx context.Context, s *session, node string) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	p, err := c.agentOf(ctx, s, node)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "node %s  agent %s  version %s  ready %s  restarts %d\n", node, p.Name, version(p), yes(podReady(p)), restarts(p))
	if m := podMessage(p); m != "" {
		fmt.Fprintf(c.out, "agent: %s\n", oneLine(m))
	}
	data, err := s.pods.Read(ctx, c.system, p.Name, metricsPort, "metrics")
	switch {
	case apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err):
		return failed("the agent %s on %q does not answer on port %s: %w; see `kubectl -n %s logs %s`", p.Name, node, metricsPort, err, c.system, p.Name)
	case err != nil:
		return c.explain("read metrics of "+p.Name, err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	m, err := parser.TextToMetricFamilies(bytes.NewReader(data))
	if err != nil {
		return failed("read metrics of %s: %w", p.Name, err)
	}
	return c.printHealth(families(m))
}

// agentOf returns the node's agent; of several (one is going, one is coming) the
// newest.
func (c *command) agentOf(ctx context.Context, s *session, node string) (*corev1.Pod, error) {
	pods, err := c.systemPods(ctx, s, agentName)
	if err != nil {
		return nil, c.explain("list pods of "+c.system, err)
	}
	var found *corev1.Pod
	for i := range pods {
		if pods[i].Spec.NodeName == node && (found == nil || found.CreationTimestamp.Before(&pods[i].CreationTimestamp)) {
			found = &pods[i]
		}
	}
	if found != nil {
		return found, nil
	}
	if len(pods) == 0 {
		return nil, failed("there is no agent at all in namespace %q: is Mooring installed there? (--system-namespace)", c.system)
	}
	return nil, failed("there is no agent on node %q, but %d elsewhere: check the node's name with `kubectl get nodes` and the DaemonSet with `kubectl -n %s describe daemonset %s`", node, len(pods), c.system, agentName)
}

// families are the metrics of one agent, by name.
type families map[string]*dto.MetricFamily

// label returns the value of a label, "" where there is none.
func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// first is the label of the first series of a family.
func (f families) first(family, name string) string {
	if m := f[family].GetMetric(); len(m) > 0 {
		return label(m[0], name)
	}
	return ""
}

// value is that of the first series of a family; false where there is none.
func (f families) value(family string) (float64, bool) {
	m := f[family].GetMetric()
	if len(m) == 0 {
		return 0, false
	}
	return cmp.Or(m[0].GetGauge().GetValue(), m[0].GetCounter().GetValue(), m[0].GetUntyped().GetValue()), true
}

func (c *command) printHealth(f families) error {
	fmt.Fprintf(c.out, "built as %s  statements timed by %s\n", cmp.Or(f.first("mooring_build_info", "version"), "?"), cmp.Or(f.first("db_probe_mode", "mode"), "?"))
	if v, ok := f.value("mooring_snapshot_present"); ok && v == 0 {
		fmt.Fprintln(c.out, "the agent has not finished its first look at the node")
	}
	if v, ok := f.value("mooring_snapshot_age_seconds"); ok && v > 10 {
		fmt.Fprintf(c.out, "the agent's loop is stuck: its snapshot is %.0f s old\n", v)
	}
	if v, _ := f.value("mooring_journal_damaged"); v > 0 {
		fmt.Fprintln(c.out, "the journal was found damaged and set aside: faults of the former run may not have been undone")
	}
	for _, m := range f["mooring_fault_stuck"].GetMetric() {
		if m.GetGauge().GetValue() > 0 {
			fmt.Fprintf(c.out, "the undo of %s on %s/%s could not be verified: look at that instance\n", label(m, "kind"), label(m, "namespace"), label(m, "pod"))
		}
	}
	for _, m := range f["mooring_collector_success"].GetMetric() {
		if m.GetGauge().GetValue() == 0 {
			fmt.Fprintf(c.out, "the collector %s failed in the last tick\n", label(m, "collector"))
		}
	}
	details := map[string]string{}
	for _, m := range f["mooring_capability_info"].GetMetric() {
		details[label(m, "name")] = label(m, "detail")
	}
	caps := slices.Clone(f["mooring_capability"].GetMetric())
	slices.SortFunc(caps, func(a, b *dto.Metric) int { return cmp.Compare(label(a, "name"), label(b, "name")) })
	fmt.Fprintln(c.out)
	t := table(c.out, "CAPABILITY", "OK", "DETAIL")
	for _, m := range caps {
		name := label(m, "name")
		row(t, name, yes(m.GetGauge().GetValue() == 1), details[name])
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// complaints prints what policies and experiments say of the node.
func (c *command) complaints(ctx context.Context, s *session, node string) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	var policies v1alpha1.DatabasePolicyList
	err := s.List(ctx, &policies, client.InNamespace(""))
	var experiments v1alpha1.ChaosExperimentList
	if err == nil {
		err = s.List(ctx, &experiments, client.InNamespace(""))
	}
	if apierrors.IsForbidden(err) {
		fmt.Fprintln(c.errOut, "what policies and experiments say of the node is not shown: it takes the right to list them in all namespaces")
		return nil
	}
	if err != nil {
		return c.explain("list databasepolicies and chaosexperiments", err)
	}
	t := table(c.out, "\nOBJECT", "POD", "MESSAGE")
	found := false
	for _, p := range policies.Items {
		for _, in := range p.Status.Instances {
			if in.Node == node && !in.Ready {
				found = true
				row(t, "policy "+p.Namespace+"/"+p.Name, in.Pod, in.Message)
			}
		}
	}
	for i := range experiments.Items {
		x := &experiments.Items[i]
		for _, target := range x.Status.Targets {
			if target.Node == node && target.Message != "" && !experimentOver(x) {
				found = true
				row(t, "experiment "+x.Namespace+"/"+x.Name, target.Pod, target.Message)
			}
		}
	}
	if !found {
		return nil
	}
	return t.Flush()
}
