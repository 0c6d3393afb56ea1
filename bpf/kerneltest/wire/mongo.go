package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Opcodes and flags of the MongoDB wire protocol.
const (
	MongoReply      = 1
	MongoInsert     = 2002
	MongoQuery      = 2004
	MongoGetMore    = 2005
	MongoCompressed = 2012
	MongoMsg        = 2013

	MongoMoreToCome     = 1 << 1
	MongoExhaustAllowed = 1 << 16
)

// E is an element of a BSON document; D is a document.
type (
	E struct {
		Name  string
		Value any
	}
	D []E
)

// BSON encodes a document. Values may be int32, int64, float64, string, bool,
// []byte, nil, D, or []D for an array of documents.
func BSON(d D) []byte {
	var body []byte
	for _, e := range d {
		kind, value := bsonValue(e.Value)
		body = append(body, kind)
		body = append(body, e.Name...)
		body = append(append(body, 0), value...)
	}
	return append(append(le32(uint32(len(body)+5)), body...), 0)
}

func bsonValue(v any) (kind byte, value []byte) {
	switch v := v.(type) {
	case float64:
		return 0x01, binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))
	case string:
		return 0x02, append(append(le32(uint32(len(v)+1)), v...), 0)
	case D:
		return 0x03, BSON(v)
	case []D:
		var array D
		for i, d := range v {
			array = append(array, E{fmt.Sprint(i), d})
		}
		return 0x04, BSON(array)
	case []byte:
		return 0x05, append(append(le32(uint32(len(v))), 0), v...)
	case bool:
		if v {
			return 0x08, []byte{1}
		}
		return 0x08, []byte{0}
	case int32:
		return 0x10, le32(uint32(v))
	case int64:
		return 0x12, binary.LittleEndian.AppendUint64(nil, uint64(v))
	case nil:
		return 0x0a, nil
	}
	panic(fmt.Sprintf("no BSON for %T", v))
}

// MongoMessage is a message of any opcode.
func MongoMessage(opcode uint32, body []byte) []byte {
	m := append(le32(uint32(16+len(body))), le32(7)...)
	m = append(append(m, le32(0)...), le32(opcode)...)
	return append(m, body...)
}

// Msg is an OP_MSG with one document.
func Msg(flags uint32, d D) []byte {
	return MongoMessage(MongoMsg, append(append(le32(flags), 0), BSON(d)...))
}

// MsgSections is an OP_MSG whose documents come before its command.
func MsgSections(flags uint32, name string, documents []D, d D) []byte {
	section := append([]byte(name), 0)
	for _, doc := range documents {
		section = append(section, BSON(doc)...)
	}
	body := append(le32(flags), 1)
	body = append(append(body, le32(uint32(len(section)+4))...), section...)
	return MongoMessage(MongoMsg, append(append(body, 0), BSON(d)...))
}

// LegacyQuery is an OP_QUERY.
func LegacyQuery(collection string, d D) []byte {
	body := append(append(le32(0), collection...), 0)
	body = append(append(body, le32(0)...), le32(0xffffffff)...)
	return MongoMessage(MongoQuery, append(body, BSON(d)...))
}

// LegacyReply is an OP_REPLY with one document.
func LegacyReply(flags uint32, d D) []byte {
	body := append(le32(flags), make([]byte, 12)...)
	return MongoMessage(MongoReply, append(append(body, le32(1)...), BSON(d)...))
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// Mongo are the scenarios of the MongoDB protocol, as mongod reads it: the header
// first.
func Mongo() []Scenario {
	done := D{{"ok", 1.0}}
	asked := func(m []byte) Step { return Client(m[:16], m[16:]) }
	find := asked(Msg(0, D{{"find", "things"}, {"filter", D{}}, {"$db", "shop"}}))
	login := func(done bool) D {
		return D{{"conversationId", int32(1)}, {"done", done}, {"payload", []byte("x")}, {"ok", 1.0}}
	}
	list := []Scenario{
		{Name: "commands", Steps: []Step{find, Server(Msg(0, D{{"cursor", D{}}, {"ok", 1.0}})),
			asked(Msg(0, D{{"insert", "things"}})), Server(Msg(0, D{{"n", int32(2)}, {"ok", 1.0}})), asked(Msg(0, D{{"ping", int32(1)}})), Server(Msg(0, done))},
			Want: map[string]uint64{"read": 1, "insert": 1, "ping": 1}, Detail: Detail{Rows: 2}},
		{Name: "an error", Steps: []Step{asked(Msg(0, D{{"drop", "nothing"}})), Server(Msg(0, D{{"ok", 0.0}, {"errmsg", "no"}, {"code", int32(26)}}))},
			Want: map[string]uint64{"ddl!": 1}, Detail: Detail{Codes: []string{"26"}}},
		{Name: "compressed", Steps: []Step{asked(MongoMessage(MongoCompressed, make([]byte, 40))), Server(MongoMessage(MongoCompressed, make([]byte, 40)))},
			Want: map[string]uint64{"other": 1}},
		{Name: "unanswered, then asked", Steps: []Step{asked(Msg(MongoMoreToCome, D{{"insert", "things"}})), find, Server(Msg(0, done))},
			Want: map[string]uint64{"read": 1}},
		{Name: "an exhaust cursor", Steps: []Step{asked(Msg(MongoExhaustAllowed, D{{"getMore", int64(1)}})), Server(Msg(MongoMoreToCome, done)), Server(Msg(0, done)), find, Server(Msg(0, done))},
			Want: map[string]uint64{"read": 1}},
		{Name: "a hello that waits", Steps: []Step{asked(Msg(MongoExhaustAllowed, D{{"hello", int32(1)}, {"topologyVersion", D{}}, {"maxAwaitTimeMS", int64(10000)}})),
			Server(Msg(MongoMoreToCome, done)), Server(Msg(MongoMoreToCome, done))}, Want: map[string]uint64{}},
		{Name: "a login", Steps: []Step{asked(LegacyQuery("admin.$cmd", D{{"isMaster", int32(1)}})), Server(LegacyReply(0, done)),
			asked(Msg(0, D{{"saslStart", int32(1)}})), Server(Msg(0, login(false))), asked(Msg(0, D{{"saslContinue", int32(1)}})), Server(Msg(0, login(true))), find, Server(Msg(0, done))},
			Want: map[string]uint64{"ping": 1, "auth": 1, "read": 1}},
		{Name: "FerretDB: read ahead", Calls: ReadWrite, Steps: []Step{Client(Msg(0, D{{"aggregate", "things"}})), Server(Msg(0, done))}, Want: map[string]uint64{"read": 1}},
	}
	for i := range list {
		if list[i].Calls == RecvSend {
			list[i].Calls = Messages
		}
	}
	return list
}
