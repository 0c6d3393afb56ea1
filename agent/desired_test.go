package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/chaos"
)

const uid1 = "8ff3a2b1-0c4d-4e5f-9a6b-7c8d9e0f1a2b"

func ledger(change ...func(*state.Declared)) state.Declared {
	d := state.Declared{Namespace: "bank", Pod: "ledger-0", PodUID: uid1, Engine: state.PostgreSQL,
		Cluster: "ledger", Role: "primary", Policy: "bank/postgres", NUMA: state.NUMANone}
	for _, f := range change {
		f(&d)
	}
	return d
}

// follower is a podSource that notes what it was told.
type follower struct {
	declared []state.Declared
	seen     map[string]pods.Seen
	synced   error
}

func (f *follower) Declare(d []state.Declared)      { f.declared = d }
func (f *follower) Remember(s map[string]pods.Seen) { f.seen = s }
func (f *follower) Seen() map[string]pods.Seen      { return f.seen }
func (f *follower) Synced() error                   { return f.synced }

// server is an apiServer with one answer.
type server pods.Reachability

func (s server) Reachability() pods.Reachability { return pods.Reachability(s) }

func TestAPolicyThatIsWrongIsRefusedAsAWhole(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	many := make([]state.Declared, maxDeclared+1)
	for i := range many {
		many[i] = ledger(func(d *state.Declared) { d.Pod, d.PodUID = fmt.Sprintf("p-%d", i), fmt.Sprintf("u-%d", i) })
	}
	for name, c := range map[string]struct {
		digest   string
		declared []state.Declared
		unread   []string
		says     string
	}{
		"no digest":                  {"", nil, nil, "digest"},
		"a digest with a path":       {"../x", nil, nil, "digest"},
		"a digest of a part":         {"d1+partial", nil, nil, `must not end in "+partial"`},
		"too many":                   {"d1", many, nil, "4097 instances"},
		"too many with the unread":   {"d1", many[:maxDeclared], []string{"x"}, "4097 instances"},
		"a digest that is very long": {strings.Repeat("d", 129), nil, nil, "digest"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, dry := range []bool{true, false} {
				err := a.SetPolicy(t.Context(), c.digest, c.declared, dry, c.unread...)
				require.ErrorIs(t, err, ErrInvalid)
				require.ErrorContains(t, err, c.says)
			}
			require.NoFileExists(t, a.policyPath())
			require.Empty(t, a.policyDigest())
		})
	}
}

// probed is a change that lets the agent log in, in a way that is right until
// changes spoil it.
func probed(changes ...func(*state.ProbeSpec)) func(*state.Declared) {
	return func(d *state.Declared) {
		d.Probe = state.ProbeSpec{Secret: "login", Read: time.Second, Write: state.WriteOff, TLS: state.TLSDisable}
		for _, f := range changes {
			f(&d.Probe)
		}
	}
}

func TestADeclarationThatIsWrongIsLeftOutAlone(t *testing.T) {
	good := ledger(probed(), func(d *state.Declared) { d.Pod, d.PodUID = "ledger-9", "u9" })
	with := func(change func(*state.Declared)) []state.Declared { return []state.Declared{ledger(change)} }
	for name, c := range map[string]struct {
		bad  []state.Declared
		says string
	}{
		"an unknown engine":          {with(func(d *state.Declared) { d.Engine = "oracle" }), `engine "oracle" is none of ["postgresql" "opengauss" "kingbase" "tdsql-pg" "mysql"`},
		"an unknown placement":       {with(func(d *state.Declared) { d.NUMA = "everywhere" }), `numa "everywhere"`},
		"no placement":               {with(func(d *state.Declared) { d.NUMA = "" }), `numa ""`},
		"an unknown role":            {with(func(d *state.Declared) { d.Role = "boss" }), `role "boss"`},
		"no uid":                     {with(func(d *state.Declared) { d.PodUID = "" }), `pod uid ""`},
		"a uid that is a path":       {with(func(d *state.Declared) { d.PodUID = "../../x" }), "cannot be part of a path"},
		"a uid of dots":              {with(func(d *state.Declared) { d.PodUID = ".." }), "cannot be part of a path"},
		"a namespace that is a path": {with(func(d *state.Declared) { d.Namespace = "a/b" }), `namespace "a/b"`},
		"a pod in capitals":          {with(func(d *state.Declared) { d.Pod = "Ledger" }), `pod name "Ledger"`},
		"a pod name that ends in -":  {with(func(d *state.Declared) { d.Pod = "ledger-" }), `pod name "ledger-"`},
		"a container with a slash":   {with(func(d *state.Declared) { d.Container = "a/../b" }), "container name"},
		"a policy without namespace": {with(func(d *state.Declared) { d.Policy = "postgres" }), "not namespace/name"},
		"a cluster with a newline":   {with(func(d *state.Declared) { d.Cluster = "a\nb" }), "cluster"},
		"a secret in capitals":       {with(probed(func(p *state.ProbeSpec) { p.Secret = "My_Secret" })), `secret name "My_Secret" is not a DNS name`},
		"a probe too often":          {with(probed(func(p *state.ProbeSpec) { p.Read = time.Millisecond })), "probe: read period"},
		"a database of 64 bytes":     {with(probed(func(p *state.ProbeSpec) { p.Database = strings.Repeat("é", 32) })), "63 bytes"},
		"a top of too many":          {with(func(d *state.Declared) { d.Statements = state.StatementsPolicy{Set: true, Top: 501} }), "statements: top 501"},
		"an unknown audit class":     {with(func(d *state.Declared) { d.Statements.Audit = 1 << 7 }), "statements: audit classes"},
		"one uid twice":              {[]state.Declared{ledger(), ledger(func(d *state.Declared) { d.Pod = "ledger-1" })}, `2 declared pods have the same uid "` + uid1},
		"one pod twice":              {[]state.Declared{ledger(), ledger(func(d *state.Declared) { d.PodUID = "u2" })}, "declared more than once"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			a := f.agent(t)
			pod := new(follower)
			a.pods = pod
			all := append([]state.Declared{good}, c.bad...)
			err := a.SetPolicy(t.Context(), "d1", all, true)
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, c.says)
			require.NoFileExists(t, a.policyPath(), "a dry run changes nothing")

			require.NoError(t, a.SetPolicy(t.Context(), "d1", all, false))
			require.Equal(t, []state.Declared{good}, pod.declared)
			a.tick(t.Context())
			require.Equal(t, "d1+partial", a.Snapshot().PolicyDigest)
			require.Len(t, a.Snapshot().Unresolved, len(c.bad))
			require.Contains(t, a.Snapshot().Unresolved[0], c.says)
			require.Contains(t, a.Snapshot().Unresolved[0], "is left out")

			kept, err := readPolicy(a.policyPath())
			require.NoError(t, err)
			require.True(t, a.desired.policy.Load().equal(kept), "the next agent says the same")

			require.NoError(t, a.SetPolicy(t.Context(), "d1", []state.Declared{good}, false))
			a.tick(t.Context())
			require.Equal(t, "d1", a.Snapshot().PolicyDigest)
			require.Empty(t, a.Snapshot().Unresolved)
		})
	}
}

func TestOneTenantsDeclarationDoesNotKeepAnothersFromTheNode(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	pod := new(follower)
	a.pods = pod
	declare := func(digest, engine string, dry bool) error {
		_, err := NewServer(a, slog.New(slog.DiscardHandler)).apply(t.Context(), &agentpb.ApplyRequest{DryRun: dry, Desired: &agentpb.ApplyRequest_Policy{Policy: &agentpb.Policy{
			Digest: digest, Instances: []*agentpb.Declared{
				{Namespace: "a", Pod: "pg-0", PodUid: "u1", Engine: engine, Policy: "a/pg", Numa: "none"},
				{Namespace: "b", Pod: "my-0", PodUid: "u2", Engine: "mysql", Policy: "b/my", Numa: "none"},
			},
		}}})
		return err
	}
	require.ErrorContains(t, declare("d1", "oracle", true), `engine "oracle" is unknown`)
	require.Empty(t, pod.declared)
	require.NoError(t, declare("d1", "oracle", false))
	require.Len(t, pod.declared, 1)
	require.Equal(t, "my-0", pod.declared[0].Pod)
	a.tick(t.Context())
	require.Equal(t, "d1+partial", a.Snapshot().PolicyDigest)
	require.Len(t, a.Snapshot().Unresolved, 1)
	require.Contains(t, a.Snapshot().Unresolved[0], `pod "a/pg-0", declared by policy "a/pg", is left out: engine "oracle" is unknown`)

	before, err := os.Stat(a.policyPath())
	require.NoError(t, err)
	require.NoError(t, declare("d1", "oracle", false))
	after, err := os.Stat(a.policyPath())
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "the same again is not written")

	require.NoError(t, declare("d2", "postgresql", false))
	require.Len(t, pod.declared, 2)
	require.Equal(t, "d2", a.policyDigest())
}

func TestWhatIsLeftOutDoesNotFloodTheSnapshot(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	a.pods = new(follower)
	many := make([]state.Declared, maxLeftOutNotes+3)
	for i := range many {
		many[i] = ledger(func(d *state.Declared) {
			d.Pod, d.PodUID, d.Container = fmt.Sprintf("p-%d", i), fmt.Sprintf("u-%d", i), strings.Repeat("X", 1<<16)
		})
	}
	require.NoError(t, a.SetPolicy(t.Context(), "d1", many, false))
	a.tick(t.Context())
	notes := a.Snapshot().Unresolved
	require.Len(t, notes, maxLeftOutNotes+1)
	require.Equal(t, "3 more declarations are left out", notes[maxLeftOutNotes])
	require.Len(t, notes[0], maxLeftOutText)
}

func TestAPolicyIsKeptAndFollowed(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	pod := new(follower)
	a.pods = pod
	declared := []state.Declared{ledger(func(d *state.Declared) { d.Pod, d.PodUID = "ledger-1", "u2" }), ledger()}

	require.NoError(t, a.SetPolicy(t.Context(), "d1", declared, true))
	require.Empty(t, pod.declared, "a dry run changes nothing")
	require.NoFileExists(t, a.policyPath())

	require.NoError(t, a.SetPolicy(t.Context(), "d1", declared, false))
	require.ElementsMatch(t, declared, pod.declared)
	require.Equal(t, "ledger-1", declared[0].Pod, "the caller's slice is its own")
	a.tick(t.Context())
	require.Equal(t, "d1", a.Snapshot().PolicyDigest)

	before, err := os.Stat(a.policyPath())
	require.NoError(t, err)
	pod.declared = nil
	require.NoError(t, a.SetPolicy(t.Context(), "d1", []state.Declared{declared[1], declared[0]}, false))
	after, err := os.Stat(a.policyPath())
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "the same again is not written")
	require.Nil(t, pod.declared)

	require.NoError(t, a.SetPolicy(t.Context(), "d2", nil, false))
	require.Empty(t, pod.declared)
}

func TestADamagedPolicyIsSetAsideAndNothingIsFollowed(t *testing.T) {
	whole := func(t *testing.T) []byte {
		f := newFixture(t)
		a := f.agent(t)
		require.NoError(t, a.SetPolicy(t.Context(), "d1", []state.Declared{ledger()}, false))
		data, err := os.ReadFile(a.policyPath())
		require.NoError(t, err)
		return data
	}(t)
	for name, data := range map[string][]byte{
		"empty":          {},
		"half":           whole[:len(whole)/2],
		"another letter": []byte(strings.Replace(string(whole), "ledger-0", "ledger-1", 1)),
		"another form":   []byte(strings.Replace(string(whole), `"version":1`, `"version":2`, 1)),
		"no JSON":        []byte("\x00\x00\x00"),
		"nothing in it":  []byte("{}"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			write(t, filepath.Join(f.root, "state/policy.json"), string(data))
			a := f.agent(t)
			require.Empty(t, a.policyDigest())
			require.Len(t, a.Snapshot().Unresolved, 1)
			require.Contains(t, a.Snapshot().Unresolved[0], "no policy is in force until the controller sends it again: the kept policy is damaged")
			kept, err := filepath.Glob(filepath.Join(f.root, "state/policy.json.damaged-*"))
			require.NoError(t, err)
			require.Len(t, kept, 1)
			require.NoFileExists(t, a.policyPath())

			require.NoError(t, a.SetPolicy(t.Context(), "d2", []state.Declared{ledger()}, false))
			a.pods = new(follower)
			a.tick(t.Context())
			require.Empty(t, a.Snapshot().Unresolved)
		})
	}
}

func TestAPolicyThatCannotBeKeptIsRefusedAndTheOneBeforeStays(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	pod := new(follower)
	a.pods = pod
	require.NoError(t, a.SetPolicy(t.Context(), "d1", []state.Declared{ledger()}, false))

	// A directory in the way fails the write for root, too.
	block := a.policyPath() + ".new"
	require.NoError(t, os.Mkdir(block, 0o700))
	err := a.SetPolicy(t.Context(), "d2", nil, false)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, `keep policy "d2"`)
	require.ErrorContains(t, err, "the policy before stays in force")
	require.Len(t, pod.declared, 1)
	require.Equal(t, "d1", a.policyDigest())

	require.NoError(t, os.Remove(block))
	p, err := readPolicy(a.policyPath())
	require.NoError(t, err)
	require.Equal(t, "d1", p.Digest)
	require.NoError(t, a.SetPolicy(t.Context(), "d2", nil, false))
	require.Equal(t, "d2", a.policyDigest())
}

func TestAnAgentThatLooksAtNoPodsSaysSo(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	require.NoError(t, a.SetPolicy(t.Context(), "d1", []state.Declared{ledger()}, false))
	a.tick(t.Context())
	require.Equal(t, []string{"1 pods are declared and this agent does not look at pods: start it with --kubernetes"}, a.Snapshot().Unresolved)
}

func TestTheAPIServersStateIsInTheSnapshot(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	collector := func(name string) state.Collector {
		a.tick(t.Context())
		for _, c := range a.Snapshot().Collectors {
			if c.Name == name {
				return c
			}
		}
		return state.Collector{Name: "none"}
	}
	require.Equal(t, "none", collector(state.CollectorAPIServer).Name)
	a.pods, a.api = &follower{synced: pods.ErrNotSynced}, server{Err: os.ErrDeadlineExceeded}
	require.Contains(t, collector(state.CollectorAPIServer).Err, "timeout")
	require.NotEmpty(t, collector(state.CollectorPods).Err)
	require.Empty(t, a.Snapshot().LimitsWriter)
	a.pods, a.api = &follower{}, server{ServesResize: pointer(false)}
	require.Empty(t, collector(state.CollectorAPIServer).Err)
	require.Empty(t, collector(state.CollectorPods).Err)
	require.Equal(t, "agent", a.Snapshot().LimitsWriter)
}

func TestAPodsLimitsAreItsKubeletsToWrite(t *testing.T) {
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	in.Source, in.Namespace, in.Pod = "kubernetes", "bank", "orders-0"
	f.instance(t, "/db/alone", "alone")
	f.instance(t, "/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope", "unknown")
	a := f.agent(t)
	a.pods, a.cfg.Kubernetes = &follower{}, true
	want := cgroup.Size{CPUMillicores: pointer(int64(1000))}
	for _, c := range []struct {
		name   string
		serves *bool
		o      ResizeOptions
		says   string
	}{
		{"kubelet writes", pointer(true), ResizeOptions{DryRun: true}, `the limits of pod "bank/orders-0" are written by its kubelet: use ` + "`kubectl mooring resize`, or --raw"},
		{"kubelet writes, forced", pointer(true), ResizeOptions{DryRun: true, Force: true}, "written by its kubelet"},
		{"kubelet writes, raw", pointer(true), ResizeOptions{DryRun: true, Raw: true}, ""},
		{"not known who", nil, ResizeOptions{DryRun: true}, "the API server has not said yet"},
		{"not known who, raw", nil, ResizeOptions{DryRun: true, Raw: true}, ""},
		{"the agent writes", pointer(false), ResizeOptions{DryRun: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.api = server{ServesResize: c.serves}
			_, err := a.Resize(t.Context(), "orders", want, c.o)
			if c.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, ErrRefused)
				require.ErrorContains(t, err, c.says)
			}
			_, err = a.Resize(t.Context(), "unknown", want, c.o)
			require.Equal(t, c.says != "", err != nil, "a server in a pod that nothing declares: %v", err)
			_, err = a.Resize(t.Context(), "alone", want, c.o)
			require.NoError(t, err, "a server outside Kubernetes has no kubelet")
		})
	}
}

func TestAPodMadeAgainUnderTheNameIsNotTakenForTheOneMeant(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders").PodUID = "u1"
	a := f.agent(t)
	want := cgroup.Size{CPUMillicores: pointer(int64(1000))}
	_, err := a.Resize(t.Context(), "orders", want, ResizeOptions{DryRun: true, PodUID: "u1"})
	require.NoError(t, err)
	_, err = a.Resize(t.Context(), "orders", want, ResizeOptions{PodUID: "u2"})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "the pod was made again")
	_, err = a.Place(t.Context(), "orders", "", nil, PlaceOptions{PodUID: "u2"})
	require.ErrorContains(t, err, "the pod was made again")
	_, _, err = a.StartFault(t.Context(), chaos.Spec{UID: "f", Kind: "freeze", Instance: "orders", Duration: time.Second}, FaultOptions{PodUID: "u2"})
	require.ErrorContains(t, err, "the pod was made again")
}

func TestARequestThatIsGivenUpBeforeItsTurnChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.Resize(ctx, "orders", cgroup.Size{CPUMillicores: pointer(int64(1000))}, ResizeOptions{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = a.Place(ctx, "orders", "", nil, PlaceOptions{})
	require.ErrorIs(t, err, context.Canceled)
	spec := chaos.Spec{UID: "late", Kind: "freeze", Instance: "orders", Duration: time.Second}
	_, _, err = a.StartFault(ctx, spec, FaultOptions{})
	require.ErrorIs(t, err, context.Canceled)
	// Withdrawn while its request was on its way.
	_, err = a.StopFault("late")
	require.ErrorIs(t, err, ErrInvalid)
	_, _, err = a.StartFault(t.Context(), spec, FaultOptions{})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "withdrawn before it began")
}

func FuzzParsePolicy(f *testing.F) {
	whole := &policy{Digest: "d1", Declared: []state.Declared{ledger()}}
	path := filepath.Join(f.TempDir(), "policy.json")
	require.NoError(f, whole.write(path))
	data, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"version":1,"sum":"","policy":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePolicy(data)
		if err != nil {
			return
		}
		if p.check() != nil {
			t.Fatalf("%q was taken", data)
		}
		for _, d := range p.Declared {
			if checkDeclared(d) != nil {
				t.Fatalf("%q was taken with %+v", data, d)
			}
		}
	})
}
