package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const delayReplica = `
apiVersion: mooring.dev/v1alpha1
kind: ChaosExperiment
metadata: {name: replica-behind, namespace: shop}
spec:
  target: {policy: orders, role: replica, pods: [orders-1]}
  fault: {networkDelay: {delay: 300ms}}
  duration: 20s
`

// delay makes a replica's network slow for 20 s.
func (s *stage) delay(ctx context.Context) error {
	// Well before the primary's writes fail: a checkpoint is followed by one more
	// record in the log, which a PostgreSQL that cannot write it panics at.
	if _, err := s.PostgreSQL(ctx, "orders-0", "CHECKPOINT"); err != nil {
		return err
	}
	victim, err := s.serverAddress(ctx, "orders-1")
	if err != nil {
		return err
	}
	neighbour, err := s.serverAddress(ctx, "orders-2")
	if err != nil {
		return err
	}
	w := watchHandshakes(ctx, victim, 300*time.Millisecond, 100*time.Millisecond)
	defer w.stop()
	clock, err := s.Node.Clock(ctx)
	if err != nil {
		return err
	}
	applied := time.Now()
	if err := s.Apply(ctx, []byte(delayReplica)); err != nil {
		return err
	}
	answered := time.Now()
	slow, err := w.firstSlow(30 * time.Second)
	if err != nil {
		return err
	}
	s.figures.AtMost("from apply to the fault's effect on the node", slow.Sub(applied).Seconds(), "s", 2*s.slack)
	meanwhile, err := quickest(neighbour)
	if err != nil {
		return err
	}
	s.figures.AtMost("handshake with the other replica meanwhile", meanwhile, "ms", 100)
	e, err := s.ended(ctx, "replica-behind", 60*time.Second)
	if err != nil {
		return err
	}
	t := e.Status.Targets
	if len(t) != 1 || t[0].StartedAt == nil || t[0].EndedAt == nil || e.Status.StartedAt == nil {
		return fmt.Errorf("experiment ended without times: %+v", e.Status)
	}
	started := t[0].StartedAt.Add(-clock.Ahead)
	s.say("apply: the API server had it after %.2f s, the agent had begun after %.2f s, the first slow packet was sent after %.2f s",
		answered.Sub(applied).Seconds(), started.Sub(applied).Seconds(), slow.Sub(applied).Seconds())
	back, err := w.fastAgain(10 * time.Second)
	if err != nil {
		return err
	}
	s.figures.AtMost("delay in force beyond its 20 s", back.Sub(started.Add(20*time.Second)).Seconds(), "s", 1)
	s.figures.AtLeast("delay in force for", back.Sub(slow).Seconds(), "s", 18)
	return s.recovered(ctx, e)
}

// recovered checks what an experiment says of its end.
func (s *stage) recovered(ctx context.Context, e *v1alpha1.ChaosExperiment) error {
	out, err := s.Kubectl(ctx, "get", "chaos", "-n", e.Namespace, e.Name)
	if err != nil {
		return err
	}
	s.show("kubectl get chaos -n "+e.Namespace+" "+e.Name, out)
	residue := 0
	for _, t := range e.Status.Targets {
		residue += len(t.Residue)
		s.say("%s on %s: %s, %s, %d hits, residue %q", e.Status.Fault, t.Pod, t.State, t.Reason, t.Hits, t.Residue)
	}
	s.figures.Equal(e.Name+" is Recovered", truth(e.Status.Phase == v1alpha1.ExperimentRecovered), "", 1)
	s.figures.AtLeast(e.Name+" hits", float64(e.Status.Hits), "", 1)
	s.figures.Equal(e.Name+" effect was observed", truth(isTrue(e.Status.Conditions, v1alpha1.EffectObserved) == nil), "", 1)
	s.figures.Equal(e.Name+" recovery is verified with an empty diff", truth(isTrue(e.Status.Conditions, v1alpha1.RecoveryVerified) == nil && residue == 0), "", 1)
	return nil
}

const breakWrites = `
apiVersion: mooring.dev/v1alpha1
kind: ChaosExperiment
metadata: {name: primary-writes, namespace: shop}
spec:
  target: {policy: orders, role: primary}
  fault: {ioError: {operations: Write}}
  duration: 5s
`

// spill is a statement that needs temporary files in the data directory.
const spill = "SET work_mem = '64kB'; SELECT count(*) FROM (SELECT md5(g::text) AS m FROM generate_series(1, 8000) g ORDER BY 1) s"

// breakPrimary makes the primary's writes fail for 5 s.
func (s *stage) breakPrimary(ctx context.Context) error {
	if _, err := s.PostgreSQL(ctx, "orders-0", spill); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	before, err := s.restarts(ctx, "orders-0")
	if err != nil {
		return err
	}
	// A controller that has just changed its leader is still connecting to agents.
	if err := s.applied(ctx, time.Minute); err != nil {
		return err
	}
	if err := s.Apply(ctx, []byte(breakWrites)); err != nil {
		return err
	}
	failed, written := 0, 0
	var e *v1alpha1.ChaosExperiment
	for {
		if _, err := s.PostgreSQL(ctx, "orders-0", spill); err != nil && strings.Contains(err.Error(), "Input/output error") {
			failed++
		}
		if e, err = s.experiment(ctx, "primary-writes"); err != nil {
			return err
		}
		if over(e.Status.Phase) {
			break
		}
		if _, err := s.MariaDB(ctx, "ledger-0", "INSERT INTO shop.entry VALUES (2); FLUSH TABLES shop.entry"); err != nil {
			return fmt.Errorf("the neighbour on the same disk: %w", err)
		}
		written++
	}
	s.figures.AtLeast("statements of the primary that failed with EIO", float64(failed), "", 1)
	s.figures.AtLeast("writes of ledger that went well on the same disk", float64(written), "", 1)
	_, err = s.PostgreSQL(ctx, "orders-0", spill)
	s.figures.Equal("the primary writes again", truth(err == nil), "", 1)
	after, err := s.restarts(ctx, "orders-0")
	if err != nil {
		return err
	}
	s.figures.Equal("restarts of the primary by the fault", float64(after-before), "", 0)
	return s.recovered(ctx, e)
}
