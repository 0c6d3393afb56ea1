package pods

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

const unit = "/system.slice/system-postgresql.slice/postgresql@15-main.service"

var hexID = strings.Repeat("0123456789abcdef", 4)

func instances(tb testing.TB, n *fakeNode) Result {
	tb.Helper()
	out, err := NewStandalone(n.options()).Instances(tb.Context())
	require.NoError(tb, err)
	return out
}

func only(tb testing.TB, r Result) state.Instance {
	tb.Helper()
	require.Len(tb, r.Instances, 1, "unresolved: %v", r.Unresolved)
	require.Empty(tb, r.Unresolved)
	return r.Instances[0]
}

func TestAServiceIsDescribedInFull(t *testing.T) {
	n := newFakeNode(t, "v2").add(
		fakeProcess{pid: 2, exe: "", group: "/"},
		postgres(100, 1, unit, 5432),
		child(101, 100, unit, "/usr/lib/postgresql/15/bin/postgres"),
		child(102, 101, unit, "/usr/bin/dash"), // an archive command
		child(103, 102, unit, "/usr/bin/cp"),
		child(200, 1, "/system.slice/ssh.service", "/usr/sbin/sshd"),
	)
	in := only(t, instances(t, n))
	var data unix.Stat_t
	require.NoError(t, unix.Stat(n.data, &data))
	var dir unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(n.dir, "cgroup", unit), &dir))
	require.Equal(t, state.Instance{
		ID: unit, Name: "postgresql@15-main.service", Engine: state.PostgreSQL, Source: "standalone",
		Cgroup:  state.Cgroup{Version: 2, Path: unit, ID: dir.Ino},
		MainPID: 100, PIDs: []int{100, 101, 102, 103}, Ports: []uint16{5432},
		DataDir: n.data, DataDevice: state.Device{Major: unix.Major(data.Dev), Minor: unix.Minor(data.Dev)},
		NetNS: hostNS, HostNetwork: true,
	}, in)
}

func TestAContainerHasItsLinkAndItsShortID(t *testing.T) {
	n := newFakeNode(t, "v2")
	p := postgres(100, 1, "/docker/"+hexID, 5432)
	p.netns = podNS
	n.links[100] = 17
	in := only(t, instances(t, n.add(p)))
	require.Equal(t, "0123456789ab", in.Name)
	require.EqualValues(t, podNS, in.NetNS)
	require.False(t, in.HostNetwork)
	require.Equal(t, 17, in.HostLink)
}

func TestEveryEngineIsKnownByItsExecutable(t *testing.T) {
	tests := map[string]state.Engine{
		"/usr/lib/postgresql/15/bin/postgres":           state.PostgreSQL,
		"/usr/lib/postgresql/9.6/bin/postmaster":        state.PostgreSQL,
		"/usr/lib/postgresql/15/bin/postgres (deleted)": state.PostgreSQL,
		"/usr/sbin/mysqld":                              state.MySQL,
		"/usr/sbin/mariadbd":                            state.MariaDB,
		"/usr/local/bin/redis-server":                   state.Redis,
		"/usr/bin/redis-check-rdb":                      state.Redis,
		"/usr/bin/valkey-server":                        state.Valkey,
		"/usr/bin/valkey-check-rdb":                     state.Valkey,
		"/usr/bin/mongod":                               state.MongoDB,
		"/usr/local/bin/ferretdb":                       state.FerretDB,
		"/tidb-server":                                  state.TiDB,
		"/home/admin/oceanbase/bin/observer":            state.OceanBase,
		"/opt/opengauss/bin/gaussdb":                    state.OpenGauss,
		"/opt/Kingbase/ES/V8/Server/bin/kingbase":       state.KingbaseES,
	}
	for exe, engine := range tests {
		t.Run(exe, func(t *testing.T) {
			p := postgres(100, 1, unit, 1234)
			p.exe = exe
			require.Equal(t, engine, only(t, instances(t, newFakeNode(t, "v2").add(p))).Engine)
		})
	}
}

func TestWhatIsNoServerIsNotListed(t *testing.T) {
	sentinel := postgres(100, 1, unit, 26379)
	sentinel.exe = "/usr/bin/redis-server"
	sentinel.args = []string{"/usr/bin/redis-sentinel *:26379 [sentinel]"}
	ofValkey := sentinel
	ofValkey.exe, ofValkey.args = "/usr/bin/valkey-check-rdb", []string{"valkey-sentinel *:26379"}
	asOption := sentinel
	asOption.args = []string{"redis-server", "/etc/sentinel.conf", "--sentinel"}
	tests := map[string]struct {
		process fakeProcess
		unknown int
	}{
		"a server's program that does not listen":   {child(100, 1, unit, "/usr/lib/postgresql/15/bin/postgres"), 0},
		"an unknown program that listens":           {fakeProcess{pid: 100, parent: 1, group: unit, exe: "/usr/sbin/nginx", tcp: map[uint64]uint16{8: 80, 9: 443}}, 1},
		"a program that only looks like a server":   {fakeProcess{pid: 100, parent: 1, group: unit, exe: "/usr/bin/postgres_exporter", tcp: map[uint64]uint16{8: 9187}}, 1},
		"a sentinel that set its title":             {sentinel, 1},
		"a sentinel started with an option":         {asOption, 1},
		"a sentinel of Valkey":                      {ofValkey, 1},
		"a kernel thread that owns a kernel socket": {fakeProcess{pid: 100, group: "/", tcp: map[uint64]uint16{8: 2049}}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := instances(t, newFakeNode(t, "v2").add(tt.process))
			require.Empty(t, r.Instances)
			require.Equal(t, tt.unknown, r.UnknownListeners)
		})
	}
}

func TestAServerWithTCPOffIsAnInstanceWithoutPorts(t *testing.T) {
	p := postgres(100, 1, unit, 0)
	p.tcp, p.local = nil, []uint64{500}
	in := only(t, instances(t, newFakeNode(t, "v2").add(p)))
	require.Equal(t, []uint16{}, in.Ports)
}

func TestWrappersInTheSameCgroupAreTheInstances(t *testing.T) {
	group := "/docker/" + hexID
	db := postgres(102, 101, group, 3306)
	db.exe = "/usr/sbin/mariadbd"
	in := only(t, instances(t, newFakeNode(t, "v2").add(
		child(50, 1, "/system.slice/containerd.service", "/usr/bin/containerd-shim"),
		child(100, 50, group, "/usr/bin/tini"),
		child(101, 100, group, "/usr/bin/dash"),
		db,
		child(104, 50, group, "/usr/bin/mysqladmin"), // a health check
		child(105, 104, group, "/usr/bin/grep"),
	)))
	require.Equal(t, 102, in.MainPID)
	require.Equal(t, []int{100, 101, 102, 104, 105}, in.PIDs)
	require.Empty(t, in.Cgroup.Shared)
}

func TestSharedSaysWhoseTheCgroupAlsoIs(t *testing.T) {
	session := "/user.slice/user-0.slice/session-3.scope"
	container := "/docker/" + hexID
	tests := map[string]struct {
		processes []fakeProcess
		want      string
	}{
		"the root cgroup": {
			[]fakeProcess{postgres(100, 1, "/", 5432)}, "root cgroup"},
		"a user's session": {
			[]fakeProcess{
				child(90, 1, session, "/usr/bin/sshd"), child(91, 90, session, "/usr/bin/bash"),
				postgres(100, 1, session, 5432)},
			`process 90 ("sshd") and 1 more that are not the server's`},
		"a sibling in a container": {
			[]fakeProcess{
				child(90, 1, container, "/usr/bin/supervisord"), child(91, 90, container, "/usr/sbin/nginx"),
				postgres(100, 90, container, 5432)},
			`process 91 ("nginx"), which is not the server's`},
		"another process in a cgroup below": {
			[]fakeProcess{postgres(100, 1, unit, 5432), child(91, 1, unit+"/below", "/usr/sbin/nginx")}, `"nginx"`},
		"another server in a cgroup below": {
			[]fakeProcess{postgres(100, 1, unit, 5432), postgres(200, 1, unit+"/below", 5433)}, "2 database servers"},
		"a process outside the pid namespace": {
			[]fakeProcess{postgres(100, 1, unit, 5432), child(0, 1, unit, "/usr/bin/unseen")}, "cannot see"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := instances(t, newFakeNode(t, "v2").add(tt.processes...))
			require.NotEmpty(t, r.Instances)
			require.Contains(t, r.Instances[0].Cgroup.Shared, tt.want)
			require.Contains(t, r.Instances[0].PIDs, 100)
			require.NotContains(t, r.Instances[0].PIDs, 91)
		})
	}
}

func TestSeveralServersInOneCgroupAreToldApart(t *testing.T) {
	local := postgres(120, 1, unit, 0)
	local.tcp, local.local = nil, []uint64{500}
	twin := postgres(130, 1, unit, 5433)
	twin.netns = podNS
	r := instances(t, newFakeNode(t, "v2").add(
		postgres(100, 1, unit, 5432), child(101, 100, unit, "/usr/lib/postgresql/15/bin/postgres"),
		postgres(110, 1, unit, 5433), local, twin))
	require.Equal(t, []string{unit + ":0", unit + ":5432", unit + ":5433:110", unit + ":5433:130"}, ids(r))
	require.Equal(t, []int{100, 101}, r.Instances[1].PIDs)
	for _, in := range r.Instances {
		require.Contains(t, in.Cgroup.Shared, "4 database servers")
	}
}

func TestEveryHierarchyIsUnderstood(t *testing.T) {
	own := map[string]string{"cpu": unit, "cpuset": unit, "memory": unit, "freezer": unit, "blkio": unit}
	for layout, version := range map[string]int{"v2": 2, "v1": 1, "hybrid": 1} {
		t.Run(layout, func(t *testing.T) {
			n := newFakeNode(t, layout).add(postgres(100, 1, unit, 5432))
			cg := only(t, instances(t, n)).Cgroup
			dir := filepath.Join(n.dir, "cgroup", "memory", unit)
			if version == 2 {
				dir = filepath.Join(n.dir, "cgroup", unit)
			}
			var st unix.Stat_t
			require.NoError(t, unix.Stat(dir, &st))
			want := state.Cgroup{Version: version, Path: unit, ID: st.Ino}
			if version == 1 {
				want.Paths = own
			}
			require.Equal(t, want, cg)
		})
	}
}

func TestAControllerWithoutACgroupOfItsOwnIsLeftOut(t *testing.T) {
	p := postgres(100, 1, unit, 5432)
	p.groups = map[string]string{"cpuset": "/", "freezer": "/system.slice", "cpu": "/own"}
	other := child(200, 1, "/system.slice/ssh.service", "/usr/sbin/sshd")
	cg := only(t, instances(t, newFakeNode(t, "v1").add(p, other))).Cgroup
	require.Equal(t, map[string]string{"cpu": "/own", "memory": unit, "blkio": unit}, cg.Paths)
	require.Empty(t, cg.Shared)
}

func TestWhatCannotBeResolvedIsReportedAndNotListed(t *testing.T) {
	outside := newFakeNode(t, "v2").add(postgres(100, 1, "/x", 5432))
	opts := outside.options()
	outside.write("proc/100/cgroup", "0::/../kubepods/x\n")
	r, err := NewStandalone(opts).Instances(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Instances)
	require.Len(t, r.Unresolved, 1)
	require.Contains(t, r.Unresolved[0], "cgroup namespace")

	outside.write("proc/100/cgroup", "0:/x\n")
	r, err = NewStandalone(opts).Instances(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Instances)
	require.Contains(t, r.Unresolved[0], "hierarchy:controllers:path")
}

func TestWhatVanishesDuringAScanIsLeftOut(t *testing.T) {
	for _, gone := range []string{"proc/100/stat", "proc/100/ns/net", "proc/100/fd", "proc/100/cgroup", "proc/100/cwd", "cgroup" + unit} {
		t.Run("without "+gone, func(t *testing.T) {
			n := newFakeNode(t, "v2").add(postgres(100, 1, unit, 5432), postgres(200, 1, "/other", 5433))
			opts := n.options()
			require.NoError(t, os.RemoveAll(filepath.Join(n.dir, gone)))
			r, err := NewStandalone(opts).Instances(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"/other"}, ids(r))
			require.Empty(t, r.Unresolved)
		})
	}
}

func TestAScanFailsWhereNothingCanBeKnown(t *testing.T) {
	n := newFakeNode(t, "v2")
	opts := n.options()
	noProc, noCgroup := opts, opts
	noProc.HostPID = 4711
	_, err := NewStandalone(noProc).Instances(t.Context())
	require.ErrorContains(t, err, "host's network namespace from process 4711 ")
	noCgroup.CgroupRoot = filepath.Join(n.dir, "nothing")
	_, err = NewStandalone(noCgroup).Instances(t.Context())
	require.ErrorContains(t, err, "has the memory controller")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = NewStandalone(opts).Instances(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestALaterScanSeesWhatChanged(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, unit, 5432))
	s := NewStandalone(n.options())
	scan := func() Result {
		n.build()
		r, err := s.Instances(t.Context())
		require.NoError(t, err)
		return r
	}
	require.Equal(t, []uint16{5432}, only(t, scan()).Ports)
	n.processes[1].tcp[5000] = 5433
	require.Equal(t, []uint16{5432, 5433}, only(t, scan()).Ports)
	n.remove(100)
	require.Empty(t, scan().Instances)
	p := postgres(100, 1, "/docker/"+hexID, 6000) // the pid came round again
	require.Equal(t, []uint16{6000}, only(t, func() Result { n.add(p); return scan() }()).Ports)
}

func TestAServerUnderAPidUsedAgainIsLookedAtAnew(t *testing.T) {
	db := postgres(100, 1, unit, 0)
	db.tcp = map[uint64]uint16{8: 5432}
	other := fakeProcess{pid: 200, parent: 1, group: "/x", exe: "/usr/bin/java", tcp: map[uint64]uint16{10: 6000}}
	n := newFakeNode(t, "v2").add(db, other)
	s := NewStandalone(n.options())
	r, err := s.Instances(t.Context())
	require.NoError(t, err)
	require.Equal(t, []uint16{5432}, only(t, r).Ports)

	n.processes[1].start, n.processes[1].tcp, n.processes[2].tcp = 9999, other.tcp, db.tcp
	n.build()
	r, err = s.Instances(t.Context())
	require.NoError(t, err)
	require.Equal(t, []uint16{6000}, only(t, r).Ports)
}

func TestConcurrentScansAgree(t *testing.T) {
	s := NewStandalone(newFakeNode(t, "v2").add(postgres(100, 1, unit, 5432)).options())
	results := make(chan []string, 8)
	for range cap(results) {
		go func() {
			r, err := s.Instances(context.Background())
			if err != nil {
				results <- []string{err.Error()}
				return
			}
			results <- ids(r)
		}()
	}
	for range cap(results) {
		require.Equal(t, []string{unit}, <-results)
	}
}
