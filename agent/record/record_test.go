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
	return &Session{
		ID: "db/pg-0/postgres", Kind: KindLogin, Connection: connection, Client: netip.MustParseAddrPort("10.0.0.1:4711"),
		User: "app", Database: "shop", At: at(),
	}
}

// records are the lines written so far.
func records(t *testing.T, out *bytes.Buffer) []Record {
	t.Helper()
	var all []Record
	for line := range strings.Lines(out.String()) {
		var rec Record
		require.NoError(t, json.Unmarshal([]byte(line), &rec), line)
		all = append(all, rec)
	}
	return all
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
		{Statement{Slow: true, Audited: true, Privileges: true}, KindSlow},
		{Statement{Privileges: true}, ""},
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

func TestWhatIsPlentyPushesOutNeitherWhatIsRareNorOtherInstances(t *testing.T) {
	var out bytes.Buffer
	r := open(t, &out)
	r.Watch(map[string]Origin{"db/pg-0/postgres": {Sessions: true}, "other": {Sessions: true}})
	for range burst + 10 {
		r.Statement(slow(1))
	}
	r.Session(&Session{ID: "db/pg-0/postgres", Kind: KindRefused, User: "eve"})
	r.Statement(&Statement{ID: "db/pg-0/postgres", Audited: true, Operation: "ddl"})
	r.Session(&Session{ID: "other", Kind: KindLogin, User: "app"})
	stats := r.Stats()
	require.Equal(t, map[string]uint64{"db/pg-0/postgres": 10, "other": 0}, stats.LimitedOf)
	require.Equal(t, uint64(burst-waitingPlenty), stats.SinkFull, "the sink has room that is not for them")
	drain(t, r)
	all := records(t, &out)
	require.Len(t, all, waitingPlenty+3)
	require.Equal(t, []string{KindRefused, KindDDL, KindLogin}, []string{all[waitingPlenty].Kind, all[waitingPlenty+1].Kind, all[waitingPlenty+2].Kind})
	r.Watch(map[string]Origin{"other": {}})
	require.Equal(t, map[string]uint64{"other": 0}, r.Stats().LimitedOf)
	require.Equal(t, uint64(10), r.Stats().Limited, "no count falls")
}

func TestASubscriberIsToldOfWhatWasOverTheRate(t *testing.T) {
	now := at()
	r := New("node-a", nil, WithClock(func() time.Time { return now }))
	r.Watch(map[string]Origin{"db/pg-0/postgres": {}})
	s, cancel := r.Subscribe("", []string{KindDDL})
	defer cancel()
	all, cancelAll := r.Subscribe("", nil)
	defer cancelAll()
	for range burst + 7 {
		r.Statement(slow(1))
	}
	for range buffered {
		<-all.C
	}
	now = now.Add(time.Second)
	r.Statement(&Statement{ID: "db/pg-0/postgres", Audited: true, Operation: "ddl"})
	require.Zero(t, (<-s.C).Lost, "what it did not subscribe to")
	require.Equal(t, uint64(burst+7-buffered), (<-all.C).Lost)
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

func TestAUserIsNamedOnlyWhereTheStatementCameFromWhereTheLoginDid(t *testing.T) {
	r := New("node-a", nil, WithClock(at))
	r.Watch(map[string]Origin{"db/pg-0/postgres": {Sessions: true}})
	s, cancel := r.Subscribe("", nil)
	defer cancel()
	user := func(statement *Statement) string {
		r.Statement(statement)
		return (<-s.C).User
	}
	local := func(connection uint64) *Statement {
		x := slow(connection)
		x.Client = netip.AddrPort{}
		return x
	}
	r.Session(login(7))
	<-s.C
	require.Equal(t, "app", user(slow(7)))
	next := slow(7)
	next.Client = netip.MustParseAddrPort("10.0.0.1:4712")
	require.Empty(t, user(next), "a connection whose logout and login were lost")
	require.Empty(t, user(local(7)))
	r.Session(&Session{ID: "db/pg-0/postgres", Kind: KindLogout, Connection: 7, Client: next.Client})
	out := <-s.C
	require.Equal(t, []string{"", "10.0.0.1:4712"}, []string{out.User, out.Client}, "its logout is not the other's")
	require.Empty(t, user(slow(7)))

	r.Session(&Session{ID: "db/pg-0/postgres", Kind: KindLogin, Connection: 8, User: "root"})
	r.Session(login(9))
	<-s.C
	<-s.C
	require.Equal(t, "root", user(local(8)))
	r.SessionsLost()
	require.Empty(t, user(local(8)), "nothing tells whose a local socket is now")
	require.Equal(t, "app", user(slow(9)))
	r.Session(&Session{ID: "db/pg-0/postgres", Kind: KindLogout, Connection: 9})
	out = <-s.C
	require.Equal(t, []string{"app", "10.0.0.1:4711"}, []string{out.User, out.Client}, "a process that ended is told of without an address")
}

func TestNamesAreMadeFitForTheWire(t *testing.T) {
	for name, want := range map[string]string{
		"":                                 "",
		"app":                              "app",
		"\xff":                             `\xff`,
		"\xd5\xc5\xc8\xfd":                 `\xd5\xc5\xc8\xfd`,
		"\u5f20\u4e09":                     "\u5f20\u4e09",
		"\u5f20\xe4\xb8":                   "\u5f20" + `\xe4\xb8`,
		"\ufffd":                           "\ufffd",
		strings.Repeat("x", 200):           strings.Repeat("x", maxName),
		"x" + strings.Repeat("\u5f20", 50): "x" + strings.Repeat("\u5f20", (maxName-1)/3),
		strings.Repeat("\xff", 64):         strings.Repeat(`\xff`, maxName/4),
	} {
		require.Equal(t, want, short(name), "%q", name)
	}
}

// disk is a sink that takes a part of each line and fails while it is full.
type disk struct {
	bytes.Buffer
	full bool
}

func (d *disk) Write(line []byte) (int, error) {
	if !d.full {
		return d.Buffer.Write(line)
	}
	n, _ := d.Buffer.Write(line[:min(5, len(line))])
	return n, errors.New("no space left on device")
}

func TestASinkThatFailsIsCountedAndCostsNoLineButItsOwn(t *testing.T) {
	out := new(disk)
	r := New("node-a", out, WithClock(at))
	r.Watch(map[string]Origin{"db/pg-0/postgres": {}})
	write := func(full bool) {
		out.full = full
		r.Statement(slow(1))
		drain(t, r)
	}
	write(false)
	require.NoError(t, r.Stats().SinkErr)
	write(true)
	write(true)
	require.Equal(t, uint64(2), r.Stats().SinkFailed)
	require.ErrorContains(t, r.Stats().SinkErr, "no space left")
	write(false)
	write(false)
	require.NoError(t, r.Stats().SinkErr)
	require.Equal(t, uint64(2), r.Stats().SinkFailed)
	var whole int
	for line := range strings.Lines(out.String()) {
		if json.Valid([]byte(line)) {
			whole++
		}
	}
	require.Equal(t, 3, whole, out.String())
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
