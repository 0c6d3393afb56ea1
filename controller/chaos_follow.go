package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// run is one turn over an admitted experiment: what it was, what it is becoming,
// and what the agents said of each target.
type run struct {
	*reconciler
	before *v1alpha1.ChaosExperiment
	e      *v1alpha1.ChaosExperiment
	now    time.Time
	// seen is what the agent of each target said last, by index.
	seen []fleet.Status
	// silent is why it said nothing.
	silent []error
	// failed is what went wrong on a target at the start.
	failed []error
	// awaited is how many targets may be begun again once their agent is there.
	awaited int
	// unheard says that a lease was due and could not be renewed.
	unheard atomic.Bool
}

// follow brings an experiment further whose faults are on record: it starts
// them, keeps their leases, ends them, and writes down what the agents say. e is
// left as it was written.
func (r *reconciler) follow(ctx context.Context, e *v1alpha1.ChaosExperiment) (time.Duration, error) {
	t := &run{reconciler: r, before: e.DeepCopy(), e: e.DeepCopy(), now: r.now()}
	n := len(e.Status.Targets)
	t.seen, t.silent, t.failed = make([]fleet.Status, n), make([]error, n), make([]error, n)
	t.observeAll()
	if !t.ending() && t.resumeAll(ctx) {
		// The new uid is on record before its fault is begun.
		if err := r.update(ctx, e, t.e); err != nil {
			return 0, err
		}
		t.before, t.e = e.DeepCopy(), e.DeepCopy()
	}
	t.startLate()
	t.act(ctx)
	t.settle()
	if err := r.update(ctx, e, t.e); err != nil {
		return 0, err
	}
	t.announce(e)
	if finished(e.Status.Phase) {
		r.forget(e)
		return 0, r.release(ctx, e)
	}
	if e.DeletionTimestamp != nil && t.past(lateAfter) && t.uncontradicted() {
		r.forget(e)
		// Each fault ended by itself at its deadline; an agent that is gone for
		// good must not hold up the deletion of a namespace.
		r.log.Warn("experiment let go without its agents' word, its deadline has passed", "component", "chaos", "experiment", e.Namespace+"/"+e.Name)
		return 0, r.release(ctx, e)
	}
	return t.next(), nil
}

// uncontradicted says that no agent contradicts that the faults are over: those whose
// agent still reports one in force are kept, with their record.
func (t *run) uncontradicted() bool {
	for i := range t.targets() {
		if x := &t.targets()[i]; !overOn(x) {
			if _, err := t.agents.Status(x.Node); err == nil {
				return false
			}
		}
	}
	return true
}

func (t *run) targets() []v1alpha1.ChaosTargetStatus { return t.e.Status.Targets }

// deadline is when every fault of the experiment is over in any case.
func (t *run) deadline() time.Time {
	if d := t.e.Status.Deadline; d != nil {
		return d.Time
	}
	return t.now
}

// past says that the deadline has passed for at least d.
func (t *run) past(d time.Duration) bool { return t.now.After(t.deadline().Add(d)) }

// asked says that somebody wants the experiment to end.
func (t *run) asked() bool { return t.e.Spec.Abort || t.e.DeletionTimestamp != nil }

// ending says that the faults are to be over now.
func (t *run) ending() bool { return t.asked() || t.startFailed() || t.past(0) }

func (t *run) startFailed() bool {
	c := meta.FindStatusCondition(t.e.Status.Conditions, v1alpha1.FaultActive)
	return c != nil && c.Reason == reasonStartFailed
}

// observeAll takes over what the agents say.
func (t *run) observeAll() {
	for i := range t.targets() {
		x := &t.targets()[i]
		if overOn(x) {
			continue
		}
		s, err := t.agents.Status(x.Node)
		t.seen[i] = s
		if s.Reply == nil {
			t.silent[i] = err
			continue
		}
		x.Message = ""
		if f := find(s.Reply, x.FaultUID); f != nil {
			observe(x, f)
		} else if lost(x, s) {
			x.State, x.Reason, x.Recovered = v1alpha1.ChaosEnded, reasonUnknown, false
			x.Message = "its agent was restarted and does not know the fault any more: it is over, and when it ended is not known"
		}
	}
}

// Reasons of an end that the agents give, and one that is ours.
const (
	reasonStopped      = "stopped"
	reasonAgentStopped = "agent stopped"
	reasonRecovered    = "recovered"
	// reasonUnknown is that of a fault which its agent does not know any more.
	reasonUnknown = "agent restarted"
)

// lost says that an agent which has news from after the start does not know the
// fault: it was restarted, and agents undo every fault when they stop or start,
// and let go of its record only when that was verified.
func lost(x *v1alpha1.ChaosTargetStatus, s fleet.Status) bool {
	const margin = 3 * time.Second // a status may be older than the time it bears
	return (x.State == v1alpha1.ChaosActive || x.State == v1alpha1.ChaosStuck) && x.StartedAt != nil &&
		s.Reply.GetTime().AsTime().After(x.StartedAt.Add(margin))
}

func find(s *agentpb.StatusReply, uid string) *agentpb.Fault {
	for _, f := range s.GetFaults() {
		if f.GetUid() == uid {
			return f
		}
	}
	return nil
}

// observe takes over what an agent says of a fault.
func observe(x *v1alpha1.ChaosTargetStatus, f *agentpb.Fault) {
	if f.GetStarted().IsValid() && f.GetStarted().AsTime().Unix() > 0 {
		x.StartedAt = micro(f.GetStarted().AsTime())
	}
	if f.GetDeadline().IsValid() && f.GetDeadline().AsTime().Unix() > 0 {
		x.Deadline = micro(f.GetDeadline().AsTime())
	}
	x.Hits = max(x.Hits, int64(f.GetHits()))
	x.Message = short(f.GetError())
	switch f.GetPhase() {
	case "active":
		x.State = v1alpha1.ChaosActive
	case "stuck":
		x.State = v1alpha1.ChaosStuck
	case "ended":
		x.State, x.Reason = v1alpha1.ChaosEnded, f.GetReason()
		x.Residue = lines(f.GetResidue(), 32)
		x.Recovered = f.GetVerified() && len(f.GetResidue()) == 0
		if f.GetEnded().IsValid() && f.GetEnded().AsTime().Unix() > 0 {
			x.EndedAt = micro(f.GetEnded().AsTime())
		}
		if !f.GetVerified() && x.Message == "" {
			x.Message = "its agent could not verify that everything reads as before"
		}
	}
}

// startLate fails a start that a controller left unfinished and that is too old
// to be carried on: what was resolved then may not hold any more.
func (t *run) startLate() {
	admittedAt := t.deadline().Add(-t.e.Spec.Duration.Duration - startAllowance)
	onTime := t.now.Sub(admittedAt) <= startWindow && !t.past(0)
	if !t.starting() || t.asked() || onTime {
		return
	}
	t.setActive(metav1.ConditionFalse, reasonStartFailed, "the controller was replaced before it had started the faults, and it is too late to go on")
}

// starting says that the experiment as a whole has not come into force yet.
func (t *run) starting() bool {
	c := meta.FindStatusCondition(t.e.Status.Conditions, v1alpha1.FaultActive)
	return c == nil || c.Reason == "Starting"
}

// act asks the agents for what is to be done now: to start, to go on, to end. It
// asks all of them at once. When a start fails on one, all are ended.
func (t *run) act(ctx context.Context) {
	starting := t.starting()
	if !t.ending() {
		t.eachLive(func(i int, x *v1alpha1.ChaosTargetStatus) {
			switch {
			case x.State == v1alpha1.ChaosPending:
				t.failed[i] = t.start(ctx, x, t.seen[i].Session)
			case x.State == v1alpha1.ChaosActive && t.renewDue(x):
				t.renew(ctx, x, t.seen[i].Session)
			}
		})
		if err := t.startError(); starting && err != nil {
			t.setActive(metav1.ConditionFalse, reasonStartFailed, err.Error())
		}
	}
	if !t.ending() {
		return
	}
	// What is in force ends at its deadline by itself. What may or may not have
	// been started has to be asked about.
	byItself := !t.asked() && !t.startFailed()
	t.eachLive(func(_ int, x *v1alpha1.ChaosTargetStatus) {
		if !byItself || x.State == v1alpha1.ChaosPending {
			t.withdraw(ctx, x)
		}
	})
}

// eachLive calls do for all targets at once that are not over, and waits.
func (t *run) eachLive(do func(i int, x *v1alpha1.ChaosTargetStatus)) {
	each(len(t.targets()), func(i int) {
		if x := &t.targets()[i]; !overOn(x) {
			do(i, x)
		}
	})
}

// startError is why the start failed, with all targets on which it did.
func (t *run) startError() error {
	var errs []string
	for i, err := range t.failed {
		// An agent that is just being connected to is asked in the next turn.
		if err != nil && !agentRefusal("", err).soon {
			errs = append(errs, fmt.Sprintf("pod %q: %s", t.targets()[i].Pod, fleet.Text(err)))
		}
	}
	for i := range t.targets() {
		if x := &t.targets()[i]; overOn(x) && t.failed[i] == nil {
			errs = append(errs, fmt.Sprintf("pod %q: the fault ended at once (%s)", x.Pod, x.Reason))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New("the fault was not started on all targets and is ended on the others: " + strings.Join(lines(errs, 8), "; "))
}

func (t *run) start(ctx context.Context, x *v1alpha1.ChaosTargetStatus, session uint64) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := t.agents.Apply(ctx, x.Node, session, request(t.e, x, t.deadline()))
	if err != nil {
		x.Message = short("not started: " + fleet.Text(err))
		return err
	}
	t.heard(x)
	x.Changes = lines(reply.GetChanges(), 16)
	observe(x, reply.GetFault())
	return nil
}

// renewDue says whether the lease of a fault is to be renewed in this turn. What
// counts is when its agent heard of it last, from this process: one that has just
// taken over renews at once.
func (t *run) renewDue(x *v1alpha1.ChaosTargetStatus) bool {
	if t.e.Spec.OnControlLoss == v1alpha1.ContinueUntilDeadline {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now.Sub(t.renewed[x.FaultUID]) >= renewEvery-renewEvery/10
}

// heard notes that an agent has the request of a fault.
func (t *run) heard(x *v1alpha1.ChaosTargetStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewed[x.FaultUID] = t.now
}

// renew repeats the request of a fault in the session in which it was seen in
// force: an agent that was restarted since must not begin it anew.
func (t *run) renew(ctx context.Context, x *v1alpha1.ChaosTargetStatus, session uint64) {
	err := error(&fleet.Error{Node: x.Node, Reason: fleet.Unreachable})
	if session != 0 {
		var reply *agentpb.ApplyReply
		ctx, cancel := context.WithTimeout(ctx, renewEvery)
		defer cancel()
		reply, err = t.agents.Apply(ctx, x.Node, session, request(t.e, x, t.deadline()))
		if err == nil {
			t.heard(x)
			observe(x, reply.GetFault())
			return
		}
	}
	x.Message = short("its lease was not renewed: " + fleet.Text(err))
	t.unheard.Store(true)
}

// withdraw ends the fault of one target. An agent that does not know it has none.
func (t *run) withdraw(ctx context.Context, x *v1alpha1.ChaosTargetStatus) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := t.agents.Apply(ctx, x.Node, 0, &agentpb.ApplyRequest{Uid: x.FaultUID, Withdraw: true})
	switch code := status.Code(err); {
	case err == nil:
		observe(x, reply.GetFault())
	case code == codes.InvalidArgument || code == codes.NotFound:
		if x.State == v1alpha1.ChaosPending && x.StartedAt == nil {
			x.State = v1alpha1.ChaosFailed
			if x.Message == "" {
				x.Message = "not started"
			}
			return
		}
		x.State, x.Reason = v1alpha1.ChaosEnded, reasonUnknown
	default:
		x.Message = short("not ended by request: " + fleet.Text(err))
	}
}

// next is when to look again.
func (t *run) next() time.Duration {
	switch {
	case t.past(lateAfter) && !t.e.Spec.Abort:
		return 10 * time.Second
	case t.ending():
		return time.Second
	}
	left := t.deadline().Sub(t.now) + 100*time.Millisecond
	if t.awaited > 0 || t.unheard.Load() {
		return time.Second
	}
	for i := range t.targets() {
		if t.targets()[i].State == v1alpha1.ChaosPending {
			return min(left, time.Second)
		}
	}
	if t.e.Spec.OnControlLoss != v1alpha1.ContinueUntilDeadline {
		return min(left, renewEvery)
	}
	return left
}

// announce tells people of what turned.
func (t *run) announce(e *v1alpha1.ChaosExperiment) {
	if t.before.Status.Phase == e.Status.Phase {
		return
	}
	kind := corev1.EventTypeNormal
	if e.Status.Phase == v1alpha1.ExperimentFailed {
		kind = corev1.EventTypeWarning
	}
	note := e.Status.Fault
	for _, name := range []string{v1alpha1.FaultActive, v1alpha1.RecoveryVerified} {
		if c := meta.FindStatusCondition(e.Status.Conditions, name); c != nil {
			note += "; " + c.Message
		}
	}
	t.events.Eventf(e, nil, kind, string(e.Status.Phase), "Experiment", "%s", short(note))
}
