package sqltext

import (
	"bytes"
	"encoding/binary"
)

// mongoOn are the commands whose first value names a collection.
var mongoOn = set(`aggregate cloneCollectionAsCapped collMod collStats compact convertToCapped count create createIndexes
	createSearchIndexes delete deleteIndexes distinct drop dropIndexes dropSearchIndex find findAndModify findandmodify insert
	killCursors listIndexes mapReduce mapreduce reIndex update validate`)

// mongoOther are commands whose first value says nothing, or too much.
var mongoOther = set(`abortTransaction authenticate buildInfo buildinfo bulkWrite commitTransaction connectionStatus connPoolStats createRole
	createUser currentOp dbHash dbStats dbstats dropAllRolesFromDatabase dropAllUsersFromDatabase dropDatabase dropRole dropUser
	endSessions explain features fsync fsyncUnlock getCmdLineOpts getDefaultRWConcern getFreeMonitoringStatus getLastError getLog
	getMore getParameter getnonce grantPrivilegesToRole grantRolesToRole grantRolesToUser hello hostInfo isMaster ismaster
	killAllSessions killOp killSessions listCollections listCommands listDatabases logRotate logout ping planCacheClear profile
	refreshSessions renameCollection replSetGetConfig replSetGetStatus replSetHeartbeat replSetInitiate replSetReconfig
	replSetStepDown replSetUpdatePosition revokePrivilegesFromRole revokeRolesFromRole revokeRolesFromUser rolesInfo saslContinue
	saslStart serverStatus setFeatureCompatibilityVersion setParameter shutdown startSession top updateRole updateUser usersInfo
	whatsmyuri`)

// mongoSecrets hold passwords or the payload of a login.
var mongoSecrets = set("authenticate createRole createUser getnonce hello isMaster ismaster saslContinue saslStart setParameter updateRole updateUser usersInfo")

// mongoShaped are the fields of a command whose shape belongs to the digest.
var mongoShaped = set("filter query q u sort projection pipeline updates deletes key keys hint limit skip collection fields update remove new upsert multi")

// BSON element types whose values are walked or measured here (bsonspec.org).
const (
	bsonString   = 0x02
	bsonDocument = 0x03
	bsonArray    = 0x04
)

const mongoDepth = 6

// element is one field of a BSON document.
type element struct {
	kind       byte
	name, data []byte
}

// bson steps through the elements of a document that may be cut.
type bson struct{ b []byte }

// bsonOf opens the document at the head of b.
func bsonOf(b []byte) bson {
	if len(b) < 5 {
		return bson{}
	}
	if n := int(int32(binary.LittleEndian.Uint32(b))); n >= 5 && n < len(b) {
		b = b[:n]
	}
	return bson{b[4:]}
}

// next is the next element; its data may be cut. It is false at the end and
// where nothing can be read.
func (s *bson) next() (e element, ok bool) {
	if len(s.b) < 2 || s.b[0] == 0 {
		return e, false
	}
	k := bytes.IndexByte(s.b[1:], 0)
	if k < 0 {
		return e, false
	}
	e = element{s.b[0], s.b[1 : 1+k], s.b[2+k:]}
	n := bsonSize(e.kind, e.data)
	if n < 0 || n >= len(e.data) {
		s.b = nil
		return e, n >= 0
	}
	e.data, s.b = e.data[:n], e.data[n:]
	return e, true
}

// bsonSize is the length of a value, or -1 if its type is unknown.
func bsonSize(kind byte, b []byte) int {
	long := func(extra int) int {
		if len(b) < 4 {
			return len(b) + 1
		}
		n := int(int32(binary.LittleEndian.Uint32(b)))
		if n < 0 {
			return -1
		}
		return n + extra
	}
	switch kind {
	case 0x06, 0x0a, 0xff, 0x7f:
		return 0
	case 0x08:
		return 1
	case 0x10:
		return 4
	case 0x01, 0x09, 0x11, 0x12:
		return 8
	case 0x07:
		return 12
	case 0x13:
		return 16
	case bsonString, 0x0d, 0x0e:
		return long(4)
	case 0x05:
		return long(5)
	case 0x0c:
		return long(16)
	case bsonDocument, bsonArray, 0x0f:
		return long(0)
	case 0x0b:
		k := bytes.IndexByte(b, 0)
		if k < 0 {
			return len(b) + 1
		}
		if m := bytes.IndexByte(b[k+1:], 0); m >= 0 {
			return k + 1 + m + 1
		}
		return len(b) + 1
	}
	return -1
}

// mongo reads a command: its name, its collection and the shape of its fields.
func (l *lexer) mongo() {
	s := bsonOf(l.text)
	cmd, ok := s.next()
	known := ok && (mongoOn[string(cmd.name)] || mongoOther[string(cmd.name)])
	if !known {
		l.literal()
		return
	}
	l.mongoName(cmd.name)
	if mongoSecrets[string(cmd.name)] {
		return
	}
	if mongoOn[string(cmd.name)] {
		l.mongoCollection(cmd)
	}
	if string(cmd.name) == "explain" && cmd.kind == bsonDocument {
		inner := *l
		inner.text = cmd.data
		inner.mongo()
		*l = inner
		return
	}
	for !l.stop {
		e, ok := s.next()
		if !ok {
			return
		}
		if !mongoShaped[string(e.name)] {
			continue
		}
		l.mongoName(e.name)
		if string(e.name) == "collection" {
			l.mongoCollection(e)
			continue
		}
		l.sign(':', false)
		l.mongoValue(e, string(e.name) == "u" || string(e.name) == "update", 1)
	}
}

// mongoCollection emits the name of a collection, if e is one.
func (l *lexer) mongoCollection(e element) {
	if e.kind == bsonString && len(e.data) > 5 && int(binary.LittleEndian.Uint32(e.data))+4 == len(e.data) && len(e.data) <= longestName {
		l.mongoName(e.data[4 : len(e.data)-1])
		return
	}
	l.prev = none
	l.literal()
}

// mongoName emits a name.
func (l *lexer) mongoName(b []byte) {
	l.h = mix(l.h, uint64(len(b))<<8|tagQuoted)
	l.chunks(b)
	l.prev = name
	if l.keep {
		l.writeName(b, false)
	}
}

// mongoValue emits the shape of a value. Of an update only operators are
// named: the fields that it sets belong to the data.
func (l *lexer) mongoValue(e element, update bool, depth int) {
	if e.kind != bsonDocument && e.kind != bsonArray || depth > mongoDepth {
		l.prev = none
		l.literal()
		return
	}
	c, d := byte('{'), byte('}')
	if e.kind == bsonArray {
		c, d = '[', ']'
	}
	l.bracket(opening, c)
	s, last := bsonOf(e.data), uint64(0)
	for !l.stop {
		f, ok := s.next()
		if !ok {
			break
		}
		last = l.mongoElement(e.kind, f, update, depth, last)
	}
	if !l.stop {
		l.bracket(closing, d)
	}
}

// mongoElement emits a field of a document, or an element of an array unless
// it has the shape, last, of the one before. It returns its shape.
func (l *lexer) mongoElement(in byte, f element, update bool, depth int, last uint64) uint64 {
	before := *l
	l.h = 1
	switch {
	case in == bsonArray:
		l.mongoValue(f, update, depth+1)
	case update && (len(f.name) == 0 || f.name[0] != '$'):
		l.prev = none
		l.literal()
	default:
		if mongoField(f.name) {
			l.mongoName(f.name)
		} else {
			l.literal()
		}
		l.sign(':', false)
		if update {
			l.literal()
		} else {
			l.mongoValue(f, string(f.name) == "u", depth+1)
		}
	}
	shape := l.h
	if !l.stop && shape == last && (in == bsonArray || update) {
		*l = before
		return shape
	}
	l.h = mix(before.h, shape)
	return shape
}

// mongoField says whether a field's name is one that a program wrote, not a
// key made of data.
func mongoField(b []byte) bool {
	if len(b) == 0 || len(b) > 64 {
		return false
	}
	digits := 0
	for _, c := range b {
		switch k := classes[c]; {
		case c >= 0x80 || k != cWord && k != cDigit && k != cDollar && k != cDot && c != '-':
			return false
		case k == cDigit:
			digits++
		}
	}
	return digits <= 4
}

// mongoSecret says whether text is a command of mongoSecrets, or not known.
func mongoSecret(text []byte) bool {
	s := bsonOf(text)
	cmd, ok := s.next()
	return !ok || mongoSecrets[string(cmd.name)]
}
