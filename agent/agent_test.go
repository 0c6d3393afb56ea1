package agent

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/chaos"
)

// fixture is a node made of plain files: two NUMA nodes of two CPUs and 4 GiB,
// and instances in cgroups of version 2 with 400 MiB in use each.
type fixture struct {
	root   string
	result pods.Result
	err    error
}

// Instances makes the fixture a pods.Source.
func (f *fixture) Instances(context.Context) (pods.Result, error) { return f.result, f.err }

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// instance adds one with a cgroup of its own.
func (f *fixture) instance(t *testing.T, path, name string) *state.Instance {
	t.Helper()
	dir := filepath.Join(f.root, "cgroup", path)
	for file, text := range map[string]string{
		"cgroup.procs": "4242\n", "cgroup.controllers": "cpuset cpu memory\n", "cgroup.events": "populated 1\nfrozen 0\n", "cgroup.freeze": "0\n",
		"cpu.max": "50000 100000\n", "cpu.stat": "usage_usec 1000\nthrottled_usec 0\n",
		"cpuset.cpus": "\n", "cpuset.mems": "\n", "cpuset.cpus.effective": "0-3\n", "cpuset.mems.effective": "0-1\n",
		"memory.max": "1073741824\n", "memory.current": "500000000\n", "memory.events": "oom_kill 0\n",
		"memory.stat":      "anon 419430400\nfile 1048576\nshmem 0\nkernel_stack 0\npagetables 0\nslab_unreclaimable 0\nsock 0\n",
		"memory.numa_stat": "anon N0=209715200 N1=209715200\nfile N0=1048576 N1=0\nshmem N0=0 N1=0\n",
	} {
		write(t, filepath.Join(dir, file), text)
	}
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	f.result.Instances = append(f.result.Instances, state.Instance{
		ID: path, Name: name, Engine: state.PostgreSQL, Source: "standalone", MainPID: 4242, PIDs: []int{4242}, Ports: []uint16{5432},
		Cgroup:     state.Cgroup{Version: 2, Path: path, ID: fi.Sys().(*syscall.Stat_t).Ino},
		DataDevice: state.Device{Major: 253, Minor: 1}, HostNetwork: true,
	})
	return &f.result.Instances[len(f.result.Instances)-1]
}

// newFixture makes the node's own files.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{root: t.TempDir()}
	write(t, filepath.Join(f.root, "cgroup/cgroup.controllers"), "cpuset cpu memory\n")
	for _, dir := range []string{"", "db", "a", "b"} {
		write(t, filepath.Join(f.root, "cgroup", dir, "cpuset.cpus.effective"), "0-3\n")
		write(t, filepath.Join(f.root, "cgroup", dir, "cpuset.mems.effective"), "0-1\n")
	}
	write(t, filepath.Join(f.root, "proc/sys/kernel/random/boot_id"), "boot-1\n")
	for n, cpus := range map[string]string{"0": "0-1", "1": "2-3"} {
		node := filepath.Join(f.root, "sys/devices/system/node/node"+n)
		write(t, filepath.Join(node, "cpulist"), cpus+"\n")
		write(t, filepath.Join(node, "distance"), map[string]string{"0": "10 21\n", "1": "21 10\n"}[n])
		write(t, filepath.Join(node, "meminfo"), strings.ReplaceAll("Node N MemTotal: 4194304 kB\nNode N MemFree: 4000000 kB\nNode N FilePages: 1000 kB\nNode N Active(file): 500 kB\nNode N Inactive(file): 500 kB\n", "Node N", "Node "+n))
	}
	write(t, filepath.Join(f.root, "sys/devices/system/node/online"), "0-1\n")
	write(t, filepath.Join(f.root, "sys/devices/system/cpu/online"), "0-3\n")
	for _, c := range []string{"0", "1", "2", "3"} {
		write(t, filepath.Join(f.root, "sys/devices/system/cpu/cpu"+c, "topology/thread_siblings_list"), c+"\n")
	}
	return f
}

// agent starts one on the fixture, with every capability, and takes one look.
func (f *fixture) agent(t *testing.T) *Agent {
	t.Helper()
	cfg := Default()
	cfg.NodeName, cfg.Probe = "n1", "off"
	cfg.StateDir = filepath.Join(f.root, "state")
	cfg.ProcRoot, cfg.SysRoot, cfg.CgroupRoot = filepath.Join(f.root, "proc"), filepath.Join(f.root, "sys"), filepath.Join(f.root, "cgroup")
	a, err := New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(a.Close)
	a.source = f
	for _, name := range []string{"pin", "resize", "freeze", "io-error", "net-delay"} {
		a.capabilities = append(a.capabilities, state.Capability{Name: name, OK: true})
	}
	a.tick(t.Context())
	return a
}

// content is every file below the fixture's cgroups.
func (f *fixture) content(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(filepath.Join(f.root, "cgroup"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		all[p] = string(b)
		return err
	}))
	return all
}

func pointer[T any](v T) *T { return &v }

func TestBadRequestsChangeNothingAndSayWhy(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	f.instance(t, "/a/twin", "twin")
	f.instance(t, "/b/twin", "twin")
	f.instance(t, "/mixed", "mixed").Cgroup.Shared = "its cgroup /mixed also holds pid 77 (sshd)"
	a := f.agent(t)
	ctx := t.Context()
	fault := func(s chaos.Spec) error {
		if s.UID == "" {
			s.UID = "f1"
		}
		_, _, err := a.StartFault(ctx, s, FaultOptions{})
		return err
	}
	resize := func(ref string, cpu, mem *int64) error {
		_, err := a.Resize(ctx, ref, cgroup.Size{CPUMillicores: cpu, MemoryBytes: mem}, ResizeOptions{})
		return err
	}
	pin := func(ref, policy string, node *int) error {
		_, err := a.Place(ctx, ref, policy, node, PlaceOptions{})
		return err
	}
	before := f.content(t)
	for _, c := range []struct {
		name string
		err  error
		kind error
		says []string
	}{
		{"pin to a node that does not exist", pin("orders", "single-node", pointer(7)), ErrRefused, []string{"7", "0-1"}},
		{"pin with a policy that does not exist", pin("orders", "feng-shui", nil), ErrRefused, []string{"feng-shui", "single-node"}},
		{"pin an unknown instance", pin("nobody", "single-node", nil), ErrInvalid, []string{`"nobody"`, "/db/orders"}},
		{"pin one of two instances of one name", pin("twin", "single-node", nil), ErrInvalid, []string{"/a/twin", "/b/twin"}},
		{"pin an instance whose cgroup is not its own", pin("mixed", "single-node", nil), ErrRefused, []string{"sshd"}},
		{"resize an unknown instance", resize("nobody", pointer(int64(1000)), nil), ErrInvalid, []string{`"nobody"`}},
		{"resize beyond the machine's CPUs", resize("orders", pointer(int64(5000)), nil), ErrRefused, []string{"5000m", "4000m"}},
		{"resize beyond the machine's memory", resize("orders", nil, pointer(int64(64)<<30)), ErrRefused, []string{"65536 MiB", "8192 MiB"}},
		{"resize below what is in use", resize("orders", nil, pointer(int64(256)<<20)), ErrRefused, []string{"400", "--force"}},
		{"resize nothing", resize("orders", nil, nil), ErrInvalid, []string{"neither"}},
		{"resize to no CPU", resize("orders", pointer(int64(0)), nil), ErrInvalid, []string{"10m"}},
		{"fault without duration", fault(chaos.Spec{Kind: "freeze", Instance: "orders"}), ErrInvalid, []string{"duration"}},
		{"fault with a negative duration", fault(chaos.Spec{Kind: "freeze", Instance: "orders", Duration: -time.Second}), ErrInvalid, []string{"duration", "-1s"}},
		{"fault of unknown kind", fault(chaos.Spec{Kind: "meteor", Instance: "orders", Duration: time.Second}), ErrInvalid, []string{"meteor", "net-delay"}},
		{"fault with an unknown parameter", fault(chaos.Spec{Kind: "freeze", Instance: "orders", Duration: time.Second, Params: map[string]string{"depth": "3"}}), ErrInvalid, []string{"depth"}},
		{"fault on an unknown instance", fault(chaos.Spec{Kind: "freeze", Instance: "nobody", Duration: time.Second}), ErrInvalid, []string{`"nobody"`}},
		{"fault on one of two instances of one name", fault(chaos.Spec{Kind: "freeze", Instance: "twin", Duration: time.Second}), ErrInvalid, []string{"/a/twin"}},
		{"network fault on the host's network", fault(chaos.Spec{Kind: "net-delay", Instance: "orders", Duration: time.Second, Params: map[string]string{"delay": "10ms"}}), ErrRefused, []string{"network"}},
		{"fault with a uid that is a path", fault(chaos.Spec{UID: "../../etc", Kind: "freeze", Instance: "orders", Duration: time.Second}), ErrInvalid, []string{"uid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorIs(t, c.err, c.kind)
			for _, s := range c.says {
				require.ErrorContains(t, c.err, s)
			}
			require.NotContains(t, c.err.Error(), "\n")
		})
	}
	require.Equal(t, before, f.content(t), "something was written")
	records, err := a.journal.Records()
	require.NoError(t, err)
	require.Empty(t, records)
}

func TestASecondFaultOfTheSameFamilyIsRefused(t *testing.T) {
	f := newFixture(t)
	in := f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	a.faults["first"] = &fault{Fault: state.Fault{UID: "first", Kind: "freeze", Instance: in.ID, Phase: state.FaultActive, Deadline: time.Now().Add(time.Minute)}}
	_, _, err := a.StartFault(t.Context(), chaos.Spec{UID: "second", Kind: "freeze", Instance: "orders", Duration: time.Second}, FaultOptions{})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "first")
	delete(a.faults, "first")
}

func TestAFaultThatCameTooLateIsRefused(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	_, _, err := a.StartFault(t.Context(), chaos.Spec{UID: "late", Kind: "freeze", Instance: "orders", Duration: time.Second}, FaultOptions{NotAfter: time.Now().Add(-time.Minute)})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "has passed")
}

func TestAMissingCapabilityIsRefusedWithItsReason(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	a.capabilities = []state.Capability{{Name: "pin", Detail: "cpuset is not delegated"}}
	a.tick(t.Context())
	_, err := a.Place(t.Context(), "orders", "", nil, PlaceOptions{})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "cpuset is not delegated")
	_, err = a.Resize(t.Context(), "orders", cgroup.Size{CPUMillicores: pointer(int64(1000))}, ResizeOptions{})
	require.ErrorContains(t, err, "not probed")
}

func TestADryRunShowsTheChangesAndMakesNone(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	before := f.content(t)
	out, err := a.Resize(t.Context(), "orders", cgroup.Size{CPUMillicores: pointer(int64(1000)), MemoryBytes: pointer(int64(2) << 30)}, ResizeOptions{DryRun: true})
	require.NoError(t, err)
	require.Len(t, out.Changes, 2)
	require.Contains(t, strings.Join(out.Changes, "\n"), "50000 100000")
	out, err = a.Place(t.Context(), "orders", "", pointer(1), PlaceOptions{DryRun: true})
	require.NoError(t, err)
	require.Contains(t, strings.Join(out.Changes, "\n"), "cpuset.mems")
	_, lines, err := a.StartFault(t.Context(), chaos.Spec{UID: "dry", Kind: "freeze", Instance: "orders", Duration: time.Second}, FaultOptions{DryRun: true})
	require.NoError(t, err)
	require.Len(t, lines, 1)
	require.Empty(t, a.Snapshot().Faults)
	require.Equal(t, before, f.content(t))
}

func TestAFailingSourceKeepsWhatWasFoundBefore(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	require.Len(t, a.Snapshot().Instances, 1)
	f.err = errors.New("proc is on fire")
	a.collector.discovered = time.Time{}
	a.tick(t.Context())
	s := a.Snapshot()
	require.Len(t, s.Instances, 1)
	require.Contains(t, s.Collectors[0].Err, "proc is on fire")
}

func TestAnUnreadableInstanceKeepsItsPlaceWithTheReason(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	f.instance(t, "/db/ledger", "ledger")
	a := f.agent(t)
	require.NoError(t, os.RemoveAll(filepath.Join(f.root, "cgroup/db/ledger")))
	a.tick(t.Context())
	s := a.Snapshot()
	require.Len(t, s.Instances, 2)
	ledger, err := s.Find("ledger")
	require.NoError(t, err)
	require.NotEmpty(t, ledger.Err)
	orders, err := s.Find("orders")
	require.NoError(t, err)
	require.Empty(t, orders.Err)
	require.EqualValues(t, 500, orders.Resources.CPUMillicores)
}

func TestADamagedJournalIsReportedAndDoesNotStopTheStart(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	require.NoError(t, a.journal.Append("x", []byte("{}")))
	a.Close()
	files, err := filepath.Glob(filepath.Join(f.root, "state", "*"))
	require.NoError(t, err)
	damaged := false
	for _, name := range files {
		if fi, err := os.Stat(name); err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, append(b[:len(b)/2:len(b)/2], bytes.Repeat([]byte{0xff}, 64)...), 0o600))
			damaged = true
		}
	}
	require.True(t, damaged, "no journal file to damage in %v", files)
	a = f.agent(t)
	require.NotEmpty(t, a.Snapshot().Journal)
	kept, err := filepath.Glob(filepath.Join(f.root, "state", "*damaged*"))
	require.NoError(t, err)
	require.NotEmpty(t, kept)
}

func TestGroupEndsAllServicesWithTheFirstError(t *testing.T) {
	boom := errors.New("boom")
	ended := false
	err := Group(t.Context(),
		Service{Name: "steady", Run: func(ctx context.Context) error { <-ctx.Done(); ended = true; return nil }},
		Service{Name: "broken", Run: func(context.Context) error { return boom }},
	)
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "broken")
	require.True(t, ended)
}

func TestConfigReportsEverythingThatIsWrong(t *testing.T) {
	c := Default()
	require.NoError(t, c.Validate())
	c.NodeName, c.Socket, c.Probe, c.Tick = "", "relative.sock", "magic", time.Millisecond
	err := c.Validate()
	for _, s := range []string{"--node", "relative.sock", "magic", "--tick"} {
		require.ErrorContains(t, err, s)
	}
}
