package record

import "slices"

// buffered bounds the records that wait for a subscriber.
const buffered = 1024

// Delivery is a record for a subscriber.
type Delivery struct {
	Record
	// Lost is how many it missed since the one before: over its buffer, or over
	// the rate of their instance.
	Lost uint64
}

// Subscription is one subscriber's. Only C is for its reader.
type Subscription struct {
	// C brings the records.
	C        <-chan Delivery
	out      chan Delivery
	instance string
	kinds    []string
	lost     uint64 // guarded by Recorder.mu
}

// Subscribe begins to deliver records of an instance, by ID (of all when empty),
// and of some kinds (of all when empty). cancel ends that.
func (r *Recorder) Subscribe(instance string, kinds []string) (s *Subscription, cancel func()) {
	out := make(chan Delivery, buffered)
	s = &Subscription{C: out, out: out, instance: instance, kinds: slices.Clone(kinds)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribers[s] = true
	return s, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subscribers, s)
	}
}

// wants says that a record is of what was subscribed to.
func (s *Subscription) wants(rec *Record) bool {
	return (s.instance == "" || s.instance == rec.Instance) && (len(s.kinds) == 0 || slices.Contains(s.kinds, rec.Kind))
}

// miss counts a record that nobody gets. The caller holds Recorder.mu.
func (s *Subscription) miss(rec *Record) {
	if s.wants(rec) {
		s.lost++
	}
}

// offer returns 1 when the subscriber wanted the record and had no room. The
// caller holds Recorder.mu.
func (s *Subscription) offer(rec Record) uint64 {
	if !s.wants(&rec) {
		return 0
	}
	select {
	case s.out <- Delivery{Record: rec, Lost: s.lost}:
		s.lost = 0
		return 0
	default:
		s.lost++
		return 1
	}
}
