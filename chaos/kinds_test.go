package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
)

// example is a spec of the kind that is as its help says.
func example(k Kind) Spec {
	s := Spec{UID: "u1", Kind: k.Name, Instance: "prod/db-0/postgres", Params: map[string]string{}, Duration: time.Minute}
	for _, p := range k.Params {
		s.Params[p.Name] = p.Example
	}
	return s
}

// TestKinds holds every kind to what its documentation promises.
func TestKinds(t *testing.T) {
	names := map[string]bool{}
	for _, k := range Kinds() {
		require.False(t, names[k.Name], "two kinds are called %q", k.Name)
		names[k.Name] = true
		t.Run(k.Name+" is documented", func(t *testing.T) {
			require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, k.Name)
			require.Regexp(t, `^[A-Z].*\.$`, k.Help)
			require.NotEmpty(t, k.Needs)
			require.Contains(t, []Family{Net, IO, Process}, k.Family)
			require.Positive(t, k.MaxDuration)
			require.LessOrEqual(t, k.MaxDuration, MaxDuration)
			for _, p := range k.Params {
				require.NotEmpty(t, p.Help, p.Name)
				require.NotEmpty(t, p.Example, p.Name)
				require.Equal(t, p.Required, p.Default == "", "%s has a default or is required", p.Name)
			}
		})
		t.Run(k.Name+" accepts its examples and its defaults", func(t *testing.T) {
			s := example(k)
			require.NoError(t, Validate(s))
			for _, p := range k.Params {
				if !p.Required {
					delete(s.Params, p.Name)
				}
			}
			require.NoError(t, Validate(s))
		})
		t.Run(k.Name+" refuses absurd parameters by name", func(t *testing.T) {
			for _, p := range k.Params {
				for _, absurd := range []string{"", " ", "-1", "-1s", "NaN", "Inf", "1e9", "1000000h", "9999999999999999999999", "0x10", "many", "1,5", p.Example + " ", "\x00"} {
					s := example(k)
					s.Params[p.Name] = absurd
					require.ErrorContains(t, Validate(s), fmt.Sprintf("parameter %q of %s is %q: want ", p.Name, k.Name, absurd))
				}
			}
			s := example(k)
			s.Params["odd"] = "1"
			require.ErrorContains(t, Validate(s), `unknown parameter "odd": `+k.Name+" takes ")
		})
		t.Run(k.Name+" names what is missing and gives an example", func(t *testing.T) {
			for _, p := range k.Params {
				s := example(k)
				delete(s.Params, p.Name)
				if p.Required {
					require.ErrorContains(t, Validate(s), fmt.Sprintf("%s needs the parameter %q (%s), for example %s=%s", k.Name, p.Name, p.Help, p.Name, p.Example))
				}
			}
		})
		t.Run(k.Name+" applied and undone leaves the node as it was", func(t *testing.T) { applyAndUndo(t, k) })
	}
}

// node is a fake of everything a change can alter: each target has a state.
type node struct {
	state   map[string]string
	records map[string][]byte
}

func key(c change.Change) string {
	switch c.Class {
	case change.Net:
		return fmt.Sprintf("link %d", c.Net.Link)
	case change.IO:
		return fmt.Sprintf("cgroup %d", c.IO.CgroupID)
	}
	return c.File.Path
}

func (n *node) Prepare(c *change.Change) error {
	if c.File != nil {
		c.File.Old = n.state[c.File.Path]
	}
	return nil
}

func (n *node) Apply(c change.Change) error {
	if c.File != nil {
		n.state[key(c)] = c.File.New
		return nil
	}
	n.state[key(c)] = c.String()
	return nil
}

func (n *node) Revert(c change.Change) error {
	if c.File != nil {
		n.state[key(c)] = c.File.Old
		return nil
	}
	delete(n.state, key(c))
	return nil
}

func (n *node) Append(id string, record []byte) error { n.records[id] = record; return nil }
func (n *node) Done(id string) error                  { delete(n.records, id); return nil }

func applyAndUndo(t *testing.T, k Kind) {
	target := fixtures()["pod"]
	n := &node{state: map[string]string{target.Freezer.Path: "0", "something else": "x"}, records: map[string][]byte{}}
	before := maps.Clone(n.state)
	changes, err := Plan(example(k), target, nil, able(), now)
	require.NoError(t, err)
	op := &change.Operation{ID: "u1", Kind: k.Name, Instance: target.Instance.ID, Changes: changes, BootID: "b"}
	e := change.NewExecutor(map[change.Class]change.Handler{change.File: n, change.Freeze: n, change.Net: n, change.IO: n}, n)
	require.NoError(t, e.Apply(t.Context(), op, true))
	require.NotEqual(t, before, n.state, "the fault does something")
	require.Len(t, n.records, 1)
	require.NoError(t, e.Undo(op))
	require.Equal(t, before, n.state)
	require.Empty(t, n.records)
}

// TestPlansAreBounded checks that whatever is asked for, a plan stays within
// the one target and the deadline.
func TestPlansAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(Kinds()).Draw(t, "kind")
		s := example(k)
		s.Duration = time.Duration(rapid.Int64().Draw(t, "duration"))
		for _, p := range k.Params {
			if rapid.Bool().Draw(t, "set") {
				s.Params[p.Name] = rapid.OneOf(rapid.String(), rapid.StringMatching(`[0-9]{1,4}(\.[0-9]{1,5})?(ms|s|us)?`), rapid.Just("read")).Draw(t, p.Name)
			}
		}
		target := fixtures()["pod"]
		changes, err := Plan(s, target, nil, able(), now)
		require.Equal(t, Validate(s) == nil, err == nil, "this target takes every valid fault")
		if err != nil {
			return
		}
		require.Len(t, changes, 1)
		again, err := Plan(s, target, nil, able(), now)
		require.NoError(t, err)
		require.Equal(t, changes, again)
		b, err := json.Marshal(changes)
		require.NoError(t, err)
		require.NotEmpty(t, b)
		switch c := changes[0]; c.Class {
		case change.Net:
			require.Equal(t, target.Instance.HostLink, c.Net.Link)
			require.Equal(t, now+s.Duration, c.Net.Deadline)
			require.LessOrEqual(t, c.Net.Jitter, c.Net.Delay)
			require.True(t, c.Net.Delay > 0 || c.Net.LossPPM > 0)
			require.LessOrEqual(t, c.Net.LossPPM, uint32(1_000_000))
		case change.IO:
			require.Equal(t, target.Instance.Cgroup.ID, c.IO.CgroupID)
			require.Equal(t, now+s.Duration, c.IO.Deadline)
			require.True(t, c.IO.Read || c.IO.Write)
			require.Positive(t, c.IO.PPM)
			require.LessOrEqual(t, c.IO.PPM, uint32(1_000_000))
		case change.Freeze:
			require.Equal(t, target.Freezer, *c.File)
			require.LessOrEqual(t, s.Duration, maxFreeze)
		default:
			t.Fatalf("no bounds are known for class %q", c.Class)
		}
	})
}

func TestValidate(t *testing.T) {
	base := example(Kinds()[0])
	for name, tt := range map[string]struct {
		edit func(*Spec)
		want string
	}{
		"no uid":            {func(s *Spec) { s.UID = "" }, "the fault has no uid"},
		"no instance":       {func(s *Spec) { s.Instance = "" }, "no instance is named"},
		"no kind":           {func(s *Spec) { s.Kind = "" }, `unknown fault "": there are net-delay, net-loss, io-error, freeze`},
		"no duration":       {func(s *Spec) { s.Duration = 0 }, "duration 0s: a fault must have an end"},
		"negative duration": {func(s *Spec) { s.Duration = -time.Second }, "duration -1s: a fault must have an end"},
		"long duration":     {func(s *Spec) { s.Duration = time.Hour + 1 }, "is too long: net-delay may last at most 1h0m0s"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			s := base
			tt.edit(&s)
			require.ErrorContains(t, Validate(s), tt.want)
		})
	}
	t.Run("everything that is wrong is said at once", func(t *testing.T) {
		err := Validate(Spec{Kind: "net-delay", Params: map[string]string{"jitter": "x", "odd": ""}})
		for _, want := range []string{"no uid", "no instance", "duration 0s", `"delay"`, `"jitter"`, `"odd"`} {
			require.ErrorContains(t, err, want)
		}
	})
	t.Run("a plan for another instance than was asked for is refused", func(t *testing.T) {
		s := base
		s.Instance = "prod/db-1/postgres"
		_, err := Plan(s, fixtures()["pod"], nil, able(), now)
		require.EqualError(t, err, `the fault is for instance "prod/db-1/postgres" and was planned for "prod/db-0/postgres"`)
	})
	t.Run("a fault on another instance is no conflict", func(t *testing.T) {
		other := []state.Fault{{UID: "u0", Kind: base.Kind, Instance: "prod/db-1/postgres", Phase: state.FaultActive}}
		_, err := Plan(base, fixtures()["pod"], other, able(), now)
		require.NoError(t, err)
	})
}
