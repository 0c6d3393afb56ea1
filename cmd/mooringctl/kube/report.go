package kube

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// reporter prints what is new since the version before, a line each.
type reporter struct {
	out  io.Writer
	now  func() time.Time
	told map[string]string
}

func (c *command) reporter() *reporter {
	return &reporter{out: c.out, now: c.now, told: map[string]string{}}
}

// tell prints text unless it is what was told about this thing last.
func (r *reporter) tell(about, text string) {
	text = oneLine(text)
	if text == "" || r.told[about] == text {
		return
	}
	r.told[about] = text
	fmt.Fprintf(r.out, "%s  %s\n", r.now().Local().Format("15:04:05.000"), text)
}

func (r *reporter) conditions(all []metav1.Condition) {
	for _, c := range all {
		if c.Status == metav1.ConditionUnknown && c.Message == "" {
			continue
		}
		r.tell("condition "+c.Type, fmt.Sprintf("%s %s %s: %s", c.Type, strings.ToLower(string(c.Status)), c.Reason, c.Message))
	}
}

// experiment prints what is new of x.
func (r *reporter) experiment(x *v1alpha1.ChaosExperiment) {
	for _, t := range x.Status.Targets {
		what := fmt.Sprintf("%s on %s %s", t.Pod, t.Node, strings.ToLower(string(t.State)))
		if t.Role != "" {
			what += " (" + t.Role + ")"
		}
		if t.Reason != "" {
			what += ", " + t.Reason
		}
		if t.Message != "" {
			what += ": " + t.Message
		}
		r.tell("target "+t.Pod, what)
		if t.Hits > 0 && t.State == v1alpha1.ChaosActive {
			r.tell("effect "+t.Pod, t.Pod+" feels it: the kernel applied the fault")
		}
		if x.Spec.DryRun {
			for i, line := range t.Changes {
				r.tell(fmt.Sprintf("change %s %d", t.Pod, i), t.Pod+" would change: "+line)
			}
		}
	}
	r.conditions(x.Status.Conditions)
	if p := experimentPhase(x); x.Status.Phase != "" {
		r.tell("phase", "phase "+string(p))
	}
}

// summary prints the evidence of an experiment that is over.
func (r *reporter) summary(x *v1alpha1.ChaosExperiment) {
	for _, t := range x.Status.Targets {
		if t.StartedAt == nil {
			continue
		}
		lasted := ""
		if t.EndedAt != nil {
			lasted = fmt.Sprintf(", lasted %v", t.EndedAt.Sub(t.StartedAt.Time).Round(time.Millisecond))
		}
		fmt.Fprintf(r.out, "%s: %d hits%s, recovered %s\n", t.Pod, t.Hits, lasted, yes(t.Recovered))
		for _, line := range t.Residue {
			fmt.Fprintf(r.out, "%s: left behind: %s\n", t.Pod, oneLine(line))
		}
	}
}

// followExperiment prints what becomes of x. It returns nil only if it ends in
// one of the phases that are wanted, with nothing left behind.
func (c *command) followExperiment(ctx context.Context, s *session, x *v1alpha1.ChaosExperiment, want ...v1alpha1.ExperimentPhase) error {
	r := c.reporter()
	var last *v1alpha1.ChaosExperiment
	err := c.follow(ctx, &follower{session: s, object: x, list: &v1alpha1.ChaosExperimentList{}, seen: func(o client.Object) progress {
		now, ok := o.(*v1alpha1.ChaosExperiment)
		if !ok {
			return going
		}
		last = now.DeepCopy()
		r.experiment(now)
		switch {
		case experimentOver(now):
			return over
		case now.Status.Phase == "" && len(now.Status.Conditions) == 0:
			return untouched
		}
		return going
	}})
	name := "experiment " + x.Name
	if err != nil {
		return c.stopped(err, name, fmt.Sprintf("end it with `%s chaos abort %s -n %s`", c.name, x.Name, x.Namespace))
	}
	r.summary(last)
	for _, t := range last.Status.Targets {
		if len(t.Residue) > 0 {
			return failed("%s left something behind on %s", name, t.Pod)
		}
	}
	if !slices.Contains(want, last.Status.Phase) {
		return failed("%s ended as %s: %s", name, last.Status.Phase, experimentMessage(last))
	}
	return nil
}
