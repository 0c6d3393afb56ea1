//go:build kernel

package bpf

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest/wire"
)

//go:generate go tool bpf2go -target bpfel -tags kernel -type connection -output-stem mongo_probe mongoProbe mongo_probe_test.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// Phases of a connection; see query.h.
const (
	mongoIdle = iota
	mongoRequest
	mongoReply
)

// mongoLab plays messages to the reader of query_mongo.h without a socket.
type mongoLab struct {
	t    testing.TB
	coll *ebpf.Collection
}

func newMongoLab(t testing.TB) *mongoLab {
	t.Helper()
	require.NoError(t, rlimit.RemoveMemlock())
	spec, err := loadMongoProbe()
	require.NoError(t, err)
	coll, err := ebpf.NewCollection(spec)
	require.NoError(t, err)
	t.Cleanup(coll.Close)
	return &mongoLab{t: t, coll: coll}
}

func (l *mongoLab) reset() {
	l.t.Helper()
	require.NoError(l.t, l.coll.Maps["conversation"].Put(uint32(0), mongoProbeConnection{}))
}

// ask gives the reader the pieces of a request and returns the phase after it.
func (l *mongoLab) ask(pieces ...[]byte) uint32 { return l.run("on_request", pieces) }

func (l *mongoLab) answer(pieces ...[]byte) uint32 { return l.run("on_reply", pieces) }

func (l *mongoLab) run(program string, pieces [][]byte) (phase uint32) {
	l.t.Helper()
	for _, p := range pieces {
		// The bytes behind a piece must not matter.
		memory := append(append([]byte(nil), p...), "\x10ok\x00\x00\x00\x00\x00 insert"...)
		var err error
		args := []uint64{uint64(uintptr(unsafe.Pointer(&memory[0]))), uint64(len(p))}
		phase, err = l.coll.Programs[program].Run(&ebpf.RunOptions{Context: args})
		require.NoError(l.t, err)
		runtime.KeepAlive(memory)
	}
	return phase
}

func (l *mongoLab) state() mongoProbeConnection {
	l.t.Helper()
	var c mongoProbeConnection
	require.NoError(l.t, l.coll.Maps["conversation"].Lookup(uint32(0), &c))
	require.Zero(l.t, c.Unreadable)
	return c
}

// operation is the name of the request's, with a "!" behind it for an error.
func (l *mongoLab) operation() string {
	c := l.state()
	name := operationNames()[c.Operation]
	if c.Error != 0 {
		name += "!"
	}
	return name
}

// split cuts a message as a server reads it: the header, then the rest.
func split(m []byte) [][]byte { return [][]byte{m[:16], m[16:]} }

func TestMongoCommandsAreToldApart(t *testing.T) {
	l := newMongoLab(t)
	for command, want := range map[string]string{
		"find": "read", "aggregate": "read", "count": "read", "distinct": "read", "mapReduce": "read", "getMore": "fetch",
		"killCursors": "fetch", "insert": "insert", "update": "update", "delete": "delete", "findAndModify": "update",
		"findandmodify": "update", "bulkWrite": "write", "create": "ddl", "createIndexes": "ddl", "drop": "ddl",
		"dropDatabase": "ddl", "collMod": "ddl", "collStats": "show", "renameCollection": "ddl", "createUser": "ddl",
		"updateUser": "ddl", "listCollections": "show", "explain": "show", "dbStats": "show", "hello": "ping",
		"ping": "ping", "isMaster": "ping", "ismaster": "ping", "saslStart": "auth", "saslContinue": "auth",
		"authenticate": "auth", "logout": "admin", "commitTransaction": "txn", "abortTransaction": "txn",
		"endSessions": "admin", "killOp": "admin", "buildInfo": "admin", "replSetGetStatus": "admin", "serverStatus": "admin",
		"getParameter": "admin", "getLog": "admin", "x": "other", "": "other", "findMe": "update", "aVeryLongNameOfNoCommandAtAll": "other",
	} {
		m := wire.Msg(0, wire.D{{Name: command, Value: "things"}, {Name: "filter", Value: wire.D{}}, {Name: "$db", Value: "shop"}})
		for _, pieces := range [][][]byte{{m}, split(m)} {
			l.reset()
			require.EqualValues(t, mongoRequest, l.ask(pieces...), command)
			require.Equal(t, want, l.operation(), "%q in %d pieces", command, len(pieces))
			require.EqualValues(t, 1, l.state().Statements)
		}
	}
}

func TestMongoDocumentsMayComeBeforeTheCommand(t *testing.T) {
	l := newMongoLab(t)
	m := wire.MsgSections(0, "documents", []wire.D{{{Name: "a", Value: "find"}}, {{Name: "b", Value: int32(1)}}},
		wire.D{{Name: "insert", Value: "things"}})
	for _, pieces := range [][][]byte{{m}, split(m)} {
		l.reset()
		require.EqualValues(t, mongoRequest, l.ask(pieces...))
		require.Equal(t, "insert", l.operation())
	}
}

func TestMongoAnswers(t *testing.T) {
	l := newMongoLab(t)
	ok := wire.E{Name: "ok", Value: 1.0}
	failed := wire.D{{Name: "ok", Value: 0.0}, {Name: "errmsg", Value: "no such thing"}, {Name: "code", Value: int32(26)}}
	for name, tt := range map[string]struct {
		command string
		answer  []byte
		want    string
		code    uint32
		rows    uint64
	}{
		"yes":               {"find", wire.Msg(0, wire.D{{Name: "cursor", Value: wire.D{}}, ok}), "read", 0, 0},
		"how many":          {"update", wire.Msg(0, wire.D{{Name: "n", Value: int32(3)}, {Name: "nModified", Value: int32(2)}, ok}), "update", 0, 3},
		"a count is no row": {"count", wire.Msg(0, wire.D{{Name: "n", Value: int32(3)}, ok}), "read", 0, 0},
		"no":                {"drop", wire.Msg(0, failed), "ddl!", 26, 0},
		"no as a number":    {"drop", wire.Msg(0, wire.D{{Name: "ok", Value: int32(0)}, {Name: "code", Value: int32(9)}}), "ddl!", 9, 0},
		"no longer primary": {"insert", wire.Msg(0, append(wire.D{{Name: "topologyVersion", Value: wire.D{{Name: "counter", Value: int64(6)}}}}, failed...)), "insert!", 26, 0},
		"a duplicate": {"insert", wire.Msg(0, wire.D{{Name: "n", Value: int32(0)},
			{Name: "writeErrors", Value: []wire.D{{{Name: "index", Value: int32(0)}, {Name: "code", Value: int32(11000)}, {Name: "errmsg", Value: "x"}}}}, ok}), "insert!", 11000, 0},
		"an old answer":  {"hello", wire.LegacyReply(0, wire.D{{Name: "ismaster", Value: true}, ok}), "ping", 0, 0},
		"an old no":      {"hello", wire.LegacyReply(2, wire.D{{Name: "$err", Value: "x"}, {Name: "code", Value: int32(13)}}), "ping!", 13, 0},
		"compressed":     {"find", wire.MongoMessage(wire.MongoCompressed, make([]byte, 40)), "read", 0, 0},
		"cut in the way": {"find", wire.Msg(0, failed)[:30], "read", 0, 0},
	} {
		l.reset()
		l.ask(wire.Msg(0, wire.D{{Name: tt.command, Value: "things"}}))
		require.EqualValues(t, mongoReply, l.answer(tt.answer), name)
		require.Equal(t, tt.want, l.operation(), name)
		require.Equal(t, tt.code, uint32(l.state().Code), name)
		require.Equal(t, tt.code != 0, l.state().Code>>63 == 1, name)
		require.Equal(t, tt.rows, l.state().Rows, name)
	}
}

// A message that nobody answers is no request, however it is cut.
func TestMongoUnansweredMessagesDoNotCount(t *testing.T) {
	l := newMongoLab(t)
	silent := wire.Msg(wire.MongoMoreToCome, wire.D{{Name: "insert", Value: "things"}, {Name: "documents", Value: []byte("0123456789012345678901234567890123456789")}})
	asked := wire.Msg(0, wire.D{{Name: "find", Value: "things"}})
	for name, pieces := range map[string][][]byte{
		"whole": {silent}, "by header": split(silent), "in three": {silent[:16], silent[16:50], silent[50:]},
		"ahead, cut": {silent[:40], silent[40:60], silent[60:]}, "an old insert": {wire.MongoMessage(wire.MongoInsert, make([]byte, 60))},
	} {
		l.reset()
		require.EqualValues(t, mongoIdle, l.ask(pieces...), name)
		require.EqualValues(t, mongoRequest, l.ask(split(asked)...), name)
		require.Equal(t, "read", l.operation(), name)
	}
	l.reset()
	require.EqualValues(t, mongoRequest, l.ask(append(append([]byte(nil), silent...), asked...)))
	require.Equal(t, "read", l.operation(), "behind one read in the same call")
}

// What waits on purpose, or is answered without end, is not timed.
func TestMongoWaitsDoNotCount(t *testing.T) {
	l := newMongoLab(t)
	version := wire.E{Name: "topologyVersion", Value: wire.D{{Name: "counter", Value: int64(6)}}}
	for name, m := range map[string][]byte{
		"a hello that waits": wire.Msg(wire.MongoExhaustAllowed, wire.D{{Name: "hello", Value: int32(1)}, {Name: "helloOk", Value: true}, version, {Name: "maxAwaitTimeMS", Value: int64(10000)}}),
		"an old one":         wire.Msg(0, wire.D{{Name: "isMaster", Value: int32(1)}, version}),
		"a change stream":    wire.Msg(0, wire.D{{Name: "getMore", Value: int64(9)}, {Name: "collection", Value: "things"}, {Name: "batchSize", Value: int32(9)}, {Name: "maxTimeMS", Value: int32(1000)}}),
	} {
		for _, pieces := range [][][]byte{{m}, split(m)} {
			l.reset()
			require.EqualValues(t, mongoIdle, l.ask(pieces...), name)
			require.EqualValues(t, mongoIdle, l.answer(wire.Msg(0, wire.D{{Name: "ok", Value: 1.0}})), name)
		}
	}
	l.reset()
	require.EqualValues(t, mongoRequest, l.ask(wire.Msg(0, wire.D{{Name: "hello", Value: int32(1)}, {Name: "helloOk", Value: true}})))
	l.reset()
	require.EqualValues(t, mongoRequest, l.ask(wire.Msg(wire.MongoExhaustAllowed, wire.D{{Name: "getMore", Value: int64(9)}})))
	require.EqualValues(t, mongoIdle, l.answer(wire.Msg(wire.MongoMoreToCome, wire.D{{Name: "cursor", Value: wire.D{}}})), "more is to come")
	require.EqualValues(t, mongoIdle, l.answer(wire.Msg(0, wire.D{{Name: "cursor", Value: wire.D{}}})))
	require.EqualValues(t, mongoRequest, l.ask(wire.Msg(0, wire.D{{Name: "find", Value: "x"}})), "the connection counts again")
}

func TestMongoLoginsLastUntilTheyAreDone(t *testing.T) {
	l := newMongoLab(t)
	payload := wire.E{Name: "payload", Value: []byte("secret")}
	answer := func(done bool) []byte {
		return wire.Msg(0, wire.D{{Name: "conversationId", Value: int32(1)}, {Name: "done", Value: done}, payload, {Name: "ok", Value: 1.0}})
	}
	l.reset()
	l.ask(split(wire.Msg(0, wire.D{{Name: "saslStart", Value: int32(1)}, payload}))...)
	l.answer(answer(false))
	require.EqualValues(t, mongoRequest, l.ask(split(wire.Msg(0, wire.D{{Name: "saslContinue", Value: int32(1)}, payload}))...))
	l.answer(answer(true))
	require.Equal(t, "auth", l.operation())
	l.ask(wire.Msg(0, wire.D{{Name: "find", Value: "x"}}))
	require.Equal(t, "read", l.operation(), "the login is over")

	l.reset()
	l.ask(wire.Msg(0, wire.D{{Name: "saslStart", Value: int32(1)}}))
	l.answer(answer(false))
	l.ask(wire.Msg(0, wire.D{{Name: "saslContinue", Value: int32(1)}}))
	l.answer(wire.Msg(0, wire.D{{Name: "ok", Value: 0.0}, {Name: "errmsg", Value: "Authentication failed."}, {Name: "code", Value: int32(18)}}))
	require.Equal(t, "auth!", l.operation())
	require.EqualValues(t, 18, uint32(l.state().Code))
	require.Zero(t, l.state().Flags&0x10, "a refused login is over")
}

func TestMongoOldAndForeignMessages(t *testing.T) {
	l := newMongoLab(t)
	hello := wire.LegacyQuery("admin.$cmd", wire.D{{Name: "isMaster", Value: int32(1)}})
	find := wire.LegacyQuery("shop.things", wire.D{})
	for _, pieces := range [][][]byte{{hello}, split(hello)} {
		l.reset()
		require.EqualValues(t, mongoRequest, l.ask(pieces...))
		require.Equal(t, "ping", l.operation())
	}
	for want, m := range map[string][]byte{
		"read": find, "fetch": wire.MongoMessage(wire.MongoGetMore, make([]byte, 30)),
		"other": wire.MongoMessage(wire.MongoCompressed, make([]byte, 30)),
		"tls":   []byte("\x17\x03\x03 a record of TLS"), "auth": []byte("\x16\x03\x01 the first one"),
	} {
		for _, pieces := range [][][]byte{{m}, split(m)} {
			l.reset()
			require.EqualValues(t, mongoRequest, l.ask(pieces...), want)
			require.Equal(t, want, l.operation())
		}
	}
	for name, m := range map[string][]byte{
		"another opcode": wire.MongoMessage(4711, make([]byte, 30)), "too small": append(make([]byte, 12), 0xdd, 7, 0, 0),
		"cut": {1, 2, 3}, "text": []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		l.reset()
		require.EqualValues(t, mongoIdle, l.ask(m), name)
	}
}

// No bytes at all make the reader fail, or count an unreadable message.
func FuzzMongoReader(f *testing.F) {
	f.Add(wire.Msg(0, wire.D{{Name: "find", Value: "x"}}), wire.Msg(0, wire.D{{Name: "ok", Value: 0.0}}), uint8(16))
	f.Add(wire.LegacyQuery("admin.$cmd", wire.D{}), wire.LegacyReply(2, wire.D{}), uint8(3))
	loaded := newMongoLab(f)
	f.Fuzz(func(t *testing.T, request, reply []byte, at uint8) {
		l := &mongoLab{t: t, coll: loaded.coll}
		l.reset()
		cut := min(int(at), len(request))
		for _, p := range [][]byte{request[:cut], request[cut:]} {
			if len(p) > 0 {
				require.LessOrEqual(t, l.ask(p), uint32(mongoReply))
			}
		}
		if len(reply) > 0 {
			require.LessOrEqual(t, l.answer(reply), uint32(mongoReply))
		}
		require.Less(t, int(l.state().Operation), len(operationNames()))
	})
}
