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
