package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// experimentText is a ChaosExperiment that would freeze something.
func experimentText(name, namespace, target, rest string) string {
	return fmt.Sprintf("apiVersion: mooring.dev/v1alpha1\nkind: ChaosExperiment\nmetadata: {name: %s, namespace: %s}\nspec:\n  target: %s\n  %s\n",
		name, namespace, target, rest)
}

const freezeRest = "fault: {freeze: {}}\n  duration: 5s"

// refuse tries what must not go. Each is to be refused with a reason, before
// anything is done.
func (s *stage) refuse(ctx context.Context) error {
	if err := s.refusedByServer(ctx); err != nil {
		return err
	}
	for _, c := range []struct{ name, target, rest, says string }{
		{"two-of-two-replicas", "{policy: orders, role: replica, count: 2}", freezeRest, "has 3 instances, of which 1 may be lost"},
		{"no-match", "{policy: orders, selector: {matchLabels: {app: nothing}}}", freezeRest, "no"},
		{"not-an-instance", "{policy: orders, pods: [neighbour]}", freezeRest, "neighbour"},
		{"chaos-not-allowed", "{policy: ledger}", freezeRest, "allow"},
	} {
		if err := s.refusedByController(ctx, c.name, experimentText(c.name, "shop", c.target, c.rest), c.says, 30*time.Second); err != nil {
			return err
		}
	}
	for _, pod := range databasePods() {
		values, err := s.control(ctx, pod, "cgroup.freeze")
		if err != nil {
			return err
		}
		s.figures.Equal(pod+" was not frozen by what was refused", truth(values[0] == "0"), "", 1)
	}
	return nil
}

// refusedByServer holds what the API server turns down by schema and rights.
func (s *stage) refusedByServer(ctx context.Context) error {
	immutable := experimentText("replica-behind", "shop", "{policy: orders, role: replica, pods: [orders-1]}", "fault: {networkDelay: {delay: 300ms}}\n  duration: 30s")
	for _, c := range []struct {
		name, text, says string
		args             []string
	}{
		{"an experiment with no duration", experimentText("x", "shop", "{policy: orders}", "fault: {freeze: {}}"), "spec.duration: Required", nil},
		{"an experiment with two faults", experimentText("x", "shop", "{policy: orders}", "fault: {freeze: {}, networkDelay: {delay: 1s}}\n  duration: 5s"), "spec.fault", nil},
		{"a pod of another namespace", experimentText("x", "shop", "{policy: orders, pods: [other/orders-0]}", freezeRest), "spec.target.pods", nil},
		{"a spec that changes", immutable, "cannot be changed", nil},
		{"a policy with an unknown engine", "apiVersion: mooring.dev/v1alpha1\nkind: DatabasePolicy\nmetadata: {name: x, namespace: shop}\nspec: {selector: {matchLabels: {a: b}}, engine: oracle}\n", "Unsupported value: \"oracle\"", nil},
		{"a user without rights", experimentText("x", "shop", "{policy: orders}", freezeRest), "forbidden", []string{"--as", "jane"}},
	} {
		file := filepath.Join(s.Dir, "refused.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			return fmt.Errorf("write manifest: %w", err)
		}
		out, err := s.Kubectl(ctx, append([]string{"apply", "-f", file}, c.args...)...)
		s.say("%s: %s", c.name, out)
		s.figures.Equal("refused by the API server: "+c.name, truth(err != nil && strings.Contains(out, c.says)), "", 1)
	}
	return nil
}

// refusedByController waits up to limit for the controller's word on an experiment.
func (s *stage) refusedByController(ctx context.Context, name, text, says string, limit time.Duration) error {
	if err := s.Apply(ctx, []byte(text)); err != nil {
		return err
	}
	e, err := s.ended(ctx, name, limit)
	if err != nil {
		return err
	}
	c := condition(e.Status.Conditions, v1alpha1.TargetsResolved)
	s.say("%s: %s: %s: %s", name, e.Status.Phase, c.Reason, c.Message)
	ok := e.Status.Phase == v1alpha1.ExperimentRefused && c.Status == metav1.ConditionFalse && strings.Contains(c.Message, says)
	s.figures.Equal("refused by the controller: "+name, truth(ok), "", 1)
	return nil
}
