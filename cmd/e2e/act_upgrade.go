package main

import (
	"context"
	"fmt"
	"time"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const resumed = `
apiVersion: mooring.dev/v1alpha1
kind: ChaosExperiment
metadata: {name: resumed, namespace: shop}
spec:
  target: {policy: orders, pods: [orders-2]}
  fault: {networkDelay: {delay: 300ms}}
  duration: 5m
  onAgentRestart: Resume
`

// upgrade replaces the agent by a new one, as an upgrade does, in the middle of
// an experiment that is to go on.
func (s *stage) upgrade(ctx context.Context) error {
	victim, err := s.serverAddress(ctx, "orders-2")
	if err != nil {
		return err
	}
	w := watchHandshakes(ctx, victim, 300*time.Millisecond, 300*time.Millisecond)
	defer w.stop()
	if err := s.Apply(ctx, []byte(resumed)); err != nil {
		return err
	}
	if _, err := w.firstSlow(30 * time.Second); err != nil {
		return err
	}
	begun := time.Now()
	if _, err := s.Kubectl(ctx, "rollout", "restart", "daemonset/mooring-agent", "-n", system); err != nil {
		return err
	}
	stopped, err := w.fastAgain(30 * time.Second)
	if err != nil {
		return fmt.Errorf("the old agent did not end its fault: %w", err)
	}
	s.say("the old agent ended its fault %.1f s after kubectl rollout restart", stopped.Sub(begun).Seconds())
	if _, err := s.Kubectl(ctx, "rollout", "status", "daemonset/mooring-agent", "-n", system, "--timeout", "120s"); err != nil {
		return err
	}
	again, err := w.slowAgain(stopped, 2*time.Minute)
	if err != nil {
		return fmt.Errorf("the new agent did not go on with the fault: %w", err)
	}
	s.say("the new agent went on with it %.1f s later", again.Sub(stopped).Seconds())
	if _, err := s.Kubectl(ctx, "patch", "chaos", "resumed", "-n", "shop", "--type", "merge", "-p", `{"spec":{"abort":true}}`); err != nil {
		return err
	}
	e, err := s.ended(ctx, "resumed", 30*time.Second)
	if err != nil {
		return err
	}
	s.figures.Equal("an experiment that was resumed after an upgrade is aborted", truth(e.Status.Phase == v1alpha1.ExperimentAborted), "", 1)
	took, err := quickest(victim)
	if err != nil {
		return err
	}
	s.figures.AtMost("handshake after the abort", took, "ms", 100)
	for _, pod := range databasePods() {
		if err := s.pinned(ctx, pod); err != nil {
			return err
		}
	}
	return nil
}
