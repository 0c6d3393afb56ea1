package trend

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// The size of a history: ten minutes in fine steps and five hours in coarse
// ones. With 50 instances that is about 12 MB when it is full, see the test.
const (
	Step       = 10 * time.Second
	finePoints = 60
	perCoarse  = 30
	coarse     = 60
	// Digests is how many digests a step names.
	Digests = 12
	// MaxGap is how far apart two looks may be for a step between them: what is
	// known of the two ends of a longer one says nothing of the time between.
	MaxGap = 3 * Step
	// maxInstances and keepGone bound what pods that come and go leave behind.
	maxInstances = 256
	keepGone     = time.Hour
)

// ErrUnknown is returned for an instance of which there is no history yet.
var ErrUnknown = errors.New("no history yet")

// ring is one instance's history.
type ring struct {
	last  Sample
	seen  time.Time
	high  Gauges
	owner Owner
	// fine and coarse are in order; merging are fine steps on their way to
	// becoming one coarse step.
	fine, merging, coarse []Summary
}

func (r *ring) push(s Summary) {
	r.fine = append(r.fine, s)
	if len(r.fine) <= finePoints {
		return
	}
	r.merging = append(r.merging, r.fine[0])
	r.fine = append(r.fine[:0], r.fine[1:]...)
	if len(r.merging) < perCoarse {
		return
	}
	r.coarse = append(r.coarse, Merge(r.merging, Digests))
	clear(r.merging)
	r.merging = r.merging[:0]
	if len(r.coarse) > coarse {
		r.coarse = append(r.coarse[:0], r.coarse[1:]...)
	}
}

// History is what is known of one instance's last hours.
type History struct {
	ID, Name, Engine string
	// Owner says who may change its limits.
	Owner Owner
	// Points follow one another without overlap, the newest last; older ones are
	// longer. Between two there may be a gap, in which the instance was away or
	// nobody looked.
	Points []Summary
	// Texts are those of the digests that are counted now, by ID.
	Texts map[string]string
}

// Owner is the pod that an instance is of, and the policy, "namespace/name", that
// selects it; both are empty outside Kubernetes.
type Owner struct {
	Namespace, Pod, Policy string
	// Kubelet says that the pod's kubelet writes its limits, or may.
	Kubelet bool
}

func ownerOf(s *state.Snapshot, in *state.InstanceStatus) Owner {
	o := Owner{Namespace: in.Namespace, Pod: in.Pod}
	if in.Declared != nil {
		o.Policy = in.Declared.Policy
	}
	// A server that nothing declares may be in a pod as well.
	inPod := in.Source == "kubernetes" || s.LimitsWriter != "" && strings.Contains(in.Cgroup.Path, "kubepods")
	o.Kubelet = inPod && s.LimitsWriter != "agent"
	return o
}

// Book keeps the histories of a node's instances. Its methods are safe for
// concurrent use.
type Book struct {
	mu    sync.Mutex
	rings map[string]*ring
}

// NewBook returns an empty book.
func NewBook() *Book { return &Book{rings: map[string]*ring{}} }

// Add takes note of a snapshot. In most ticks only gauges are looked at.
func (b *Book) Add(s *state.Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range s.Instances {
		b.add(s, &s.Instances[i])
	}
	for id, r := range b.rings {
		if s.Time.Sub(r.seen) > keepGone {
			delete(b.rings, id)
		}
	}
	for len(b.rings) > maxInstances {
		b.dropOldest()
	}
}

func (b *Book) add(s *state.Snapshot, in *state.InstanceStatus) {
	r := b.rings[in.ID]
	if r == nil {
		b.rings[in.ID] = &ring{last: SampleOf(s, in), seen: s.Time, owner: ownerOf(s, in)}
		return
	}
	r.seen, r.owner = s.Time, ownerOf(s, in)
	r.high = r.high.highest(gaugesOf(in))
	since := s.Time.Sub(r.last.Time)
	if since >= 0 && since < Step-Step/20 {
		return
	}
	now := SampleOf(s, in)
	follows := since > 0 && since <= MaxGap
	if follows && r.last.knowsMore(&now) {
		return // it is read again in the next tick, and the step is longer
	}
	if follows {
		step := Between(&r.last, &now, Digests)
		step.Gauges = step.Gauges.highest(r.high)
		r.push(step)
	}
	r.last, r.high = now, Gauges{}
}

// knowsMore says that something could be read for one sample and not for a later
// one.
func (s *Sample) knowsMore(later *Sample) bool {
	return s.Statements && !later.Statements || s.Limits.Known && !later.Limits.Known
}

// dropOldest forgets the instance that was not seen for the longest.
func (b *Book) dropOldest() {
	var oldest string
	for id, r := range b.rings {
		if o := b.rings[oldest]; o == nil || r.seen.Before(o.seen) || r.seen.Equal(o.seen) && id < oldest {
			oldest = id
		}
	}
	delete(b.rings, oldest)
}

// History returns a copy of the history of the instance of that ID.
func (b *Book) History(id string) (History, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.rings[id]
	if r == nil || len(r.fine) == 0 {
		return History{}, fmt.Errorf("%w of %q: the first step is over %v after the agent found it", ErrUnknown, id, Step)
	}
	h := History{ID: id, Name: r.last.Name, Engine: r.last.Engine, Owner: r.owner, Texts: map[string]string{}}
	h.Points = append(h.Points, r.coarse...)
	if len(r.merging) > 0 {
		h.Points = append(h.Points, Merge(r.merging, Digests))
	}
	h.Points = append(h.Points, r.fine...)
	for _, d := range r.last.Digests {
		if d.Text != "" {
			h.Texts[d.ID] = d.Text
		}
	}
	return h, nil
}
