package digest

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/mooring-dev/mooring/agent/state"
)

// Text is a text that the kernel has no number for.
type Text struct {
	ID   string
	Hash uint64
	// Text is read during the call only.
	Text []byte
}

// Statement is one finished statement.
type Statement struct {
	ID string
	// Hash names its text, Number is what the kernel counted it under. With
	// Uncounted it counted nothing and Count does.
	Hash      uint64
	Number    uint32
	Uncounted bool
	Operation string
	Failed    bool
	Duration  time.Duration
	Rows      uint64
}

// Known is what the table knows of a statement's digest.
type Known struct {
	// Digest is state.Digest.ID: of the statement itself, shown or not.
	Digest string
	// Text is without literals; empty where it is not known or not to be kept.
	Text string
	// Privileges says that the statement changes who may do what. It is known
	// where the text came here, whether that is kept or not.
	Privileges bool
}

// Text gives the text's digest a number, and the text that number in the kernel.
func (t *Table) Text(x Text) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stats.Texts++
	in, ok := t.instances[x.ID]
	if !ok || in.Off {
		return
	}
	key := in.Lexer.Key(x.Text)
	e, ok := in.byKey[key]
	if !ok {
		again := t.recent.sighted(in.serial, key)
		if e, ok = t.admit(in, key, again); !ok {
			t.overflow(in, x, key, again)
			return
		}
	}
	e.active = t.now()
	in.describe(e, x.Text)
	t.recent.remember(in.serial, x.Hash, sighting{key, e.privileges})
	t.mapped(t.kernel.MapText(x.ID, x.Hash, e.number))
}

// overflow counts a text for which there is no room as "other". One that is new
// gets no number at first: most are never seen again, and one that is may take
// the place of another digest.
func (t *Table) overflow(in *instance, x Text, key uint64, again bool) {
	t.stats.Overflowed++
	t.recent.remember(in.serial, x.Hash, sighting{key, in.Lexer.Privileges(x.Text)})
	if again {
		t.mapped(t.kernel.MapText(x.ID, x.Hash, NumberOther))
	}
}

// mapped counts what became of a call of the kernel.
func (t *Table) mapped(err error) {
	switch {
	case err == nil:
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.ENOSPC):
		t.stats.KernelFull++
	default:
		t.stats.KernelErrors++
	}
}

// describe notes what the text tells of a digest that is not described.
func (in *instance) describe(e *entry, text []byte) {
	if e.described {
		return
	}
	e.described = true
	e.privileges = in.Lexer.Privileges(text)
	if in.Lexer.Sensitive(text) {
		return
	}
	normalized := in.Lexer.AppendNormalized(nil, text, maxText)
	if e.operation == "" && !in.NotSQL {
		e.operation = operationOf(normalized)
	}
	if !in.NoText {
		e.text = cut(strings.ToValidUTF8(string(normalized), "\uFFFD"))
	}
}

// cut shortens a text to maxText bytes, between characters.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// Count counts a statement that the kernel did not, and returns what is known of
// its digest in either case.
func (t *Table) Count(s Statement) Known {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stats.Records++
	in, ok := t.instances[s.ID]
	if !ok {
		return Known{Digest: state.DigestUnsampled}
	}
	if !s.Uncounted {
		return t.known(in, s)
	}
	now := t.now()
	one := counts{rows: s.Rows, sum: max(0, s.Duration)}
	if s.Failed {
		one.errors = 1
	}
	one.buckets.add(bucketOf(s.Duration), 1)
	sighted, known := t.recent.find(in.serial, s.Hash)
	if !known || in.Off {
		in.unsampled.add(&one)
		return Known{Digest: state.DigestUnsampled}
	}
	e, ok := in.byKey[sighted.key]
	if !ok {
		in.other.add(&one)
		return sighted.known()
	}
	e.pending.add(&one)
	e.active = now
	e.is(s.Operation)
	return e.known()
}

// is notes the operation, where the text does not tell it.
func (e *entry) is(operation string) {
	if e.operation == "" || e.operation == "other" {
		e.operation = operation
	}
}

// known looks a counted statement up.
func (t *Table) known(in *instance, s Statement) Known {
	if e, ok := in.byNumber[s.Number]; ok {
		e.is(s.Operation)
		return e.known()
	}
	switch s.Number {
	case NumberNone:
		return Known{Digest: state.DigestNone}
	case NumberTLS:
		return Known{Digest: state.DigestTLS}
	case NumberUnsampled:
		return Known{Digest: state.DigestUnsampled}
	}
	if sighted, ok := t.recent.find(in.serial, s.Hash); ok {
		return sighted.known()
	}
	return Known{Digest: state.DigestOther}
}

func (e *entry) known() Known {
	return Known{Digest: name(e.key), Text: e.text, Privileges: e.privileges}
}

// name is state.Digest.ID of a key.
func name(key uint64) string { return fmt.Sprintf("%016x", key) }

// maxRecent bounds each generation of recent.
const maxRecent = 16384

// recentKey is a text of an instance.
type recentKey struct {
	serial uint32
	hash   uint64
}

// sighting is what is remembered of a text.
type sighting struct {
	key        uint64
	privileges bool
}

func (s sighting) known() Known { return Known{Digest: name(s.key), Privileges: s.privileges} }

// recent remembers the texts that came lately, for records that are still under
// way, and which keys found no room.
type recent struct {
	// young and old are the two generations.
	young, old map[recentKey]sighting
	doors      [4096]recentKey
}

func (r *recent) remember(serial uint32, hash uint64, s sighting) {
	if r.young == nil || len(r.young) >= maxRecent {
		r.old, r.young = r.young, make(map[recentKey]sighting)
	}
	r.young[recentKey{serial, hash}] = s
}

func (r *recent) find(serial uint32, hash uint64) (sighting, bool) {
	k := recentKey{serial, hash}
	if s, ok := r.young[k]; ok {
		return s, true
	}
	s, ok := r.old[k]
	return s, ok
}

// sighted notes a key without a digest and says whether it came before. It may
// forget, and never says so of one that did not come.
func (r *recent) sighted(serial uint32, key uint64) bool {
	k := recentKey{serial, key}
	door := &r.doors[key%uint64(len(r.doors))]
	was := *door == k
	*door = k
	return was
}
