package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// recorder is a fakeAgent that sends some records and then waits, or goes away.
type recorder struct {
	fakeAgent
	send   []*agentpb.Record
	leaves bool
	asked  chan *agentpb.RecordsRequest
}

func (r *recorder) Records(ask *agentpb.RecordsRequest, stream grpc.ServerStreamingServer[agentpb.Record]) error {
	r.asked <- ask
	if r.fail != nil {
		return r.fail
	}
	for _, rec := range r.send {
		if err := stream.Send(rec); err != nil {
			return err
		}
	}
	if r.leaves {
		return status.Error(codes.Unavailable, "the agent is stopped")
	}
	<-stream.Context().Done()
	return nil
}

func newRecorder(send ...*agentpb.Record) *recorder {
	return &recorder{send: send, asked: make(chan *agentpb.RecordsRequest, 10)}
}

func slowRecord() *agentpb.Record {
	return &agentpb.Record{
		Time: timestamppb.New(time.Unix(1, 0)), Kind: "slow", Instance: "/db/orders", User: "app", Client: "10.0.0.1:4711",
		Duration: durationpb.New(1500 * time.Millisecond), Rows: 3, Statement: "select ?", Operation: "select",
	}
}

func TestRecordsAreShownUntilTheTimeIsOver(t *testing.T) {
	lost := &agentpb.Record{Kind: "logout", Lost: 5}
	f := newRecorder(slowRecord(), lost)
	code, out, errs := ctl(serve(t, f), "records", "orders", "--kind", "slow,logout", "--kind", "refused", "--timeout", "1s")
	require.Zero(t, code, errs)
	ask := <-f.asked
	require.Equal(t, "orders", ask.GetInstance())
	require.Equal(t, []string{"slow", "logout", "refused"}, ask.GetKinds())
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 4, out)
	require.Contains(t, lines[0], "STATEMENT")
	require.Equal(t, []string{"slow", "/db/orders", "app", "10.0.0.1:4711", "1.5s", "3", "-", "select", "?"}, strings.Fields(lines[1])[1:])
	require.Equal(t, "5 records were missed", lines[2])
	require.Equal(t, []string{"logout", "-", "-", "0s", "0", "-"}, strings.Fields(lines[3])[1:])
}

func TestRecordsAsJSON(t *testing.T) {
	code, out, errs := ctl(serve(t, newRecorder(slowRecord(), slowRecord())), "records", "-o", "json", "--timeout", "1s")
	require.Zero(t, code, errs)
	var n int
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); n++ {
		var rec map[string]any
		require.NoError(t, d.Decode(&rec))
		require.Equal(t, "select ?", rec["statement"])
		require.Equal(t, "1.500s", rec["duration"])
	}
	require.Equal(t, 2, n)
}

func TestNamesThatClientsChoseSteerNoTerminal(t *testing.T) {
	bad := "\x1b]52;c;x\x07\x1b[2J\nroot\u202e\u009b"
	rec := &agentpb.Record{Kind: "refused", Instance: "/db/" + bad, User: bad, Client: bad, Code: bad, Statement: bad}
	code, out, errs := ctl(serve(t, newRecorder(rec)), "records", "--timeout", "1s")
	require.Zero(t, code, errs)
	require.Equal(t, 2, strings.Count(out, "\n"), "a head and one line")
	for _, c := range out {
		require.True(t, c == '\n' || c >= ' ' && c < 0x7f, "%q", out)
	}
	require.Contains(t, out, "?]52;c;x?")
}

func TestRecordsThatAreRefusedOrEnd(t *testing.T) {
	f := newRecorder()
	f.fail = status.Error(codes.InvalidArgument, `kind "ddls" is none of ["slow"]`)
	code, _, errs := ctl(serve(t, f), "records", "--kind", "ddls")
	require.Equal(t, 2, code)
	require.Contains(t, errs, `kind "ddls" is none of`)
	f = newRecorder(slowRecord())
	f.leaves = true
	code, out, errs := ctl(serve(t, f), "records", "--follow")
	require.Equal(t, 1, code)
	require.Contains(t, out, "select ?")
	require.Contains(t, errs, "the agent is stopped")
	code, _, _ = ctl(serve(t, newRecorder()), "records", "a", "b")
	require.Equal(t, 2, code)
}
