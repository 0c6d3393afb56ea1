package digest

import (
	"fmt"
	"sync"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// Numbers that the kernel counts under, those of package bpf. It gives the first
// three itself; named digests are numbered from FirstNumber up.
const (
	NumberNone      uint32 = 1
	NumberTLS       uint32 = 2
	NumberUnsampled uint32 = 3
	NumberOther     uint32 = 4
	FirstNumber     uint32 = 16
)

// DefaultTop is how many digests an instance shows for the time they take, and
// MaxTop the most it may.
const (
	DefaultTop = 100
	MaxTop     = state.MaxTop
)

// Sticky is how long a digest stays shown at least.
const Sticky = 30 * time.Minute

const (
	// guaranteed is how many digests are shown for their errors, and how many
	// for their longest statement.
	guaranteed = 20
	// maxShown bounds the digests that a node shows.
	maxShown = 3000
	// maxNumbers bounds the digests of an instance, maxNodeNumbers those of all:
	// the kernel has room for 16,384, in which the kernel's own must fit too.
	maxNumbers     = 1000
	maxNodeNumbers = 12000
	// maxText bounds a normalised text, in bytes.
	maxText = 1024
	// idleAfter is when a digest may be given up for another.
	idleAfter = 10 * time.Minute
	// replaceAfter is when it may be given up for one that came twice.
	replaceAfter = time.Minute
	// maxReplaced is how many are given up at once then, as looking is dear.
	maxReplaced = 16
)

// Kernel is the part of the statement timer that counts by number.
type Kernel interface {
	// MapText gives a text's hash a number.
	MapText(id string, hash uint64, number uint32) error
	// Digests returns all of a server's counters.
	Digests(id string) ([]Counts, error)
	// DropDigest removes a number and returns what it had counted.
	DropDigest(id string, number uint32) (Counts, error)
}

// Counts is what the kernel counted under one number.
type Counts struct {
	Number       uint32
	Errors, Rows uint64
	// Sum is the time of all statements.
	Sum time.Duration
	// Native counts statements by the buckets of schema 1.
	Native map[int]uint64
}

func (k *Counts) counts() *counts {
	c := &counts{errors: k.Errors, rows: k.Rows, sum: k.Sum}
	for i, n := range k.Native {
		c.buckets.add(min(max(i, lowestBucket), highestBucket), n)
	}
	return c
}

// Lexer reads texts of one dialect. It must not keep them.
type Lexer interface {
	// Key is the same for texts that differ in literals, case and blanks alone.
	Key(text []byte) uint64
	// AppendNormalized appends the text without literals, at most limit bytes.
	AppendNormalized(dst, text []byte, limit int) []byte
	// Sensitive says that the text carries a secret, such as CREATE USER.
	Sensitive(text []byte) bool
	// Privileges says that the statement changes who may do what.
	Privileges(text []byte) bool
}

// Server is an instance and how its statements are treated.
type Server struct {
	ID    string
	Lexer Lexer
	// Off shows no digests: everything with a text is "other" or "unsampled".
	Off bool
	// Top is how many digests are shown, 0 to MaxTop; with 0 none is.
	Top int
	// NoText keeps no texts.
	NoText bool
	// NotSQL says that a text does not tell the operation; records do.
	NotSQL bool
}

// Stats counts what a Table did since it was made.
type Stats struct {
	// Texts and Records came.
	Texts, Records uint64
	// Overflowed texts counted as "other" for lack of room.
	Overflowed uint64
	// Evicted digests were given up for others.
	Evicted uint64
	// KernelFull is how often the kernel had no room for a text, KernelErrors how
	// often it refused something for another reason.
	KernelFull, KernelErrors uint64
	// Numbers are the digests that have a number now, Shown those shown.
	Numbers, Shown int
}

// Table is all digests of a node. It is safe for concurrent use: events come
// from one goroutine, ticks from another. Each call blocks for short calls of the
// kernel alone.
type Table struct {
	kernel Kernel
	now    func() time.Time

	mu        sync.Mutex
	instances map[string]*instance
	// next is the next number. Numbers are not used again: a text that the
	// kernel still holds under an old one must not count under another digest.
	next    uint32
	serial  uint32 // of the next instance
	numbers int    // of all instances
	ticks   uint64
	recent  recent
	stats   Stats
}

// Option changes a default of New.
type Option func(*Table)

// WithClock replaces time.Now, for tests.
func WithClock(now func() time.Time) Option { return func(t *Table) { t.now = now } }

// New returns an empty table.
func New(kernel Kernel, opts ...Option) *Table {
	t := &Table{kernel: kernel, now: time.Now, instances: map[string]*instance{}, next: FirstNumber}
	for _, o := range opts {
		o(t)
	}
	return t
}

// instance is the digests of one Server.
type instance struct {
	Server
	serial   uint32
	byKey    map[uint64]*entry
	byNumber map[uint32]*entry
	// other, unsampled, tls and none are shown; seen is what the kernel had
	// counted under the numbers of no entry, when it was last read.
	other, unsampled, tls, none counts
	seen                        map[uint32]*stray
	shown                       int
	// noIdle and noStale say that nothing idle for idleAfter, or replaceAfter,
	// was found since the last tick.
	noIdle, noStale bool
	// budget and chosen are of the last choice; grown says that there are other
	// digests since.
	budget int
	chosen time.Time
	grown  bool
}

// stray is a number that no entry has.
type stray struct {
	counts
	read uint64 // Table.ticks
}

// entry is one digest.
type entry struct {
	key       uint64
	number    uint32
	text      string
	operation string
	// described says that text and operation are what can be known of them.
	described bool
	// privileges says that it changes who may do what.
	privileges bool
	// kernel is what the kernel had counted when it was last read, pending what
	// came since the last tick, counted what is shown.
	kernel, pending, counted counts
	read                     uint64 // Table.ticks
	shown                    bool
	reason                   int // to be shown
	since                    time.Time
	active                   time.Time // last seen at work
	// time, errors and peak (of the longest statement's bucket, from 1) decide
	// what is shown; the first two fade.
	time, errors float64
	faded        time.Time
	peak         int
	peaked       time.Time
}

// Watch says which instances there are. Those that are gone are forgotten, and
// settings may have changed. The kernel is told of new ones afterwards, so that no
// event comes of one that is not known here.
func (t *Table) Watch(servers []Server) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	live := make(map[string]bool, len(servers))
	for _, s := range servers {
		if s.Lexer == nil || s.Top < 0 || s.Top > MaxTop {
			return fmt.Errorf("watch digests of %q: top %d is not 0 to %d, or no lexer is given", s.ID, s.Top, MaxTop)
		}
		live[s.ID] = true
	}
	for id, in := range t.instances {
		if !live[id] {
			t.numbers -= len(in.byKey)
			delete(t.instances, id)
		}
	}
	for _, s := range servers {
		t.set(s)
	}
	return nil
}

// set makes an instance or changes its settings.
func (t *Table) set(s Server) {
	in, ok := t.instances[s.ID]
	if !ok {
		t.serial++
		t.instances[s.ID] = &instance{
			Server: s, serial: t.serial, byKey: map[uint64]*entry{}, byNumber: map[uint32]*entry{}, seen: map[uint32]*stray{},
		}
		return
	}
	if in.NoText || in.Off {
		for _, e := range in.byKey {
			e.described = false
		}
	}
	in.Server = s
	if s.NoText || s.Off {
		for _, e := range in.byKey {
			e.text = ""
		}
	}
}

// Stats returns what was done so far.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Numbers = t.numbers
	for _, in := range t.instances {
		s.Shown += in.shown
	}
	return s
}
