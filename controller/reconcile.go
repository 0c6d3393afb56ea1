package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/controller/fleet"
)

// agents is what the reconcilers need of the agents; see fleet.Fleet.
type agents interface {
	Status(node string) (fleet.Status, error)
	Apply(ctx context.Context, node string, session uint64, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error)
}

// reconciler brings one key at a time to where it is to be. It is safe for
// concurrent use as long as no key is given to two calls at once.
type reconciler struct {
	// kube reads from the cache and writes to the API server.
	kube client.Client
	// live reads from the API server.
	live client.Reader
	// endpoints is called with the agents there are.
	endpoints func([]fleet.Endpoint)
	agents    agents
	events    events.EventRecorder
	metrics   *metrics
	log       *slog.Logger
	now       func() time.Time
	place     agentPlace

	// admission is held from the moment other experiments or resizes are counted
	// until one's own share is written.
	admission sync.Mutex

	mu sync.Mutex
	// since is when this term began: agents are only being connected then, and
	// what has waited for a controller waits a little longer for them.
	since time.Time
	// renewed is when the lease of a fault was renewed last, by its uid.
	renewed map[string]time.Time
	// told is what the agents were told in this term, by node.
	told map[string]told
}

// termBegins notes the beginning of a term.
func (r *reconciler) termBegins() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.told = r.now(), nil
}

// waited is for how long this controller has known of what was created at a time.
func (r *reconciler) waited(created time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.After(created) {
		created = r.since
	}
	return r.now().Sub(created)
}

// reconcile looks at one key and returns after how long to look again, 0 for not
// before something happens.
func (r *reconciler) reconcile(ctx context.Context, k key) (time.Duration, error) {
	switch k.kind {
	case kindPolicy:
		return r.policy(ctx, k)
	case kindChaos:
		return r.chaos(ctx, k)
	case kindResize:
		return r.resize(ctx, k)
	case kindNode:
		return r.node(ctx, k.name)
	case kindAgents:
		return 0, r.findAgents(ctx)
	}
	return 0, fmt.Errorf("unknown kind of key %q", k.kind)
}

// get reads an object from the cache; false means that it is gone.
func (r *reconciler) get(ctx context.Context, k key, o client.Object) (bool, error) {
	err := r.kube.Get(ctx, k.object(), o)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s %q: %w", k.kind, k.object(), err)
	}
	return true, nil
}

// writeStatus patches the status of after where it differs from before, which it
// must have been copied from. It fails when the object changed meanwhile.
func (r *reconciler) writeStatus(ctx context.Context, before, after client.Object) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.kube.Status().Patch(ctx, after, patch); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

// refusal is why something is not done, in the form of a condition.
type refusal struct {
	reason  string
	message string
	// soon says that it may well be otherwise in a moment: a policy that its
	// agents are just taking up, an agent that is being connected to.
	soon bool
}

func refuse(reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...)}
}

// refuseSoon is a refusal that a short wait may cure.
func refuseSoon(reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, message: fmt.Sprintf(format, args...), soon: true}
}

// condition makes a condition for meta.SetStatusCondition.
func condition(kind string, status metav1.ConditionStatus, generation int64, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, ObservedGeneration: generation, Reason: reason, Message: message}
}

// short cuts a text to what a message in a status may hold.
func short(s string) string {
	const most = 1024
	if len(s) <= most {
		return s
	}
	s = s[:most-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// micro is t as a status holds it.
func micro(t time.Time) *metav1.MicroTime {
	m := metav1.NewMicroTime(t.UTC().Truncate(time.Microsecond))
	return &m
}
