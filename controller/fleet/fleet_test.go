package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

func TestAnAgentIsConnectedTo(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	ca.write(dir, "mooring-controller", time.Hour)
	agent := newFakeAgent(t, "", ca, "mooring-agent", time.Hour)
	f, changes := newFleet(t, dir)
	f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
	becomes(t, f, "")
	require.Equal(t, "n1", <-changes)

	t.Run("its status is kept", func(t *testing.T) {
		s, err := f.Status("n1")
		require.NoError(t, err)
		require.Equal(t, "test", s.Reply.GetVersion())
		require.WithinDuration(t, time.Now(), s.At, 20*time.Second)
		require.NotZero(t, s.Session)
		require.Equal(t, map[string]int{"connected": 1}, f.Count())
	})
	t.Run("its news are told, and only news", func(t *testing.T) {
		for len(changes) > 0 {
			<-changes
		}
		agent.set(func(r *agentpb.StatusReply) {
			r.Instances = []*agentpb.Instance{{Id: "a", Resources: &agentpb.Resources{MemoryUsageBytes: 1}}}
		})
		require.Equal(t, "n1", <-changes)
		agent.set(func(r *agentpb.StatusReply) { r.Instances[0].Resources.MemoryUsageBytes = 2 })
		agent.set(func(r *agentpb.StatusReply) { r.Faults = []*agentpb.Fault{{Uid: "f", Phase: "active"}} })
		require.Equal(t, "n1", <-changes)
		require.Empty(t, changes)
		s, err := f.Status("n1")
		require.NoError(t, err)
		require.Equal(t, "f", s.Reply.GetFaults()[0].GetUid())
	})
	t.Run("requests carry the epoch", func(t *testing.T) {
		r := &agentpb.ApplyRequest{Uid: "u", Instance: "i"}
		reply, err := f.Apply(t.Context(), "n1", 0, r)
		require.NoError(t, err)
		require.Equal(t, "i", reply.GetInstance())
		require.EqualValues(t, 7, agent.asked[0].GetEpoch())
		require.Zero(t, r.GetEpoch(), "the caller's request is left alone")
		f.SetEpoch(8)
		_, err = f.Apply(t.Context(), "n1", 0, r)
		require.NoError(t, err)
		require.EqualValues(t, 8, agent.asked[1].GetEpoch())
	})
	t.Run("its refusal is certain", func(t *testing.T) {
		_, err := f.Apply(t.Context(), "n1", 0, &agentpb.ApplyRequest{Uid: "no"})
		require.Equal(t, "it says no", Text(err))
		require.False(t, Uncertain(err))
	})
	t.Run("no answer is not", func(t *testing.T) {
		agent.mu.Lock()
		agent.slow = make(chan struct{})
		agent.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := f.Apply(ctx, "n1", 0, &agentpb.ApplyRequest{Uid: "slow"})
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		require.True(t, Uncertain(err))
	})
	t.Run("one that does not report ready is listened to all the same", func(t *testing.T) {
		f.Set([]Endpoint{{Node: "n1", Address: agent.address}})
		s, err := f.Status("n1")
		require.Equal(t, NotReady, reasonOf(err, nil))
		require.NotNil(t, s.Reply)
	})
	t.Run("one that is not listed any more is let go", func(t *testing.T) {
		f.Set(nil)
		_, err := f.Status("n1")
		require.ErrorContains(t, err, `no agent runs on node "n1"`)
		_, err = f.Apply(t.Context(), "n1", 0, &agentpb.ApplyRequest{})
		require.False(t, Uncertain(err))
	})
}

func TestWhyAnAgentCannotBeAsked(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	for name, c := range map[string]struct {
		ours   *authority
		name   string
		signed *authority
		until  time.Duration
		reply  func(*agentpb.StatusReply)
		want   Reason
		says   string
	}{
		"another authority's agent":  {ca, "mooring-agent", other, time.Hour, nil, Certificate, "certificate"},
		"another name":               {ca, "postgres", ca, time.Hour, nil, Certificate, "postgres"},
		"expired":                    {ca, "mooring-agent", ca, -time.Hour, nil, Certificate, "expired"},
		"our certificate is refused": {other, "mooring-agent", ca, time.Hour, nil, Certificate, "certificate"},
		"too old":                    {ca, "mooring-agent", ca, time.Hour, func(r *agentpb.StatusReply) { r.ProtocolVersion = 1 }, TooOld, "version 1"},
		"another node":               {ca, "mooring-agent", ca, time.Hour, func(r *agentpb.StatusReply) { r.NodeName = "n2" }, WrongNode, `"n2"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.ours.write(dir, "mooring-controller", time.Hour)
			if c.ours != ca {
				// The agent is trusted; it is the agent that does not trust us.
				require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), ca.pem, 0o600))
			}
			agent := newFakeAgent(t, "", c.signed, c.name, c.until)
			if c.reply != nil {
				c.reply(agent.reply)
			}
			f, _ := newFleet(t, dir)
			f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
			becomes(t, f, c.want)
			_, err := f.Status("n1")
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, `"n1"`)
			_, err = f.Apply(t.Context(), "n1", 0, &agentpb.ApplyRequest{Uid: "u"})
			require.Error(t, err)
			require.False(t, Uncertain(err))
			require.Empty(t, agent.asked, "nothing was asked of it")
		})
	}
	t.Run("no files", func(t *testing.T) {
		agent := newFakeAgent(t, "", ca, "mooring-agent", time.Hour)
		f, _ := newFleet(t, t.TempDir())
		f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
		becomes(t, f, Certificate)
		_, err := f.Status("n1")
		require.ErrorContains(t, err, "tls.crt")
	})
	t.Run("nobody there", func(t *testing.T) {
		dir := t.TempDir()
		ca.write(dir, "mooring-controller", time.Hour)
		f, _ := newFleet(t, dir)
		f.Set([]Endpoint{{Node: "n1", Address: "127.0.0.1:1", Ready: true}})
		becomes(t, f, Unreachable)
	})
	t.Run("silent", func(t *testing.T) {
		dir := t.TempDir()
		ca.write(dir, "mooring-controller", time.Hour)
		agent := newFakeAgent(t, "", ca, "mooring-agent", time.Hour)
		f, changes := newFleet(t, dir)
		f.stale = 300 * time.Millisecond
		f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
		require.Equal(t, "n1", <-changes)
		becomes(t, f, Stale)
	})
	t.Run("not leading", func(t *testing.T) {
		dir := t.TempDir()
		ca.write(dir, "mooring-controller", time.Hour)
		agent := newFakeAgent(t, "", ca, "mooring-agent", time.Hour)
		f, _ := newFleet(t, dir)
		f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
		becomes(t, f, "")
		f.SetEpoch(0)
		becomes(t, f, NotLeading)
		_, err := f.Apply(t.Context(), "n1", 0, &agentpb.ApplyRequest{Uid: "u"})
		require.ErrorContains(t, err, "does not lead")
		require.Empty(t, f.Count())
		f.SetEpoch(9)
		becomes(t, f, "")
	})
}

func TestConnectionsComeBack(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	ca.write(dir, "mooring-controller", time.Hour)
	agent := newFakeAgent(t, "", ca, "mooring-agent", time.Hour)
	f, _ := newFleet(t, dir)
	f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
	becomes(t, f, "")
	before, err := f.Status("n1")
	require.NoError(t, err)

	agent.server.Stop()
	becomes(t, f, Unreachable)
	again := newFakeAgent(t, agent.address, ca, "mooring-agent", time.Hour)
	becomes(t, f, "")
	t.Run("in another session, in which an earlier decision does not hold", func(t *testing.T) {
		after, err := f.Status("n1")
		require.NoError(t, err)
		require.NotEqual(t, before.Session, after.Session)
		_, err = f.Apply(t.Context(), "n1", before.Session, &agentpb.ApplyRequest{Uid: "u"})
		require.Equal(t, Replaced, reasonOf(err, nil))
		require.Empty(t, again.asked)
		_, err = f.Apply(t.Context(), "n1", after.Session, &agentpb.ApplyRequest{Uid: "u"})
		require.NoError(t, err)
	})
}

func TestCertificatesAreRotatedWithoutARestart(t *testing.T) {
	old, new, dir := newAuthority(t), newAuthority(t), t.TempDir()
	old.write(dir, "mooring-controller", time.Hour)
	agent := newFakeAgent(t, "", old, "mooring-agent", time.Hour)
	f, _ := newFleet(t, dir)
	f.Set([]Endpoint{{Node: "n1", Address: agent.address, Ready: true}})
	becomes(t, f, "")
	agent.server.Stop()
	newFakeAgent(t, agent.address, new, "mooring-agent", time.Hour)
	becomes(t, f, Certificate)

	t.Run("a pair that cannot be read keeps the one before", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tls.key"), []byte("half a fil"), 0o600))
		f.files.mu.Lock()
		f.files.looked = time.Time{}
		f.files.mu.Unlock()
		c, err := f.files.current()
		require.NoError(t, err)
		require.NotNil(t, c)
	})
	t.Run("a good one is taken up", func(t *testing.T) {
		new.write(dir, "mooring-controller", time.Hour)
		becomes(t, f, "")
	})
}

func TestManyAgentsCostLittle(t *testing.T) {
	const n = 200
	ca, dir := newAuthority(t), t.TempDir()
	ca.write(dir, "mooring-controller", time.Hour)
	before := runtime.NumGoroutine()
	f, _ := newFleet(t, dir)
	var all []Endpoint
	for i := range n {
		all = append(all, Endpoint{Node: fmt.Sprint("n", i), Address: "127.0.0.1:1", Ready: true})
	}
	f.Set(all)
	require.Eventually(t, func() bool { return f.Count()[string(Unreachable)] == n }, 30*time.Second, 10*time.Millisecond)
	f.Set(all)
	f.Close()
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, 10*time.Second, 10*time.Millisecond)
}
