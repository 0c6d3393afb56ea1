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
	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// maxDeclared bounds the instances declared on one node.
	maxDeclared = 4096
	// maxCluster bounds the name of a cluster, in bytes.
	maxCluster = 253
	// maxLeftOutText bounds what is said of one declaration that was left out, in
	// bytes, and maxLeftOutNotes how many are named in the snapshot.
	maxLeftOutText  = 1024
	maxLeftOutNotes = 128
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
	// Digest is the one it came with, and agentpb.Partial behind it where
	// declarations were left out.
	Digest   string           `json:"digest"`
	Declared []state.Declared `json:"declared"`
	// LeftOut says of each declaration that was left out what is wrong with it.
	LeftOut []string `json:"leftOut,omitempty"`
}

func (p *policy) equal(o *policy) bool {
	return p != nil && p.Digest == o.Digest && slices.Equal(p.Declared, o.Declared) && slices.Equal(p.LeftOut, o.LeftOut)
}

// SetPolicy makes declared the whole of what this node's pods are declared to
// be, in place of what it was. It is on the disk before it takes effect, so
// that a restart needs neither controller nor API server to go on with it. The
// same digest and content again writes nothing.
//
// A declaration that cannot be followed is left out and the others are in force:
// the snapshot's Unresolved says what is wrong with it, and its PolicyDigest ends in
// agentpb.Partial until a policy comes of which nothing is left out. unread says
// the same of declarations that could not even be read and are not in declared.
// With dryRun the policy is only checked, and what would be left out is an error.
//
// An error that wraps ErrInvalid names what is wrong with the policy as a whole;
// one that wraps ErrRefused says why it could not be kept. The policy before then
// stays in force. It blocks for the disk. declared and unread are not kept.
func (a *Agent) SetPolicy(ctx context.Context, digest string, declared []state.Declared, dryRun bool, unread ...string) error {
	next := &policy{Digest: digest, Declared: slices.Clone(declared), LeftOut: slices.Clone(unread)}
	slices.SortFunc(next.Declared, func(x, y state.Declared) int { return strings.Compare(x.PodUID, y.PodUID) })
	if err := next.check(); err != nil {
		return invalid(fmt.Errorf("policy %q: %w", digest, err))
	}
	if strings.HasSuffix(digest, agentpb.Partial) {
		return invalid(fmt.Errorf("policy %q: the digest must not end in %q", digest, agentpb.Partial))
	}
	next.sift()
	if dryRun {
		if len(next.LeftOut) > 0 {
			return invalid(fmt.Errorf("policy %q: %s", digest, strings.Join(next.notes(), "; ")))
		}
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
	a.log.Info("policy in force", "component", "agent", "digest", next.Digest, "instances", len(next.Declared))
	a.obey(next)
	return nil
}

// obey puts a policy into force. Its digest is there to be seen last: it says that
// the rest was done.
func (a *Agent) obey(p *policy) {
	if len(p.LeftOut) > 0 {
		a.log.Warn("declarations left out of the policy", "component", "agent", "digest", p.Digest, "err", strings.Join(p.notes(), "; "))
	}
	if a.pods != nil {
		a.pods.Declare(p.Declared)
	}
	a.desired.changed.Store(true)
	a.desired.policy.Store(p)
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
	p := a.desired.policy.Load()
	if p == nil {
		return notes
	}
	if a.pods == nil && len(p.Declared) > 0 {
		notes = append(notes, fmt.Sprintf("%d pods are declared and this agent does not look at pods: start it with --kubernetes", len(p.Declared)))
	}
	return append(notes, p.notes()...)
}

// notes names what was left out, or the first of it.
func (p *policy) notes() []string {
	if more := len(p.LeftOut) - maxLeftOutNotes; more > 0 {
		return append(slices.Clone(p.LeftOut[:maxLeftOutNotes]), fmt.Sprintf("%d more declarations are left out", more))
	}
	return p.LeftOut
}

// policyDigest names the policy in force, "" before the first. It ends in
// agentpb.Partial where that is not the whole of what came.
func (a *Agent) policyDigest() string {
	if p := a.desired.policy.Load(); p != nil {
		return p.Digest
	}
	return ""
}

func (a *Agent) policyPath() string { return filepath.Join(a.cfg.StateDir, "policy.json") }
func (a *Agent) seenPath() string   { return filepath.Join(a.cfg.StateDir, "seen.json") }

// check returns what is wrong with a policy as a whole.
func (p *policy) check() error {
	if !madeOf(strings.TrimSuffix(p.Digest, agentpb.Partial), 128, "._:+=-") {
		return errors.New("the digest must be 1 to 128 letters, digits or ._:+=-")
	}
	if n := len(p.Declared) + len(p.LeftOut); n > maxDeclared {
		return fmt.Errorf("it declares %d instances, more than the %d a node may have", n, maxDeclared)
	}
	return nil
}

// sift moves the declarations that cannot be followed from Declared to LeftOut:
// what one tenant wrote must not keep the declarations of others from a node.
func (p *policy) sift() {
	uids, names := map[string]int{}, map[string]int{}
	for _, d := range p.Declared {
		uids[d.PodUID]++
		names[d.Namespace+"/"+d.Pod]++
	}
	p.Declared = slices.DeleteFunc(p.Declared, func(d state.Declared) bool {
		err := checkDeclared(d)
		switch {
		case err != nil:
		case uids[d.PodUID] > 1:
			err = fmt.Errorf("%d declared pods have the same uid %q", uids[d.PodUID], d.PodUID)
		case names[d.Namespace+"/"+d.Pod] > 1:
			err = errors.New("it is declared more than once")
		default:
			return false
		}
		p.LeftOut = append(p.LeftOut, leftOut(d, err))
		return true
	})
	if len(p.LeftOut) > 0 && !strings.HasSuffix(p.Digest, agentpb.Partial) {
		p.Digest += agentpb.Partial
	}
}

// leftOut says why a declaration is left out.
func leftOut(d state.Declared, why error) string {
	return cut(fmt.Sprintf("pod %q, declared by policy %q, is left out: %s", d.Namespace+"/"+d.Pod, d.Policy, oneLine(why)), maxLeftOutText)
}

// checkDeclared returns what is wrong with one declaration. Its names become parts
// of paths and of ids.
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
