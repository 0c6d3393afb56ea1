package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const orphans = `
apiVersion: mooring.dev/v1alpha1
kind: ChaosExperiment
metadata: {name: orphan-delay, namespace: shop}
spec:
  target: {policy: orders, pods: [orders-1]}
  fault: {networkDelay: {delay: 300ms}}
  duration: 8s
  onControlLoss: ContinueUntilDeadline
---
apiVersion: mooring.dev/v1alpha1
kind: ChaosExperiment
metadata: {name: orphan-freeze, namespace: shop}
spec:
  target: {policy: cache}
  fault: {freeze: {}}
  duration: 8s
  onControlLoss: ContinueUntilDeadline
`

// loseEverything kills the agent and the API server, and stops the kubelet, while
// two faults are in force, one that the kernel ends and one that the agent's
// keeper has to.
func (s *stage) loseEverything(ctx context.Context) error {
	victim, err := s.serverAddress(ctx, "orders-1")
	if err != nil {
		return err
	}
	redis, err := s.Pod(ctx, "cache-0")
	if err != nil {
		return err
	}
	frozen, err := cgroupDir(redis)
	if err != nil {
		return err
	}
	if err := s.Apply(ctx, []byte(orphans)); err != nil {
		return err
	}
	deadlines, err := s.bothActive(ctx)
	if err != nil {
		return err
	}
	deadline := deadlines["orphan-freeze"]
	pid, err := s.Node.Must(ctx, agentPID)
	if err != nil {
		return err
	}
	if took, err := handshake(victim); err != nil || took < 300*time.Millisecond {
		return fmt.Errorf("the delay is not in force: a handshake took %v: %w", took, err)
	}
	// Nobody is to start the agent again, and it gets no chance to tidy up: what
	// ends the faults now is the kernel, and the keeper that the agent left behind.
	if err := s.Node.StopService(ctx, node.Kubelet); err != nil {
		return err
	}
	killed := time.Now()
	if _, err := s.Node.Must(ctx, "kill -9 "+pid); err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, "delete", "pod", "-n", system, "-l", "app.kubernetes.io/name=mooring-agent", "--force", "--grace-period=0"); err != nil {
		return err
	}
	if err := s.Control.StopServer(); err != nil {
		return err
	}
	s.say("kubelet stopped, agent killed, its pod deleted by force and the API server gone %.1f s later, %.0f s before the deadline of the freeze",
		time.Since(killed).Seconds(), time.Until(deadline).Seconds())
	gone := time.Now()
	for time.Since(gone) < time.Until(deadline)+10*time.Second {
		if took, err := handshake(victim); err == nil && took < 100*time.Millisecond {
			break
		}
	}
	s.figures.AtMost("delay in force after its agent was killed", time.Since(killed).Seconds(), "s", 5)
	thawed, err := s.thawed(ctx, frozen, deadline.Add(30*time.Second))
	if err != nil {
		return err
	}
	late := thawed.Sub(deadline).Seconds()
	s.say("Redis runs again %.2f s after its deadline", late)
	s.figures.AtMost("freeze in force beyond its deadline, with no agent and no API server", late, "s", 1)
	s.figures.AtLeast("and until its deadline", late, "s", -2)
	if out, err := s.RedisAt(ctx, redis.Status.PodIP, "ping"); err != nil || out != "PONG" {
		return fmt.Errorf("the thawed Redis does not answer: %q: %w", out, err)
	}
	return s.allReturns(ctx)
}

// agentPID prints the process id of the agent; its keepers have another name.
const agentPID = "pgrep -f '^/mooring-agent --'"

// bothActive waits until both faults are in force, and returns the deadline of
// each by this machine's clock.
func (s *stage) bothActive(ctx context.Context) (map[string]time.Time, error) {
	clock, err := s.Node.Clock(ctx)
	if err != nil {
		return nil, err
	}
	deadlines := map[string]time.Time{}
	for _, name := range []string{"orphan-delay", "orphan-freeze"} {
		if err := s.Eventually(ctx, 30*time.Second, name+" to be active", func(ctx context.Context) error {
			e, err := s.experiment(ctx, name)
			if err != nil {
				return err
			}
			if e.Status.Phase != v1alpha1.ExperimentActive || len(e.Status.Targets) != 1 || e.Status.Targets[0].Deadline == nil {
				return fmt.Errorf("it is %q: %v", e.Status.Phase, e.Status.Conditions)
			}
			deadlines[name] = e.Status.Targets[0].Deadline.Add(-clock.Ahead)
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return deadlines, nil
}

// thawed waits until a cgroup is not frozen any more.
func (s *stage) thawed(ctx context.Context, cgroup string, limit time.Time) (time.Time, error) {
	for {
		b, err := s.Node.ReadFile(ctx, cgroup+"/cgroup.events")
		now := time.Now()
		switch {
		case err != nil:
			return now, err
		case strings.Contains(string(b), "frozen 0"):
			return now, nil
		case now.After(limit):
			return now, errors.New("the database stays frozen")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// allReturns starts the API server again and waits until everything is as it
// was.
func (s *stage) allReturns(ctx context.Context) error {
	begun := time.Now()
	if err := s.Control.StartServer(ctx); err != nil {
		return err
	}
	// There is an API server again, and no agent yet that could say what became of
	// the faults: they count as being in force. The controller lists again when
	// client-go's back-off ends, which doubles while there is no API server, up to
	// 30 s and as much again by chance (client-go's tools/cache/reflector.go).
	if err := s.refusedByController(ctx, "one-too-many", experimentText("one-too-many", "shop", "{policy: orders, pods: [orders-2]}", freezeRest), "under another fault", 90*time.Second); err != nil {
		return err
	}
	if err := s.Node.StartService(ctx, node.Kubelet); err != nil {
		return err
	}
	if err := s.installed(ctx, 4*time.Minute); err != nil {
		return err
	}
	for _, name := range []string{"orphan-delay", "orphan-freeze"} {
		e, err := s.ended(ctx, name, 2*time.Minute)
		if err != nil {
			return err
		}
		s.say("%s: %s, %q", name, e.Status.Phase, e.Status.Targets[0].Message)
		s.figures.Equal(name+" is over for the controller, too", truth(e.Status.Phase == v1alpha1.ExperimentRecovered), "", 1)
	}
	if err := s.applied(ctx, 2*time.Minute); err != nil {
		return err
	}
	s.figures.AtMost("all is reconciled after the API server's return", time.Since(begun).Seconds(), "s", 120)
	for _, pod := range databasePods() {
		if err := s.pinned(ctx, pod); err != nil {
			return err
		}
	}
	return nil
}
