//go:build kernel

package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

// TestMain lets the test binary stand in for the agent's own, which starts
// itself again as a keeper.
func TestMain(m *testing.M) {
	if os.Args[0] == "mooring-agent" {
		os.Exit(start(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// node is two Redis servers under one agent.
type node struct {
	t      *testing.T
	dir    string
	orders *kerneltest.Database
	ledger *kerneltest.Database
	cmd    *exec.Cmd
	client agentpb.AgentClient
	// exe is the program to start, the test's own when empty, and attr how.
	exe  string
	attr *syscall.SysProcAttr
}

func newNode(t *testing.T) *node {
	// On a disk, as an agent's state is: the timer of block requests is tried there.
	dir, err := os.MkdirTemp("/scratch", "agent")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	n := &node{t: t, dir: dir}
	n.orders = kerneltest.Redis(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	n.ledger = kerneltest.Redis(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	conn, err := grpc.NewClient("unix:"+filepath.Join(n.dir, "s"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	n.client = agentpb.NewAgentClient(conn)
	t.Cleanup(func() {
		if n.cmd != nil {
			n.end(syscall.SIGKILL)
		}
		// Whatever a failed test left frozen must thaw, or nothing ends.
		for _, db := range []*kerneltest.Database{n.orders, n.ledger} {
			_ = os.WriteFile(filepath.Join(db.Cgroup, "cgroup.freeze"), []byte("0"), 0)
		}
	})
	return n
}

// start runs an agent and waits until it sees both servers.
func (n *node) start() {
	n.t.Helper()
	log, err := os.OpenFile(filepath.Join(n.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(n.t, err)
	defer log.Close()
	n.cmd = exec.Command(cmp.Or(n.exe, "/proc/self/exe"), "--state-dir", filepath.Join(n.dir, "state"), "--socket", filepath.Join(n.dir, "s"),
		"--metrics", "127.0.0.1:0", "--discover", "1s")
	n.cmd.Args[0] = "mooring-agent"
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.SysProcAttr = log, log, n.attr
	require.NoError(n.t, n.cmd.Start())
	require.Eventually(n.t, func() bool { return len(n.status().GetInstances()) == 2 }, 2*time.Minute, 100*time.Millisecond, "%s", n.log())
}

// end signals the agent and waits for it to be gone.
func (n *node) end(sig syscall.Signal) error {
	n.t.Helper()
	require.NoError(n.t, n.cmd.Process.Signal(sig))
	err := n.cmd.Wait()
	n.cmd = nil
	return err
}

func (n *node) log() string {
	b, err := os.ReadFile(filepath.Join(n.dir, "log"))
	require.NoError(n.t, err)
	return string(b)
}

// status is nil while the agent does not answer.
func (n *node) status() *agentpb.StatusReply {
	s, err := n.client.Status(n.t.Context(), &agentpb.StatusRequest{}, grpc.WaitForReady(false))
	if err != nil {
		return nil
	}
	return s
}

// phase is where the agent says a fault stands.
func (n *node) phase(uid string) string {
	for _, f := range n.status().GetFaults() {
		if f.GetUid() == uid {
			return f.GetPhase()
		}
	}
	return "unknown"
}

func (n *node) apply(r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	return n.client.Apply(ctx, r, grpc.WaitForReady(true))
}

// id is what the agent calls the server in this cgroup.
func id(db *kerneltest.Database) string { return "/" + filepath.Base(db.Cgroup) }

func (n *node) freeze(uid string, d time.Duration) *agentpb.Fault {
	n.t.Helper()
	r, err := n.apply(&agentpb.ApplyRequest{Uid: uid, Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Fault{
		Fault: &agentpb.FaultSpec{Kind: "freeze", Duration: durationpb.New(d)},
	}})
	require.NoError(n.t, err)
	require.True(n.t, frozen(n.orders))
	require.False(n.t, frozen(n.ledger))
	require.NoError(n.t, ping(n.ledger), "the neighbour answers")
	return r.GetFault()
}

func frozen(db *kerneltest.Database) bool {
	b, err := os.ReadFile(filepath.Join(db.Cgroup, "cgroup.events"))
	return err == nil && strings.Contains(string(b), "frozen 1")
}

// ping asks a Redis server for one reply.
func ping(db *kerneltest.Database) error {
	c, err := net.DialTimeout("tcp", db.Address(), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	fmt.Fprint(c, "*1\r\n$4\r\nPING\r\n")
	reply, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && reply != "+PONG\r\n" {
		err = fmt.Errorf("reply %q", reply)
	}
	return err
}

// controls is every control file an operation of ours may write.
func (n *node) controls() map[string]string {
	all := map[string]string{}
	for _, db := range []*kerneltest.Database{n.orders, n.ledger} {
		for _, f := range []string{"cpu.max", "memory.max", "cpuset.cpus", "cpuset.mems", "cgroup.freeze"} {
			b, err := os.ReadFile(filepath.Join(db.Cgroup, f))
			require.NoError(n.t, err)
			all[filepath.Join(db.Cgroup, f)] = strings.TrimSpace(string(b))
		}
	}
	return all
}

func TestAgentOnARealKernel(t *testing.T) {
	n := newNode(t)
	n.start()
	t.Run("all probes of a stock kernel succeed", func(t *testing.T) {
		for _, c := range n.status().GetCapabilities() {
			require.True(t, c.GetOk(), "%s: %s", c.GetName(), c.GetDetail())
		}
		require.Equal(t, "fentry", n.status().GetProbe().GetMode())
	})
	t.Run("bad requests change nothing on the node", n.badRequests)
	t.Run("a resize up and down is read back", n.resizes)
	t.Run("a pin confines memory and can be given back", n.pins)
	t.Run("a stopped agent ends its faults first", func(t *testing.T) {
		n.freeze("f-term", time.Minute)
		require.NoError(t, n.end(syscall.SIGTERM))
		require.False(t, frozen(n.orders))
		require.NoError(t, ping(n.orders))
		n.start()
	})
	t.Run("the same fault asked for twice is one fault", func(t *testing.T) {
		first, second := n.freeze("f-twice", time.Minute), n.freeze("f-twice", time.Minute)
		require.Equal(t, first.GetStarted().AsTime(), second.GetStarted().AsTime())
		r, err := n.apply(&agentpb.ApplyRequest{Uid: "f-twice", Withdraw: true})
		require.NoError(t, err)
		require.Equal(t, "ended", r.GetFault().GetPhase())
		require.False(t, frozen(n.orders))
	})
	t.Run("a fault ends at its deadline", func(t *testing.T) {
		f := n.freeze("f-deadline", 5*time.Second)
		require.Eventually(t, func() bool { return !frozen(n.orders) }, 20*time.Second, time.Millisecond)
		require.WithinRange(t, time.Now(), f.GetDeadline().AsTime(), f.GetDeadline().AsTime().Add(time.Second))
		// The keeper may have been quicker than the agent, which then verifies.
		require.Eventually(t, func() bool { return n.phase("f-deadline") == "ended" }, 10*time.Second, 20*time.Millisecond)
	})
	t.Run("a killed agent's freeze is undone by the next one", func(t *testing.T) {
		n.freeze("f-kill", 5*time.Minute)
		require.Error(t, n.end(syscall.SIGKILL))
		require.True(t, frozen(n.orders))
		restarted := time.Now()
		n.start()
		require.False(t, frozen(n.orders))
		undone := n.logged("operation undone", "uid=f-kill")
		require.Less(t, undone.Sub(restarted), 2*time.Second)
	})
	t.Run("a killed agent's freeze ends at its deadline with no agent at all", func(t *testing.T) {
		f := n.freeze("f-keeper", 5*time.Second)
		require.Error(t, n.end(syscall.SIGKILL))
		require.True(t, frozen(n.orders))
		require.Eventually(t, func() bool { return !frozen(n.orders) }, 30*time.Second, time.Millisecond)
		require.WithinRange(t, time.Now(), f.GetDeadline().AsTime().Add(-50*time.Millisecond), f.GetDeadline().AsTime().Add(time.Second))
		require.NoError(t, ping(n.orders))
	})
	t.Run("a damaged journal is set aside and the agent starts", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(n.dir, "state", "journal"), []byte("garbage\x00\xff"), 0o600))
		n.start()
		require.Contains(t, n.status().GetJournal(), "damaged")
	})
}

// logged is when the agent last wrote a line with all of these words.
func (n *node) logged(words ...string) time.Time {
	n.t.Helper()
	var at time.Time
	for line := range strings.Lines(n.log()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if stamp, _, ok := strings.Cut(strings.TrimPrefix(line, "time="), " "); all && ok {
			var err error
			at, err = time.Parse(time.RFC3339Nano, stamp)
			require.NoError(n.t, err)
		}
	}
	require.False(n.t, at.IsZero(), "no line with %q in\n%s", words, n.log())
	return at
}

func (n *node) badRequests(t *testing.T) {
	before := n.controls()
	fault := func(d time.Duration, kind string) *agentpb.ApplyRequest {
		return &agentpb.ApplyRequest{Uid: "bad", Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Fault{
			Fault: &agentpb.FaultSpec{Kind: kind, Duration: durationpb.New(d)},
		}}
	}
	seven, tooMuch, tooLittle := int32(7), int64(1)<<50, int64(4096)
	for name, c := range map[string]struct {
		request *agentpb.ApplyRequest
		code    codes.Code
		says    string
	}{
		"no such node":       {&agentpb.ApplyRequest{Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Placement{Placement: &agentpb.Placement{Node: &seven}}}, codes.FailedPrecondition, "NUMA node 7"},
		"no such instance":   {&agentpb.ApplyRequest{Instance: "ghost", Desired: &agentpb.ApplyRequest_Placement{Placement: &agentpb.Placement{}}}, codes.InvalidArgument, "ghost"},
		"beyond the machine": {&agentpb.ApplyRequest{Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Size{Size: &agentpb.Size{MemoryBytes: &tooMuch}}}, codes.FailedPrecondition, "more than this machine has"},
		"below use":          {&agentpb.ApplyRequest{Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Size{Size: &agentpb.Size{MemoryBytes: &tooLittle}}}, codes.FailedPrecondition, "--force"},
		"no duration":        {fault(0, "freeze"), codes.InvalidArgument, "duration"},
		"negative duration":  {fault(-time.Second, "freeze"), codes.InvalidArgument, "duration"},
		"unknown fault":      {fault(time.Second, "meteor"), codes.InvalidArgument, "meteor"},
		"host network":       {&agentpb.ApplyRequest{Uid: "bad", Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Fault{Fault: &agentpb.FaultSpec{Kind: "net-loss", Params: map[string]string{"percent": "100"}, Duration: durationpb.New(time.Second)}}}, codes.FailedPrecondition, "network"},
		"nothing asked":      {&agentpb.ApplyRequest{Instance: id(n.orders)}, codes.InvalidArgument, "names no"},
		"unknown withdrawal": {&agentpb.ApplyRequest{Uid: "ghost", Withdraw: true}, codes.InvalidArgument, "ghost"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.apply(c.request)
			require.Equal(t, c.code, status.Code(err), err)
			require.ErrorContains(t, err, c.says)
		})
	}
	require.Equal(t, before, n.controls())
}

func (n *node) resizes(t *testing.T) {
	neighbour := n.controls()
	for _, size := range []struct {
		cpu, memory int64
		max         string
	}{{1000, 256 << 20, "100000 100000"}, {500, 128 << 20, "50000 100000"}} {
		r, err := n.apply(&agentpb.ApplyRequest{Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Size{
			Size: &agentpb.Size{CpuMillicores: &size.cpu, MemoryBytes: &size.memory},
		}})
		require.NoError(t, err)
		require.Equal(t, size.cpu, r.GetResources().GetCpuMillicores())
		now := n.controls()
		require.Equal(t, size.max, now[filepath.Join(n.orders.Cgroup, "cpu.max")])
		require.Equal(t, fmt.Sprint(size.memory), now[filepath.Join(n.orders.Cgroup, "memory.max")])
		require.NoError(t, ping(n.orders))
	}
	now := n.controls()
	for _, f := range []string{"cpu.max", "memory.max"} {
		path := filepath.Join(n.ledger.Cgroup, f)
		require.Equal(t, neighbour[path], now[path], "the neighbour's %s", f)
	}
}

func (n *node) pins(t *testing.T) {
	one := int32(1)
	_, err := n.apply(&agentpb.ApplyRequest{Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Placement{Placement: &agentpb.Placement{Node: &one}}})
	require.NoError(t, err)
	require.Equal(t, "1", n.controls()[filepath.Join(n.orders.Cgroup, "cpuset.mems")])
	require.Eventually(t, func() bool {
		for _, in := range n.status().GetInstances() {
			if in.GetId() == id(n.orders) {
				return in.NumaNode != nil && in.GetNumaNode() == 1 && in.GetLocalShare() > 0.9
			}
		}
		return false
	}, 20*time.Second, 200*time.Millisecond)
	r, err := n.apply(&agentpb.ApplyRequest{Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Placement{Placement: &agentpb.Placement{AllNodes: true}}})
	require.NoError(t, err)
	require.Equal(t, "0-1", r.GetResources().GetMemoryNodes())
}
