package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func at() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func open(t *testing.T, sink *bytes.Buffer) *Recorder {
	t.Helper()
	r := New("node-a", sink, WithClock(at))
	r.Watch(map[string]Origin{"db/pg-0/postgres": {Namespace: "db", Pod: "pg-0", Engine: "postgresql", Sessions: true}})
	return r
}

// drain writes what waits.
func drain(t *testing.T, r *Recorder) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, r.Run(ctx))
}

func slow(connection uint64) *Statement {
	return &Statement{
		ID: "db/pg-0/postgres", Slow: true, Operation: "select", Ended: at(), Duration: 1500 * time.Millisecond,
		FirstByte: time.Second, Blocked: 250 * time.Millisecond, RequestBytes: 10, ResponseBytes: 20, Rows: 3,
		Connection: connection, Client: netip.MustParseAddrPort("10.0.0.1:4711"), Digest: "00c0ffee00c0ffee", Text: "select ?",
	}
}

func login(connection uint64) *Session {
	return &Session{ID: "db/pg-0/postgres", Kind: KindLogin, Connection: connection, User: "app", Database: "shop", At: at()}
}

func TestALine(t *testing.T) {
	var out bytes.Buffer
	r := open(t, &out)
	r.Session(login(7))
	r.Statement(slow(7))
	r.Session(&Session{ID: "db/pg-0/postgres", Kind: KindLogout, Connection: 7, At: at()})
	r.Statement(slow(7))
	drain(t, r)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 4)
	require.JSONEq(t, `{"time":"2026-03-01T12:00:00Z","node":"node-a","namespace":"db","pod":"pg-0","instance":"db/pg-0/postgres",
		"engine":"postgresql","kind":"slow","user":"app","database":"shop","client":"10.0.0.1:4711","digest":"00c0ffee00c0ffee",
		"statement":"select ?","operation":"select","durationSeconds":1.5,"firstByteSeconds":1,"blockedSeconds":0.25,"rows":3,
		"requestBytes":10,"responseBytes":20}`, lines[1])
	var logout, after Record
	require.NoError(t, json.Unmarshal([]byte(lines[2]), &logout))
	require.Equal(t, "app", logout.User, "a logout says whose it was")
	require.NoError(t, json.Unmarshal([]byte(lines[3]), &after))
	require.Empty(t, after.User, "another connection with that number is somebody else's")
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		s    Statement
		want string
	}{
		{Statement{}, ""},
		{Statement{Failed: true, Slow: true, Audited: true}, KindFailed},
		{Statement{Slow: true, Audited: true, Operation: "ddl"}, KindSlow},
		{Statement{Audited: true, Operation: "select"}, KindRead},
		{Statement{Audited: true, Operation: "update"}, KindWrite},
		{Statement{Audited: true, Operation: "ddl", Text: "create table t (a int)"}, KindDDL},
		{Statement{Audited: true, Operation: "ddl", Privileges: true}, KindPrivilege},
		{Statement{Audited: true, Operation: "set", Privileges: true}, KindPrivilege},
		{Statement{Audited: true, Operation: "admin"}, KindDDL},
		{Statement{Audited: true, Operation: "txn"}, KindStatement},
	} {
		require.Equal(t, c.want, kindOf(&c.s), c.s)
	}
}

func TestTheRateIsLimitedAndCounted(t *testing.T) {
	var out bytes.Buffer
	r := open(t, &out)
	for range burst + 10 {
		r.Statement(slow(1))
	}
	require.Equal(t, uint64(10), r.Stats().Limited)
	require.Equal(t, uint64(burst), r.Stats().Made[KindSlow])
}

func TestASlowSubscriberLosesAndIsTold(t *testing.T) {
	r := New("node-a", nil, WithClock(at))
	r.Watch(map[string]Origin{"db/pg-0/postgres": {}})
	r.Statement(slow(1))
	require.Zero(t, r.Stats().Made[KindSlow], "nobody wants it")
	s, cancel := r.Subscribe("", []string{KindSlow})
	other, cancelOther := r.Subscribe("another", nil)
	defer cancelOther()
	for range buffered + 5 {
		r.Statement(slow(1))
	}
	require.Empty(t, other.C)
	require.Zero(t, (<-s.C).Lost)
	r.Statement(slow(1))
	for range buffered - 1 {
		require.Zero(t, (<-s.C).Lost)
	}
	require.Equal(t, uint64(5), (<-s.C).Lost)
	require.Equal(t, uint64(5), r.Stats().SubscriberLost)
	cancel()
	r.Statement(slow(1))
	require.Empty(t, s.C)
}

func TestSessionsAreBounded(t *testing.T) {
	r := New("node-a", nil)
	r.Watch(map[string]Origin{"db/pg-0/postgres": {}})
	for i := range maxSessions + 100 {
		r.Session(login(uint64(i)))
	}
	require.Equal(t, maxSessions, r.Stats().Sessions)
	r.Session(&Session{ID: "gone", Kind: KindLogin})
	r.Watch(nil)
	require.Zero(t, r.Stats().Sessions, "those of an instance that is gone are forgotten")
}

// broken is a disk without room.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestASinkThatFailsIsCounted(t *testing.T) {
	r := New("node-a", broken{}, WithClock(at))
	r.Watch(map[string]Origin{"db/pg-0/postgres": {}})
	r.Statement(slow(1))
	drain(t, r)
	require.Equal(t, uint64(1), r.Stats().SinkFailed)
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.json")
	f, err := Open(path, nil)
	require.NoError(t, err)
	_, err = f.Write([]byte("{}\n"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = Open("relative", nil)
	require.Error(t, err)
	_, err = Open("/dev/null", nil)
	require.ErrorContains(t, err, "not a regular file")
	t.Run("a file that was there", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "records.json")
		require.NoError(t, os.WriteFile(path, []byte("{}\n{\"ti"), 0o644))
		for range 2 {
			f, err := Open(path, nil)
			require.NoError(t, err)
			_, err = f.Write([]byte("{}\n"))
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "{}\n{\"ti\n{}\n{}\n", string(text))
	})
	none, err := Open("", nil)
	require.NoError(t, err)
	require.Nil(t, none)
	var out bytes.Buffer
	std, err := Open("stdout", &out)
	require.NoError(t, err)
	_, err = std.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, std.Close())
	require.Equal(t, "x", out.String())
}
