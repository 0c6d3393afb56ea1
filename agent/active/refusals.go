package active

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// maxRefusals in a row end all attempts with a secret: one less than the three
	// after which servers are told to lock an account (FAILED_LOGIN_ATTEMPTS).
	maxRefusals = 2
	// confirmAfter is how long after the first refusal the same secret is tried
	// again at the earliest: the account may have been made, or have reached a
	// replica, only after the secret.
	confirmAfter = 10 * time.Minute
	// maxRemembered bounds the instances whose refused logins are remembered.
	maxRemembered = 4096
)

// refusals remembers which logins were refused, for the next agent as well.
type refusals struct {
	mu sync.Mutex
	// key keeps the fingerprints of secrets from being worth anything.
	key [32]byte
	by  map[string]refusal // by instance
	// save is given what the next agent is to have; nil keeps nothing.
	save func([]byte)
}

// refusal is what is remembered of one instance.
type refusal struct {
	// Secret is the fingerprint of what was refused last, at At. Count is how many
	// logins in a row were, whatever the secret.
	Secret string    `json:"secret"`
	Count  int       `json:"count"`
	At     time.Time `json:"at"`
}

// keptRefusals is the form in which they are kept.
type keptRefusals struct {
	Key     []byte             `json:"key"`
	Refused map[string]refusal `json:"refused"`
}

func newRefusals() *refusals {
	r := &refusals{by: map[string]refusal{}}
	// It never returns an error: a machine without randomness ends here.
	_, _ = rand.Read(r.key[:])
	return r
}

// restore takes over what an earlier agent kept; no data is nothing kept.
func (r *refusals) restore(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var k keptRefusals
	if err := json.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("read refused logins: %w", err)
	}
	if len(k.Key) != len(r.key) {
		return errors.New("read refused logins: they have no key")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key = [32]byte(k.Key)
	now := time.Now()
	for id, f := range k.Refused {
		if f.At.After(now) {
			f.At = now // the clock was set back; to wait anew is the safe reading
		}
		r.by[id] = f
	}
	r.bound()
	return nil
}

// fingerprint tells one content of a secret from another.
func (r *refusals) fingerprint(l *Login) string {
	h := hmac.New(sha256.New, r.key[:])
	for _, part := range [][]byte{[]byte(l.Username), l.Password, l.CA} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
		clear(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// judge says whether a login with that secret may be tried: now, after a while,
// or not any more.
func (r *refusals) judge(id, secret string) (wait time.Duration, stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.by[id]
	switch {
	case !ok || f.Secret != secret:
		return 0, false
	case f.Count >= maxRefusals:
		return 0, true
	}
	return max(0, confirmAfter-time.Since(f.At)), false
}

// refuse remembers a refusal. Where the account is locked already, the secret is
// not tried again. It blocks until that is kept.
func (r *refusals) refuse(id, secret string, locked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.by[id]
	f.Count++
	if locked {
		f.Count = max(f.Count, maxRefusals)
	}
	f.Secret, f.At = secret, time.Now()
	r.by[id] = f
	r.bound()
	r.keep()
}

// accept forgets the refusals of an instance that has let us in.
func (r *refusals) accept(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.by[id]; ok {
		delete(r.by, id)
		r.keep()
	}
}

// bound forgets the oldest beyond maxRemembered. It is called with mu held.
func (r *refusals) bound() {
	for len(r.by) > maxRemembered {
		delete(r.by, slices.MinFunc(slices.Collect(maps.Keys(r.by)), func(a, b string) int {
			return r.by[a].At.Compare(r.by[b].At)
		}))
	}
}

// keep is called with mu held, so that an older state never follows a newer one.
func (r *refusals) keep() {
	if r.save == nil {
		return
	}
	if data, err := json.Marshal(keptRefusals{Key: r.key[:], Refused: r.by}); err == nil {
		r.save(data) // texts, numbers and times of this age are always JSON
	}
}

// refused says whether the secret was refused so that it cannot be tried yet, or
// not any more.
func (w *worker) refused() (wait time.Duration, stopped bool) {
	return w.prober.refusals.judge(w.target.ID, w.secret)
}

// unable notes that no login can be tried, for the reason f or because it was
// refused. Whether the server is up is then what the connection
// without login has found, if there is one.
func (w *worker) unable(f *Failure, greeted bool) {
	if f != nil {
		w.failed(state.ProbeRead, 0, f)
	}
	wait, stopped := w.refused()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget()
	if greeted {
		up := true
		w.active.Up = &up
	}
	w.active.Stopped = ""
	switch {
	case f != nil: // what was refused is another matter
	case stopped:
		w.active.Stopped = "the login was refused: no more is tried until the secret's content changes"
	case wait > 0:
		w.active.Note = fmt.Sprintf("the login was refused: the same secret is tried once more, %v after that", confirmAfter)
	}
}

// missed takes note of a refusal that came as the connection was closed.
func (w *worker) missed(c *call) {
	var f *Failure
	if w.session == nil && c.out.session == nil && errors.As(c.out.err, &f) && f.Reason == ReasonAuth {
		w.prober.refusals.refuse(w.target.ID, w.secret, f.Locked)
	}
}
