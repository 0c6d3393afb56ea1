package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/mooring-dev/mooring/agent/active"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// maxDeclared bounds the instances declared on one node.
	maxDeclared = 4096
	// maxCluster bounds the name of a cluster, in bytes.
	maxCluster = 253
)

// podSource is the part of pods.Kubernetes that follows declarations.
type podSource interface {
	Declare(declared []state.Declared)
	Remember(seen map[string]pods.Seen)
	Seen() map[string]pods.Seen
	Synced() error
}

// desired is what the node's pods are declared to be.
type desired struct {
	// set serialises SetPolicy, which waits for the disk.
	set sync.Mutex
	// unsure says that the file may differ from what is in force. Guarded by set.
	unsure bool
	// policy is in force, nil before the first.
	policy atomic.Pointer[policy]
	// note says what was wrong with the policy kept on disk.
	note atomic.Pointer[string]
	// changed asks for a look at the node out of turn.
	changed atomic.Bool
	// seen is what seenFile holds. Only follow's goroutine uses it.
	seen seenFile
}

// policy is one content of SetPolicy, sorted by pod uid.
type policy struct {
	Digest   string           `json:"digest"`
	Declared []state.Declared `json:"declared"`
}

func (p *policy) equal(o *policy) bool {
	return p != nil && p.Digest == o.Digest && slices.Equal(p.Declared, o.Declared)
}

// SetPolicy makes declared the whole of what this node's pods are declared to
// be, in place of what it was. It is on the disk before it takes effect, so
// that a restart needs neither controller nor API server to go on with it. The
// same digest and content again writes nothing. With dryRun it is only checked.
//
// An error that wraps ErrInvalid names what is wrong with the content; one that
// wraps ErrRefused says why it could not be kept, and the policy before stays
// in force. It blocks for the disk. declared is not kept.
func (a *Agent) SetPolicy(ctx context.Context, digest string, declared []state.Declared, dryRun bool) error {
	next := &policy{Digest: digest, Declared: slices.Clone(declared)}
	slices.SortFunc(next.Declared, func(x, y state.Declared) int { return strings.Compare(x.PodUID, y.PodUID) })
	if err := next.check(); err != nil {
		return invalid(fmt.Errorf("policy %q: %w", digest, err))
	}
	if dryRun {
		return nil
	}
	d := &a.desired
	d.set.Lock()
	defer d.set.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.policy.Load().equal(next) && !d.unsure {
		return nil
	}
	if err := next.write(a.policyPath()); err != nil {
		d.unsure = true
		return refused(fmt.Errorf("keep policy %q: %w; the policy before stays in force, see that the disk of %s has room and is writable", digest, err, a.cfg.StateDir))
	}
	d.unsure = false
	d.note.Store(nil)
	a.log.Info("policy in force", "component", "agent", "digest", digest, "instances", len(next.Declared))
	a.obey(next)
	return nil
}

// obey puts a policy into force.
func (a *Agent) obey(p *policy) {
	a.desired.policy.Store(p)
	if a.pods != nil {
		a.pods.Declare(p.Declared)
	}
	a.desired.changed.Store(true)
}

// loadPolicy puts into force what an earlier agent kept. What cannot be read is
// set aside and reported, and then no policy is in force: nothing on the node
// is changed for that.
func (a *Agent) loadPolicy() {
	if a.pods != nil {
		seen, err := a.desired.seen.read(a.seenPath())
		if err != nil {
			a.log.Warn("where declared pods were is not known", "component", "agent", "err", err)
		}
		a.pods.Remember(seen)
	}
	p, err := readPolicy(a.policyPath())
	if err != nil {
		note := fmt.Sprintf("no policy is in force until the controller sends it again: %s", oneLine(err))
		a.desired.note.Store(&note)
		a.log.Error("policy kept on disk is not followed", "component", "agent", "err", err)
		return
	}
	if p != nil {
		a.log.Info("policy in force", "component", "agent", "digest", p.Digest, "instances", len(p.Declared), "from", a.policyPath())
		a.obey(p)
	}
}

// desiredNotes is what the snapshot's Unresolved is to say of the policy.
func (a *Agent) desiredNotes() []string {
	var notes []string
	if n := a.desired.note.Load(); n != nil {
		notes = append(notes, *n)
	}
	if p := a.desired.policy.Load(); p != nil && a.pods == nil && len(p.Declared) > 0 {
		notes = append(notes, fmt.Sprintf("%d pods are declared and this agent does not look at pods: start it with --kubernetes", len(p.Declared)))
	}
	return notes
}

// policyDigest names the policy in force, "" before the first.
func (a *Agent) policyDigest() string {
	if p := a.desired.policy.Load(); p != nil {
		return p.Digest
	}
	return ""
}

func (a *Agent) policyPath() string { return filepath.Join(a.cfg.StateDir, "policy.json") }
func (a *Agent) seenPath() string   { return filepath.Join(a.cfg.StateDir, "seen.json") }

// check returns the first thing that is wrong with a policy. Its names become
// parts of paths and of ids.
func (p *policy) check() error {
	if !madeOf(p.Digest, 128, "._:+=-") {
		return errors.New("the digest must be 1 to 128 letters, digits or ._:+=-")
	}
	if len(p.Declared) > maxDeclared {
		return fmt.Errorf("it declares %d instances, more than the %d a node may have", len(p.Declared), maxDeclared)
	}
	uids, names := map[string]string{}, map[string]bool{}
	for _, d := range p.Declared {
		name := d.Namespace + "/" + d.Pod
		if err := checkDeclared(d); err != nil {
			return fmt.Errorf("declared pod %q: %w", name, err)
		}
		if other, ok := uids[d.PodUID]; ok {
			return fmt.Errorf("declared pods %q and %q have the same uid %q", other, name, d.PodUID)
		}
		if names[name] {
			return fmt.Errorf("pod %q is declared twice", name)
		}
		uids[d.PodUID], names[name] = name, true
	}
	return nil
}

// checkDeclared returns what is wrong with one declaration.
func checkDeclared(d state.Declared) error {
	namespace, resource, ok := strings.Cut(d.Policy, "/")
	switch {
	case !isName(d.Namespace):
		return fmt.Errorf("namespace %q is not a DNS name", d.Namespace)
	case !isName(d.Pod):
		return fmt.Errorf("pod name %q is not a DNS name", d.Pod)
	case !madeOf(d.PodUID, 128, "_.-") || strings.HasPrefix(d.PodUID, "."):
		return fmt.Errorf("pod uid %q cannot be part of a path", d.PodUID)
	case d.Container != "" && !isName(d.Container):
		return fmt.Errorf("container name %q is not a DNS name", d.Container)
	case !ok || !isName(namespace) || !isName(resource):
		return fmt.Errorf("policy %q is not namespace/name", d.Policy)
	case !slices.Contains(pods.Engines(), d.Engine):
		return fmt.Errorf("engine %q is none of %q", d.Engine, pods.Engines())
	case d.NUMA != state.NUMANone && d.NUMA != state.NUMASingleNode:
		return fmt.Errorf("numa %q is neither %q nor %q", d.NUMA, state.NUMANone, state.NUMASingleNode)
	case !slices.Contains([]string{"", "primary", "replica"}, d.Role):
		return fmt.Errorf("role %q is neither primary nor replica, nor empty", d.Role)
	case d.Probe != (state.ProbeSpec{}) && active.CheckSpec(d.Probe) != nil:
		return fmt.Errorf("probe: %w", active.CheckSpec(d.Probe))
	case d.Probe.Secret != "" && !isName(d.Probe.Secret):
		return fmt.Errorf("secret name %q is not a DNS name", d.Probe.Secret)
	case len(d.Cluster) > maxCluster || !utf8.ValidString(d.Cluster) || strings.ContainsFunc(d.Cluster, unicode.IsControl):
		return fmt.Errorf("cluster %q is not a name of at most %d bytes", d.Cluster, maxCluster)
	}
	if err := checkStatements(d.Statements); err != nil {
		return fmt.Errorf("statements: %w", err)
	}
	return nil
}

// isName reports whether s is a name as Kubernetes has them: a DNS subdomain.
func isName(s string) bool {
	return madeOf(s, 253, ".-") && s == strings.ToLower(s) && !strings.ContainsAny(s[:1]+s[len(s)-1:], ".-")
}

// madeOf reports whether s is 1 to longest ASCII letters, digits and bytes of
// more.
func madeOf(s string, longest int, more string) bool {
	return s != "" && len(s) <= longest && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(more, r))
	})
}
