package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// nowhere is a kubeconfig whose API server nobody serves.
const nowhere = `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
`

// containerPath is the cgroup of container number i of the pod of ledger.
func containerPath(i int) string {
	return "/kubepods/burstable/pod" + uid1 + "/" + strings.Repeat("ab", 31) + fmt.Sprintf("%02d", i)
}

// process writes a PostgreSQL server into the fixture's /proc, in a cgroup that
// is made as well.
func (f *fixture) process(t *testing.T, pid int, group, mounts string) {
	t.Helper()
	dir := filepath.Join(f.root, "proc", fmt.Sprint(pid))
	link := func(name, target string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	link("exe", "/usr/lib/postgresql/16/bin/postgres")
	link("cwd", t.TempDir())
	link("ns/net", "net:[4026531840]")
	link("fd/3", "socket:[77]")
	write(t, filepath.Join(dir, "stat"), fmt.Sprintf("%d (postgres) S 1 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 %d 100 200\n", pid, 1000+pid))
	write(t, filepath.Join(dir, "cmdline"), "postgres\x00")
	write(t, filepath.Join(dir, "cgroup"), "0::"+group+"\n")
	write(t, filepath.Join(dir, "mountinfo"), mounts)
	tcp := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	write(t, filepath.Join(dir, "net/tcp6"), tcp)
	write(t, filepath.Join(dir, "net/tcp"), tcp+"   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 77 1 0 100 0 0 10 0\n")
	write(t, filepath.Join(dir, "net/unix"), "Num       RefCount Protocol Flags    Type St Inode Path\n")
	f.instance(t, group, "ignored")
	write(t, filepath.Join(f.root, "cgroup", group, "cgroup.procs"), fmt.Sprintln(pid))
}

// TestARestartWithNoAPIServerChangesNothing goes through an agent's life on a
// node whose API server is away from beginning to end.
func TestARestartWithNoAPIServerChangesNothing(t *testing.T) {
	f := newFixture(t)
	write(t, filepath.Join(f.root, "kubeconfig"), nowhere)
	require.NoError(t, os.MkdirAll(filepath.Join(f.root, "proc/1/ns"), 0o755))
	require.NoError(t, os.Symlink("net:[4026531840]", filepath.Join(f.root, "proc/1/ns/net")))
	f.process(t, 100, containerPath(1), "1 0 8:1 /var/lib/kubelet/pods/"+uid1+"/containers/db/5f1a /dev/termination-log rw - ext4 /dev/sda1 rw\n")
	agent := func() *Agent {
		cfg := Default()
		cfg.NodeName, cfg.Probe, cfg.Kubernetes, cfg.Kubeconfig = "n1", "off", true, filepath.Join(f.root, "kubeconfig")
		cfg.StateDir = filepath.Join(f.root, "state")
		cfg.ProcRoot, cfg.SysRoot, cfg.CgroupRoot = filepath.Join(f.root, "proc"), filepath.Join(f.root, "sys"), filepath.Join(f.root, "cgroup")
		a, err := New(cfg, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		t.Cleanup(a.Close)
		a.tick(t.Context())
		return a
	}
	find := func(a *Agent) state.InstanceStatus {
		s := a.Snapshot()
		require.Len(t, s.Instances, 1, s.Unresolved)
		return s.Instances[0]
	}

	a := agent()
	require.Equal(t, containerPath(1), find(a).ID, "nothing is declared yet")
	require.NoError(t, a.SetPolicy(t.Context(), "d1", []state.Declared{ledger()}, false))
	a.tick(t.Context())
	before := find(a)
	require.Equal(t, "bank/ledger-0/db", before.ID)
	require.Equal(t, "primary", before.Declared.Role)
	require.NoError(t, a.desired.seen.save(a.seenPath(), a.pods.Seen()))
	a.Close()

	// The container's name is known from before only.
	write(t, filepath.Join(f.root, "proc/100/mountinfo"), "")
	a = agent()
	require.Equal(t, before.Instance, find(a).Instance)
	require.Equal(t, "d1", a.Snapshot().PolicyDigest)
	a.Close()

	// Its container is made again while nobody looks.
	require.NoError(t, os.RemoveAll(filepath.Join(f.root, "proc/100")))
	require.NoError(t, os.RemoveAll(filepath.Join(f.root, "cgroup", containerPath(1))))
	f.process(t, 200, containerPath(2), "")
	a = agent()
	after := find(a)
	require.Equal(t, before.ID, after.ID)
	require.NotEqual(t, before.Cgroup.Path, after.Cgroup.Path)
	require.Equal(t, 200, after.MainPID)
	a.Close()

	// What was seen is lost: nothing is guessed.
	write(t, filepath.Join(f.root, "state/seen.json"), "{")
	a = agent()
	require.Equal(t, containerPath(2), find(a).ID)
	require.Contains(t, strings.Join(a.Snapshot().Unresolved, "\n"), "whose name only the API server knows")
}
