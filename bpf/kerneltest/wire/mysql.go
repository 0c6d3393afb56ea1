package wire

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"strings"
)

// mysqlMost is the largest payload of one packet; one that is as large goes on in
// the next.
const mysqlMost = 1<<24 - 1

// Packet is a payload with its header, cut into packets where it is too large.
func Packet(sequence byte, payload string) []byte {
	var m []byte
	for {
		n := min(len(payload), mysqlMost)
		m = append(append(m, byte(n), byte(n>>8), byte(n>>16), sequence), payload[:n]...)
		if n < mysqlMost {
			return m
		}
		payload, sequence = payload[n:], sequence+1
	}
}

// Pieces cuts packets as MySQL and MariaDB read them: a header, then the payload.
func Pieces(packets []byte) [][]byte {
	var pieces [][]byte
	for len(packets) > 4 {
		n := 4 + (int(packets[0]) | int(packets[1])<<8 | int(packets[2])<<16)
		pieces = append(pieces, packets[:4])
		if n > 4 {
			pieces = append(pieces, packets[4:n])
		}
		packets = packets[n:]
	}
	if len(packets) > 0 {
		pieces = append(pieces, packets)
	}
	return pieces
}

// Compressed is a packet of the compressed protocol: three bytes of length, the
// sequence, and the length before compression, 0 where nothing was compressed.
func Compressed(sequence byte, packets []byte, compress bool) []byte {
	body, before := packets, 0
	if compress {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		// A buffer refuses nothing.
		_, _ = w.Write(packets)
		_ = w.Close()
		body, before = b.Bytes(), len(packets)
	}
	head := []byte{byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16), sequence, byte(before), byte(before >> 8), byte(before >> 16)}
	return append(head, body...)
}

// OceanBase20 is a frame of OceanBase's protocol 2.0, which its proxy speaks: the
// header of an uncompressed packet of the compressed protocol, one of its own
// with the magic 0x20AB, the payload and a checksum.
func OceanBase20(sequence byte, packets []byte) []byte {
	frame := binary.LittleEndian.AppendUint16(nil, 0x20ab)
	frame = binary.LittleEndian.AppendUint16(frame, 20)
	frame = append(frame, 1, 0, 0, 0, 2, 0, 0, sequence)
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(packets)))
	frame = append(frame, 0, 0, 0, 0, 0, 0, 0, 0)
	return Compressed(sequence, append(append(frame, packets...), 0, 0, 0, 0), false)
}

// Server status bits, as they end an OK packet.
const (
	inTransaction = 0x01
	autocommit    = 0x02
	moreResults   = 0x08
)

// mysqlOK is an OK packet.
func mysqlOK(sequence, affected byte, status uint16) []byte {
	return Packet(sequence, string([]byte{0, affected, 0, byte(status), byte(status >> 8), 0, 0}))
}

func mysqlEOF(sequence byte, status uint16) []byte {
	return Packet(sequence, string([]byte{0xfe, 0, 0, byte(status), byte(status >> 8)}))
}

func mysqlError(sequence byte, number uint16, state string) []byte {
	return Packet(sequence, "\xff"+string([]byte{byte(number), byte(number >> 8)})+"#"+state+"no")
}

// mysqlRows is a result of one column and n rows.
func mysqlRows(sequence byte, n int, status uint16) []byte {
	m := join(Packet(sequence, "\x01"), Packet(sequence+1, "\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00"), mysqlEOF(sequence+2, autocommit))
	for range n {
		m = append(m, Packet(sequence+3, "\x011")...)
	}
	return append(m, mysqlEOF(sequence+4, status)...)
}

// Commands, by their first byte.
const (
	comQuery   = "\x03"
	comPrepare = "\x16"
	comExecute = "\x17"
)

// asked is a command as MySQL and MariaDB read it.
func asked(command string) Step { return Step{Pieces: Pieces(Packet(0, command))} }

func executed(number byte) string {
	return comExecute + string([]byte{number, 0, 0, 0, 0, 1, 0, 0, 0})
}

// preparedOK answers a PREPARE without parameters and columns.
func preparedOK(number byte) []byte {
	return Packet(1, "\x00"+string([]byte{number, 0, 0, 0})+"\x00\x00\x00\x00\x00\x00\x00")
}

// greeted is a login, the capabilities of which are the client's.
func greeted(capabilities uint32) []Step {
	response := string(le32(capabilities)) + string(le32(1<<24)) + "\x2d" + strings.Repeat("\x00", 23) + "u\x00\x14" + strings.Repeat("x", 20)
	return []Step{
		Server(Packet(0, "\x0a8.0.36\x00\x01\x00\x00\x00saltsalt\x00\xff\xf7\x2d\x02\x00\xff\xc7\x15"+strings.Repeat("\x00", 10)+"saltsaltsalt\x00")),
		{Pieces: Pieces(Packet(1, response))}, Server(mysqlOK(2, 0, autocommit)),
	}
}

// MySQL are the scenarios of the MySQL protocol and its dialects.
func MySQL() []Scenario {
	ok := Server(mysqlOK(1, 0, autocommit))
	list := []Scenario{
		{Name: "text", Steps: []Step{asked(comQuery + "SELECT 1"), Server(mysqlRows(1, 2, autocommit)), asked("\x0e"), ok, asked("\x02db"), ok, asked("\x01")},
			Want: map[string]uint64{"select": 1, "ping": 1, "set": 1}},
		{Name: "a prepared statement", Steps: []Step{
			asked(comPrepare + "INSERT INTO t VALUES (1)"), Server(preparedOK(5)), asked(executed(5)), Server(mysqlOK(1, 3, autocommit)),
			asked("\x1a\x05\x00\x00\x00"), ok, asked(executed(5)), Server(mysqlOK(1, 3, autocommit)), asked("\x19\x05\x00\x00\x00"), asked("\x0e"), ok},
			Want: map[string]uint64{"prepare": 2, "insert": 2, "ping": 1}, Detail: Detail{Rows: 6}},
		{Name: "a cursor", Steps: []Step{
			asked(comPrepare + "SELECT a FROM t"), Server(preparedOK(6)), asked(executed(6)), Server(mysqlEOF(1, autocommit|0x40)),
			asked("\x1c\x06\x00\x00\x00\x0a\x00\x00\x00"), Server(join(Packet(1, "\x00\x00\x01"), mysqlEOF(2, autocommit|0x80)))},
			Want: map[string]uint64{"prepare": 1, "select": 1, "fetch": 1}},
		{Name: "a number nobody saw prepared", Steps: []Step{asked(executed(9)), ok}, Want: map[string]uint64{"other": 1}},
		{Name: "long data before an execution", Steps: []Step{
			asked(comPrepare + "INSERT INTO t VALUES (?)"), Server(preparedOK(7)), asked("\x18\x07\x00\x00\x00\x00\x00some"), asked(executed(7)), Server(mysqlOK(1, 1, autocommit))},
			Want: map[string]uint64{"prepare": 1, "insert": 1}},
		{Name: "several statements in one query", Steps: []Step{
			asked(comQuery + "UPDATE t SET a=1; SELECT 1"), Server(mysqlOK(1, 2, autocommit|moreResults), mysqlRows(2, 1, autocommit))},
			Want: map[string]uint64{"update": 1}, Detail: Detail{Statements: 2}},
		{Name: "a query of more than one packet", Steps: []Step{
			asked(comQuery + "INSERT INTO t VALUES ('" + strings.Repeat("x", mysqlMost+10) + "')"), Server(mysqlOK(1, 1, autocommit))},
			Want: map[string]uint64{"insert": 1}, Detail: Detail{Rows: 1}},
		{Name: "query attributes, none given", Steps: []Step{asked(comQuery + "\x00\x01SELECT 1"), Server(mysqlRows(1, 1, autocommit))},
			Want: map[string]uint64{"select": 1}},
		{Name: "query attributes", Steps: []Step{asked(comQuery + "\x01\x01\x00\x01\xfe\x00\x05trace\x04abcdSELECT 1"), Server(mysqlRows(1, 1, autocommit))},
			Want: map[string]uint64{"select": 1}, Needs: "query attributes that are given"},
		{Name: "a local file", Steps: []Step{asked(comQuery + "LOAD DATA LOCAL INFILE 'f' INTO TABLE t"), Server(Packet(1, "\xfbf")),
			{Pieces: Pieces(Packet(2, "1\n2\n"))}, {Pieces: Pieces(Packet(3, ""))}, Server(mysqlOK(4, 2, autocommit))},
			Want: map[string]uint64{"copy": 1}, Detail: Detail{Rows: 2}},
		{Name: "a change of user", Steps: []Step{asked("\x11other\x00\x14" + strings.Repeat("x", 20) + "db\x00"), Server(Packet(1, "\xfemysql_native_password\x00salt\x00")),
			{Pieces: Pieces(Packet(2, strings.Repeat("x", 20)))}, Server(mysqlOK(3, 0, autocommit)), asked(comQuery + "SELECT 1"), Server(mysqlRows(1, 1, autocommit))},
			Want: map[string]uint64{"auth": 1, "select": 1}},
		{Name: "an error", Steps: []Step{asked(comQuery + "SELECT * FROM nothing"), Server(mysqlError(1, 1146, "42S02"))},
			Want: map[string]uint64{"select!": 1}, Detail: Detail{Codes: []string{"1146"}}},
		{Name: "an error after rows", Steps: []Step{asked(comQuery + "SELECT f(a) FROM t"),
			Server(Packet(1, "\x01"), join(mysqlEOF(3, autocommit), Packet(4, "\x011")), mysqlError(5, 1317, "70100"))},
			Want: map[string]uint64{"select!": 1}, Detail: Detail{Codes: []string{"1317"}}, Needs: "an error that is not the first reply"},
		{Name: "a transaction", Steps: []Step{asked(comQuery + "BEGIN"), Server(mysqlOK(1, 0, inTransaction)),
			asked(comQuery + "DELETE FROM t"), Server(mysqlOK(1, 4, inTransaction)), asked(comQuery + "COMMIT"), Server(mysqlOK(1, 0, autocommit))},
			Want: map[string]uint64{"txn": 2, "delete": 1}, Detail: Detail{Rows: 4, Transactions: []string{"commit"}}},
		{Name: "a login", Steps: append(greeted(0x81a285), asked(comQuery+"SELECT 1"), Server(mysqlRows(1, 1, autocommit))),
			Want: map[string]uint64{"auth": 1, "select": 1}},
		{Name: "a refused login", Steps: append(greeted(0x81a285)[:2], Server(mysqlError(2, 1045, "28000"))),
			Want: map[string]uint64{"auth!": 1}, Detail: Detail{Codes: []string{"1045"}}},
		{Name: "a replica", Steps: []Step{asked("\x12\x04\x00\x00\x00\x00\x00\x01\x00\x00\x00"), Server(Packet(1, "\x00an event")), Server(Packet(2, "\x00another"))},
			Want: map[string]uint64{}, Detail: Detail{Stream: true}},
	}
	return append(list, dialects()...)
}

// dialects are the scenarios of MySQL's descendants and of its compressed form.
func dialects() []Scenario {
	// 0x20 is CLIENT_COMPRESS.
	compressed := greeted(0x81a285 | 0x20)
	ping := Packet(0, "\x0e")
	long := Packet(0, comQuery+"SELECT '"+strings.Repeat("x", 0x119-4-1-9)+"'")
	reply := Compressed(1, mysqlOK(1, 0, autocommit), false)
	frame := func(m []byte) Step { return Client(m[:7], m[7:]) }
	bulk := "\xfa\xff\xff\xff\xff\x80\x00\x03\x00\x00\x01\x00\x00\x00\x00\x02\x00\x00\x00"
	progress := Packet(1, "\xff\xff\xff\x01\x01\x03\x10\x00\x00\x05stage")
	ok := Server(mysqlOK(1, 0, autocommit))
	return []Scenario{
		{Name: "compression, packets left as they are", Steps: append(append([]Step(nil), compressed...), frame(Compressed(0, ping, false)), Server(reply)),
			Want: map[string]uint64{"auth": 1, "other": 1}},
		{Name: "compression", Steps: append(append([]Step(nil), compressed...), frame(Compressed(0, long, true)), Server(reply)),
			Want: map[string]uint64{"auth": 1, "other": 1}},
		{Name: "MariaDB: a bulk execution of what was prepared last", Steps: []Step{
			asked(comPrepare + "INSERT INTO t VALUES (?)"), Server(preparedOK(8)), asked(bulk), Server(mysqlOK(1, 2, autocommit))},
			Want: map[string]uint64{"prepare": 1, "insert": 1}, Detail: Detail{Rows: 2}},
		{Name: "MariaDB: progress before the answer", Steps: []Step{asked(comQuery + "ALTER TABLE t FORCE"), Server(progress, mysqlOK(2, 0, autocommit))},
			Want: map[string]uint64{"ddl": 1}},
		{Name: "TiDB: read ahead", Calls: ReadWrite, Steps: []Step{
			Client(Packet(0, comQuery+"SELECT 1")), Server(mysqlRows(1, 1, autocommit)),
			Client(join(Packet(0, "\x19\x05\x00\x00\x00"), Packet(0, comQuery+"UPDATE t SET a=1"))), Server(mysqlOK(1, 1, autocommit))},
			Want: map[string]uint64{"select": 1, "update": 1}},
		{Name: "OceanBase: hints", Steps: []Step{asked(comQuery + "/*+ parallel(4) */ SELECT 1"), Server(mysqlRows(1, 1, autocommit)),
			asked(comQuery + "select /*+ query_timeout(1000) */ 1"), Server(mysqlRows(1, 1, autocommit))}, Want: map[string]uint64{"select": 2}},
		{Name: "OceanBase: protocol 2.0", Calls: ReadWrite, Steps: []Step{Client(OceanBase20(0, Packet(0, comQuery+"SELECT 1"))), Server(OceanBase20(1, mysqlOK(1, 0, autocommit)))},
			Want: map[string]uint64{"other": 1}},
		{Name: "GoldenDB: a statement for all shards", Steps: []Step{asked(comQuery + "/*+ ADD_GROUP */ update t set a=1"), Server(mysqlOK(1, 9, autocommit))},
			Want: map[string]uint64{"update": 1}, Detail: Detail{Rows: 9}},
		{Name: "TDSQL: statements with directions", Steps: []Step{asked(comQuery + "/*sets:allsets*/ select 1"), Server(mysqlRows(1, 1, autocommit)),
			asked(comQuery + "/*proxy*/show status"), Server(mysqlRows(1, 1, autocommit)), asked(comQuery + "/*master*/replace into t values (1)"), ok},
			Want: map[string]uint64{"select": 1, "show": 1, "replace": 1}},
	}
}
