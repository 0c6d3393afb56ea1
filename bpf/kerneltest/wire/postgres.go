package wire

import "encoding/binary"

// PG is a message of the PostgreSQL protocol; type 0 is one of the start, which
// has none.
func PG(kind byte, payload string) []byte {
	var m []byte
	if kind != 0 {
		m = append(m, kind)
	}
	return append(binary.BigEndian.AppendUint32(m, uint32(len(payload)+4)), payload...)
}

func join(messages ...[]byte) []byte {
	var all []byte
	for _, m := range messages {
		all = append(all, m...)
	}
	return all
}

// What a server of PostgreSQL answers with.
func pgReady(status string) []byte { return PG('Z', status) }
func pgDone(tag string) []byte     { return PG('C', tag+"\x00") }
func pgError(code string) []byte {
	return PG('E', "SERROR\x00VERROR\x00C"+code+"\x00Mno\x00\x00")
}

var pgRow = PG('D', "\x00\x01\x00\x00\x00\x011")

// execute are Bind, Describe, Execute of a statement.
func pgExecute(name string) []byte {
	return join(PG('B', "\x00"+name+"\x00\x00\x00\x00\x00\x00\x00"), PG('D', "P\x00"), PG('E', "\x00\x00\x00\x00\x00"))
}

func pgParse(name, text string) []byte { return PG('P', name+"\x00"+text+"\x00\x00\x00") }

// Postgres are the scenarios of the PostgreSQL protocol.
func Postgres() []Scenario {
	sync := PG('S', "")
	bound := join(PG('1', ""), PG('2', ""), PG('n', ""), pgDone("SELECT 0"))
	ask := func(text string) Step { return Client(PG('Q', text+"\x00")) }
	startup := PG(0, "\x00\x03\x00\x00user\x00u\x00database\x00d\x00\x00")
	batch := PG('U', "\x00\x00\x00\x02\x00s\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x01\x00\x00\x00\x012E\x00")
	return []Scenario{
		{Name: "simple", Steps: []Step{ask("SELECT 1"), Server(join(PG('T', "\x00\x00"), pgRow, pgDone("SELECT 1"), pgReady("I")))},
			Want: map[string]uint64{"select": 1}, Detail: Detail{Statements: 1, Rows: 1}},
		{Name: "several statements in one query", Steps: []Step{ask("UPDATE t SET a=1; SELECT 1"),
			Server(join(pgDone("UPDATE 3"), pgRow, pgDone("SELECT 1"), pgReady("I")))},
			Want: map[string]uint64{"update": 1}, Detail: Detail{Statements: 2, Rows: 4}},
		{Name: "an empty query", Steps: []Step{ask(""), Server(join(PG('I', ""), pgReady("I")))}, Want: map[string]uint64{"other": 1}},
		{Name: "extended, unnamed", Steps: []Step{Client(join(pgParse("", "INSERT INTO t VALUES ($1)"), pgExecute(""), sync)),
			Server(join(bound, pgReady("I")))}, Want: map[string]uint64{"insert": 1}, Detail: Detail{Statements: 1}},
		{Name: "extended, named", Steps: []Step{
			Client(join(pgParse("s", "SELECT 1"), sync)), Server(join(PG('1', ""), pgReady("I"))),
			Client(join(pgExecute("s"), sync)), Server(join(bound, pgReady("I"))),
			Client(join(pgExecute("s"), sync)), Server(join(bound, pgReady("I"))),
			Client(join(PG('C', "Ss\x00"), sync)), Server(join(PG('3', ""), pgReady("I")))},
			Want: map[string]uint64{"prepare": 2, "select": 2}},
		{Name: "a name nobody saw prepared", Steps: []Step{Client(join(pgExecute("unseen"), sync)), Server(join(bound, pgReady("I")))},
			Want: map[string]uint64{"other": 1}},
		{Name: "a pipeline up to one Sync", Steps: []Step{
			Client(join(pgParse("", "UPDATE t SET a=1"), pgExecute(""), pgParse("", "UPDATE t SET a=2"), pgExecute(""), sync)),
			Server(join(bound, bound, pgReady("I")))}, Want: map[string]uint64{"update": 1}, Detail: Detail{Statements: 2}},
		{Name: "a message in two receives", Steps: []Step{
			Client([]byte("Q\x00\x00\x00\x0dSELE"), []byte("CT 1\x00")), Server(join(pgDone("SELECT 1"), pgReady("I")))},
			Want: map[string]uint64{"select": 1}},
		{Name: "a result in many sends", Steps: []Step{ask("SELECT 1"), Server(PG('T', "\x00\x00"), pgRow, pgRow, pgRow, join(pgDone("SELECT 3"), pgReady("I")))},
			Want: map[string]uint64{"select": 1}, Detail: Detail{Rows: 3}},
		{Name: "copy in", Steps: []Step{ask("COPY t FROM STDIN"), Server(PG('G', "\x00\x00\x00")),
			Client(PG('d', "1\n"), PG('d', "2\n"), PG('c', "")), Server(join(pgDone("COPY 2"), pgReady("I")))},
			Want: map[string]uint64{"copy": 1}, Detail: Detail{Rows: 2}},
		{Name: "copy in that fails", Steps: []Step{ask("COPY t FROM STDIN"), Server(PG('G', "\x00\x00\x00")),
			Client(PG('d', "x\n"), PG('f', "no\x00")), Server(join(pgError("57014"), pgReady("I")))},
			Want: map[string]uint64{"copy!": 1}, Detail: Detail{Codes: []string{"57014"}}},
		{Name: "copy out", Steps: []Step{ask("COPY t TO STDOUT"),
			Server(PG('H', "\x00\x00\x00"), PG('d', "1\n"), PG('d', "2\n"), join(PG('c', ""), pgDone("COPY 2"), pgReady("I")))},
			Want: map[string]uint64{"copy": 1}, Detail: Detail{Rows: 2}},
		{Name: "a cancel request", Steps: []Step{Client(PG(0, "\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"))}, Want: map[string]uint64{}},
		{Name: "replication", Steps: []Step{ask("START_REPLICATION SLOT s LOGICAL 0/0"), Server(PG('W', "\x00\x00\x00")),
			Server(PG('d', "w0123456789")), Client(PG('d', "r0123456789")), Server(PG('d', "w0123456789"))},
			Want: map[string]uint64{}, Detail: Detail{Stream: true}},
		{Name: "an error", Steps: []Step{ask("SELECT * FROM nothing"), Server(join(pgError("42P01"), pgReady("I")))},
			Want: map[string]uint64{"select!": 1}, Detail: Detail{Codes: []string{"42P01"}}},
		{Name: "an error in the middle of a pipeline", Steps: []Step{
			Client(join(pgParse("", "INSERT INTO t VALUES (1)"), pgExecute(""), pgExecute(""), sync)),
			Server(join(bound, pgError("23505"), pgReady("I")))},
			Want: map[string]uint64{"insert!": 1}, Detail: Detail{Statements: 2, Codes: []string{"23505"}}, Needs: "an error behind other messages"},
		{Name: "an error after rows", Steps: []Step{ask("SELECT 1/(a-2) FROM t"), Server(PG('T', "\x00\x00"), pgRow, join(pgError("22012"), pgReady("I")))},
			Want: map[string]uint64{"select!": 1}, Detail: Detail{Codes: []string{"22012"}}},
		{Name: "a transaction", Steps: []Step{
			ask("BEGIN"), Server(join(pgDone("BEGIN"), pgReady("T"))), ask("INSERT INTO t VALUES (1)"), Server(join(pgDone("INSERT 0 1"), pgReady("T"))),
			ask("COMMIT"), Server(join(pgDone("COMMIT"), pgReady("I")))},
			Want: map[string]uint64{"txn": 2, "insert": 1}, Detail: Detail{Rows: 1, Transactions: []string{"commit"}}},
		{Name: "a transaction that fails", Steps: []Step{
			ask("BEGIN"), Server(join(pgDone("BEGIN"), pgReady("T"))), ask("SELECT x"), Server(join(pgError("42703"), pgReady("E"))),
			ask("ROLLBACK"), Server(join(pgDone("ROLLBACK"), pgReady("I")))},
			Want: map[string]uint64{"txn": 2, "select!": 1}, Detail: Detail{Codes: []string{"42703"}, Transactions: []string{"rollback"}}},
		{Name: "a login with a password", Steps: []Step{
			Client(PG(0, "\x04\xd2\x16\x2f")), Server([]byte("N")), Client(startup), Server(PG('R', "\x00\x00\x00\x05salt")), Client(PG('p', "md5x\x00")),
			Server(join(PG('R', "\x00\x00\x00\x00"), PG('S', "a\x00b\x00"), pgReady("I"))), ask("SELECT 1"), Server(join(pgDone("SELECT 1"), pgReady("I")))},
			Want: map[string]uint64{"auth": 1, "select": 1}},
		{Name: "a refused login", Steps: []Step{
			Client(startup), Server(PG('R', "\x00\x00\x00\x05salt")), Client(PG('p', "md5x\x00")), Server(pgError("28P01"))},
			Want: map[string]uint64{"auth!": 1}, Detail: Detail{Codes: []string{"28P01"}}},
		{Name: "a notice that nobody asked for", Steps: []Step{Server(PG('N', "SNOTICE\x00\x00")), ask("SELECT 1"),
			Server(join(pgDone("SELECT 1"), pgReady("I"))), Server(PG('A', "\x00\x00\x00\x01c\x00p\x00"))}, Want: map[string]uint64{"select": 1}},
		{Name: "openGauss: a batch of one statement", Steps: []Step{
			Client(join(pgParse("s", "INSERT INTO t VALUES ($1)"), sync)), Server(join(PG('1', ""), pgReady("I"))),
			Client(join(batch, sync)), Server(join(PG('2', ""), pgDone("INSERT 0 2"), pgReady("I")))},
			Want: map[string]uint64{"prepare": 1, "insert": 1}, Detail: Detail{Statements: 3, Rows: 2}},
		{Name: "KingbaseES: its own start and a statement", Steps: []Step{
			Client(startup), Server(join(PG('R', "\x00\x00\x00\x00"), PG('K', "\x00\x00\x00\x01\x00\x00\x00\x02"), pgReady("I"))),
			ask("/* hint */ MERGE INTO t USING u ON (a=b) WHEN MATCHED THEN UPDATE SET c=1"), Server(join(pgDone("MERGE 1"), pgReady("I")))},
			Want: map[string]uint64{"auth": 1, "replace": 1}},
		{Name: "TDSQL-PG: a statement for one shard", Steps: []Step{ask("/*global:session*/ DELETE FROM t"), Server(join(pgDone("DELETE 4"), pgReady("I")))},
			Want: map[string]uint64{"delete": 1}, Detail: Detail{Rows: 4}},
	}
}
