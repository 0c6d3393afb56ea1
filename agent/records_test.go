package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/digest"
	"github.com/mooring-dev/mooring/agent/record"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

// listener is one end of Records. As on the wire, what cannot be encoded ends it.
type listener struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *agentpb.Record
}

func (l *listener) Context() context.Context { return l.ctx }

func (l *listener) Send(r *agentpb.Record) error {
	if _, err := proto.Marshal(r); err != nil {
		return err
	}
	l.sent <- r
	return nil
}

// recording is an agent with one instance whose statements are watched.
func recording(t *testing.T) *Agent {
	t.Helper()
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	a.probe = state.Probe{Mode: "fentry"}
	a.tick(t.Context())
	a.records.Watch(map[string]record.Origin{"/db/orders": {Engine: "postgresql", Sessions: true}})
	return a
}

func TestRecordsThatWouldNeverComeAreRefused(t *testing.T) {
	a := recording(t)
	s := NewServer(a, slog.New(slog.DiscardHandler))
	for name, c := range map[string]struct {
		request *agentpb.RecordsRequest
		code    codes.Code
		says    string
	}{
		"an unknown instance": {&agentpb.RecordsRequest{Instance: "nobody"}, codes.InvalidArgument, `"nobody"`},
		"an unknown kind":     {&agentpb.RecordsRequest{Kinds: []string{"slow", "ddls"}}, codes.InvalidArgument, `kind "ddls" is none of ["slow" "failed"`},
	} {
		err := s.Records(c.request, nil)
		require.Equal(t, c.code, status.Code(err), name)
		require.ErrorContains(t, err, c.says, name)
	}
	a.probe = state.Probe{Mode: "off", Detail: "switched off by --probe=off"}
	a.tick(t.Context())
	err := s.Records(&agentpb.RecordsRequest{Instance: "orders"}, nil)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "switched off by --probe=off")
	a.snapshot.Store(nil)
	err = s.Records(&agentpb.RecordsRequest{Instance: "orders"}, nil)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "still probing")
}

func TestRecordsAreStreamedWhateverClientsCallThemselves(t *testing.T) {
	a := recording(t)
	s := NewServer(a, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	l := &listener{ctx: ctx, sent: make(chan *agentpb.Record)}
	ended := make(chan error)
	go func() {
		ended <- s.Records(&agentpb.RecordsRequest{Instance: "orders", Kinds: []string{"refused", "slow"}}, l)
	}()
	// Nothing tells that it has subscribed but a record.
	var first *agentpb.Record
	require.Eventually(t, func() bool {
		a.records.Session(&record.Session{ID: "/db/orders", Kind: record.KindRefused, User: "\xff", Database: "a\xd5\xc5", Code: "28P01"})
		select {
		case first = <-l.sent:
			return true
		case <-time.After(10 * time.Millisecond):
			return false
		}
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, []string{`\xff`, `a\xd5\xc5`, "28P01", "refused"}, []string{first.GetUser(), first.GetDatabase(), first.GetCode(), first.GetKind()})
	a.records.Statement(&record.Statement{ID: "/db/orders", Audited: true, Operation: "ddl"})
	a.records.Statement(&record.Statement{ID: "/db/orders", Slow: true, Text: "select ?", Duration: time.Second, Rows: 3})
	for r := range l.sent {
		if r.GetKind() == "slow" {
			require.Equal(t, "select ?", r.GetStatement())
			require.Equal(t, time.Second, r.GetDuration().AsDuration())
			break
		}
		require.Equal(t, "refused", r.GetKind(), "the others were not asked for")
	}
	cancel()
	require.NoError(t, <-ended)
}

func TestLossesOfRecordsAreInTheSnapshot(t *testing.T) {
	log := &logText{}
	a := recording(t)
	a.log = slog.New(slog.NewTextHandler(log, nil))
	full := errors.New("no space left on device")
	disk := &sink{err: full}
	a.records, a.sink = record.New("n1", disk), disk
	a.records.Watch(map[string]record.Origin{"/db/orders": {}})
	write := func() {
		a.records.Statement(&record.Statement{ID: "/db/orders", Slow: true})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, a.records.Run(ctx))
		a.tick(t.Context())
	}
	write()
	write()
	s := a.Snapshot()
	require.Equal(t, map[string]uint64{"limited": 0, "sink_full": 0, "sink_failed": 2, "subscriber": 0}, s.Records.Lost)
	require.Equal(t, uint64(2), s.Records.Made["slow"])
	require.Contains(t, s.Records.Made, "privilege")
	require.Equal(t, map[string]uint64{"/db/orders": 0}, s.Records.Limited)
	require.Equal(t, "2 records could not be written since the agent started: no space left on device", errorOf(s, state.CollectorRecords))
	require.Equal(t, 1, strings.Count(log.String(), "records are lost"), "once, not for each")
	require.Nil(t, s.DigestTable)

	disk.err = nil
	write()
	require.Equal(t, "2 records could not be written since the agent started", errorOf(a.Snapshot(), state.CollectorRecords), "it may fail again at once")
	a.sinkWatch.last = a.sinkWatch.last.Add(-sinkQuiet)
	a.tick(t.Context())
	require.Empty(t, errorOf(a.Snapshot(), state.CollectorRecords))
	require.Equal(t, 1, strings.Count(log.String(), "records are all written again"))
}

// sink is where records go in a test.
type sink struct{ err error }

func (s *sink) Write(line []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	return len(line), nil
}

func (s *sink) Close() error { return nil }

// errorOf is what is wrong with a source of the snapshot.
func errorOf(s *state.Snapshot, name string) string {
	for _, c := range s.Collectors {
		if c.Name == name {
			return c.Err
		}
	}
	return "no such collector"
}

// hostile is a kernel that finds a bug.
type hostile struct{}

func (hostile) MapText(string, uint64, uint32) error             { panic("index out of range") }
func (hostile) Digests(string) ([]digest.Counts, error)          { return nil, nil }
func (hostile) DropDigest(string, uint32) (digest.Counts, error) { return digest.Counts{}, nil }

func TestAnEventThatFindsABugDoesNotEndTheAgent(t *testing.T) {
	log := &logText{}
	a := recording(t)
	a.heard = &heard{log: slog.New(slog.NewTextHandler(log, nil))}
	a.digests = digest.New(hostile{})
	require.NoError(t, a.digests.Watch([]digest.Server{{ID: "/db/orders", Lexer: dialectOf(state.PostgreSQL), Top: 1}}))
	e := events{a.digests, a.records, a.heard}
	for range 3 {
		e.Text(&bpf.Text{ID: "/db/orders", Hash: 1, Text: []byte("select 'hunter2'")})
	}
	e.Session(&bpf.Session{ID: "/db/orders", Event: bpf.SessionLogin, Client: netip.MustParseAddrPort("10.0.0.1:1")})
	require.Equal(t, 1, strings.Count(log.String(), "met a bug"))
	require.Contains(t, log.String(), "index out of range")
	require.NotContains(t, log.String(), "hunter2")
	a.tick(t.Context())
	s := a.Snapshot()
	require.Equal(t, uint64(3), s.Records.Bugs)
	require.Contains(t, errorOf(s, state.CollectorEvents), "3 events met a bug")
	require.Equal(t, uint64(3), s.DigestTable.Texts)
	a.tick(t.Context())
	require.Empty(t, errorOf(a.Snapshot(), state.CollectorEvents), "no more of them came")
}

func TestReadingEventsGoesOnAfterItFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &heard{log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		begins := make(chan time.Time, 100)
		n := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.keepReading(ctx, func(ctx context.Context) error {
				begins <- time.Now()
				switch n++; n {
				case 1:
					return errors.New("ring is closed")
				case 2:
					panic("slice bounds out of range")
				case 3:
					time.Sleep(time.Hour)
					return nil
				}
				<-ctx.Done()
				return nil
			})
		}()
		start := <-begins
		synctest.Wait()
		_, err := h.tell()
		require.ErrorContains(t, err, "ring is closed")
		require.Equal(t, firstRest, (<-begins).Sub(start))
		synctest.Wait()
		_, err = h.tell()
		require.ErrorContains(t, err, "slice bounds")
		require.Equal(t, 3*firstRest, (<-begins).Sub(start), "it rests longer")
		require.Equal(t, time.Hour+4*firstRest, (<-begins).Sub(start), "and begins anew with that after it went well")
		synctest.Wait()
		_, err = h.tell()
		require.NoError(t, err)
		cancel()
		<-done
	})
}

func TestUsersOfLocalConnectionsAreForgottenWhenSessionsWereLost(t *testing.T) {
	a := recording(t)
	a.digests = digest.New(hostile{})
	a.records.Session(&record.Session{ID: "/db/orders", Kind: record.KindLogin, Connection: 7, User: "root"})
	a.readRecords(&state.Snapshot{Probe: state.Probe{Lost: map[string]uint64{"sessions": 0}}})
	require.Equal(t, 1, a.records.Stats().Sessions)
	for lost, left := range []int{1, 0} {
		next := &state.Snapshot{Probe: state.Probe{Lost: map[string]uint64{"sessions": uint64(lost)}}}
		a.readRecords(next)
		require.Equal(t, left, a.records.Stats().Sessions, fmt.Sprint(lost))
	}
	a.records.Session(&record.Session{ID: "/db/orders", Kind: record.KindLogin, Connection: 7, User: "root"})
	for _, lost := range []map[string]uint64{nil, {"sessions": 1}} {
		a.readRecords(&state.Snapshot{Probe: state.Probe{Lost: lost}})
		require.Equal(t, 1, a.records.Stats().Sessions, "no more were lost")
	}
}
