package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	"github.com/mooring-dev/mooring/agent/pods"
)

// keptVersion is the form of both files below. A file of another form counts as
// damaged: what a newer agent meant by it is not known here.
const keptVersion = 1

// retrySeen is how long a write of seenFile that failed is not tried again.
const retrySeen = 30 * time.Second

// keptPolicy is what policy.json holds.
type keptPolicy struct {
	Version int `json:"version"`
	// Sum is the SHA-256 of Policy as it stands there: a flipped bit may make
	// another valid name.
	Sum    string          `json:"sum"`
	Policy json.RawMessage `json:"policy"`
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// write keeps a policy durably.
func (p *policy) write(path string) error {
	content, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode policy: %w", err)
	}
	data, err := json.Marshal(keptPolicy{Version: keptVersion, Sum: sumOf(content), Policy: content})
	if err != nil {
		return fmt.Errorf("encode policy: %w", err)
	}
	return writeDurably(path, append(data, '\n'))
}

// readPolicy returns the policy kept at path, nil without an error where none
// is. A damaged file is renamed, so that a person can look at it later.
func readPolicy(path string) (*policy, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy kept in %s: %w", path, err)
	}
	p, err := parsePolicy(data)
	if err == nil {
		return p, nil
	}
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000Z")
	if renameErr := os.Rename(path, aside); renameErr != nil {
		return nil, fmt.Errorf("the policy kept in %s is damaged (%w) and could not be set aside: %w", path, err, renameErr)
	}
	return nil, fmt.Errorf("the kept policy is damaged (%w); the file is now %s", err, aside)
}

// parsePolicy checks everything that was checked when the policy came. What an
// agent of another version took and this one cannot follow is left out.
func parsePolicy(data []byte) (*policy, error) {
	var kept keptPolicy
	if err := json.Unmarshal(data, &kept); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	if kept.Version != keptVersion {
		return nil, fmt.Errorf("its version is %d, not %d", kept.Version, keptVersion)
	}
	if kept.Sum != sumOf(kept.Policy) {
		return nil, errors.New("its sum does not fit its content")
	}
	p := new(policy)
	if err := json.Unmarshal(kept.Policy, p); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	p.sift()
	return p, nil
}

// seenFile keeps where the servers of declared pods were found. It is written
// only when that changed. It is used by one goroutine.
type seenFile struct {
	saved map[string]pods.Seen
	// failed is when the last write failed; zero when it did not.
	failed time.Time
}

// keptSeen is what seen.json holds.
type keptSeen struct {
	Version int                  `json:"version"`
	Seen    map[string]pods.Seen `json:"seen"`
}

// read returns what is kept at path, nothing where that is not readable: all of
// it can be found out again once the API server is there.
func (f *seenFile) read(path string) (map[string]pods.Seen, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var kept keptSeen
	if err := json.Unmarshal(data, &kept); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	if kept.Version != keptVersion {
		return nil, fmt.Errorf("version of %s is %d, not %d", path, kept.Version, keptVersion)
	}
	f.saved = maps.Clone(kept.Seen)
	maps.DeleteFunc(kept.Seen, func(_ string, s pods.Seen) bool { return !isName(s.Container) })
	return kept.Seen, nil
}

// save keeps seen at path, and returns an error at most every retrySeen.
func (f *seenFile) save(path string, seen map[string]pods.Seen) error {
	if maps.Equal(f.saved, seen) || !f.failed.IsZero() && time.Since(f.failed) < retrySeen {
		return nil
	}
	data, err := json.Marshal(keptSeen{Version: keptVersion, Seen: seen})
	if err == nil {
		err = writeDurably(path, append(data, '\n'))
	}
	if err != nil {
		f.failed = time.Now()
		return fmt.Errorf("keep where declared pods are: %w", err)
	}
	f.saved, f.failed = seen, time.Time{}
	return nil
}
