package sqltext

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func resp(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

func TestRedis(t *testing.T) {
	for in, want := range map[string]string{
		resp("SET", "key", "value"):                      "SET ? ?",
		resp("set", "key", "value", "EX", "10"):          "SET ? ?",
		resp("MGET", "a", "b", "c"):                      "MGET ?",
		resp("get", "a") + resp("AUTH", "pw"):            "GET ?",
		resp("AUTH", "user", "hunter2"):                  "AUTH",
		resp("HELLO", "3", "AUTH", "user", "hunter2"):    "HELLO",
		resp("CONFIG", "SET", "requirepass", "hunter2"):  "CONFIG SET",
		resp("CONFIG", "GET", "maxmemory"):               "CONFIG GET ?",
		resp("ACL", "SETUSER", "bob", ">hunter2"):        "ACL SETUSER",
		resp("OBJECT", "ENCODING", "key"):                "OBJECT ENCODING ?",
		resp("OBJECT", "hunter2", "key"):                 "OBJECT ? ?",
		resp("b840fc02d524045429941cc15f59e41cb7be6c52"): "?",
		resp("PING"):                         "PING",
		"*3\r\n$3\r\nSET\r\n$500\r\nhunter2": "SET ? ?",
		"*3\r\n$3\r\nSE":                     "?",
		"*-1\r\n\r\nget hunter2\r\n":         "GET ?",
		"SET a \"hunter2 x\"\r\n":            "SET ? ?",
		"hunter2 a\r\n":                      "?",
		"":                                   "?",
	} {
		require.Equal(t, want, norm(Redis, in), "%q", in)
	}
	require.Equal(t, key(Redis, resp("SET", "a", "b")), key(Redis, resp("set", "c", "d", "NX")))
	require.NotEqual(t, key(Redis, resp("GET", "a")), key(Redis, resp("DEL", "a")))
}

// field and the others write BSON.
func field(kind byte, name, data string) string { return string(kind) + name + "\x00" + data }

func le(n int) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }

func doc(fields ...string) string {
	s := strings.Join(fields, "")
	return le(len(s)+5) + s + "\x00"
}

func str(name, s string) string { return field(bsonString, name, le(len(s)+1)+s+"\x00") }

func i32(name string, n int) string { return field(0x10, name, le(n)) }

func sub(name string, fields ...string) string { return field(bsonDocument, name, doc(fields...)) }

func arr(name string, fields ...string) string { return field(bsonArray, name, doc(fields...)) }

func TestMongoDB(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{doc(str("find", "orders"), sub("filter", str("a", "hunter2"), sub("b", i32("$gt", 5), arr("$in", i32("0", 1), i32("1", 2)))), i32("limit", 1), str("$db", "hunter2")),
			"find orders filter: {a: ? b: {$gt: ? $in: [?]}} limit: ?"},
		{doc(str("insert", "orders"), arr("documents", sub("0", str("hunter2", "x")))), "insert orders"},
		{doc(str("update", "o"), arr("updates", sub("0", sub("q", i32("a", 1)), sub("u", sub("$set", str("hunter2", "x")))))), "update o updates: [{q: {a: ?} u: {$set: ?}}]"},
		{doc(str("aggregate", "o"), arr("pipeline", sub("0", sub("$match", i32("a", 1))), sub("1", sub("$match", i32("a", 2))))), "aggregate o pipeline: [{$match: {a: ?}}]"},
		{doc(field(0x12, "getMore", "12345678"), str("collection", "o")), "getMore collection o"},
		{doc(i32("ping", 1), str("$db", "hunter2")), "ping"},
		{doc(str("createUser", "hunter2"), str("pwd", "hunter2")), "createUser"},
		{doc(str("hunter2", "x")), "?"},
		{doc(sub("explain", str("find", "o"), sub("filter", i32("a", 1)))), "explain find o filter: {a: ?}"},
		{"", "?"},
	} {
		require.Equal(t, c.want, norm(MongoDB, c.in), "%q", c.in)
		for n := range len(c.in) {
			if !strings.Contains(c.want, "hunter2") {
				require.NotContains(t, norm(MongoDB, c.in[:n]), "hunter")
			}
		}
	}
	find := func(v ...string) uint64 { return key(MongoDB, doc(str("find", "o"), sub("filter", v...))) }
	require.Equal(t, find(str("a", "x")), find(i32("a", 5)))
	require.NotEqual(t, find(i32("a", 5)), find(i32("b", 5)))
}

func TestSensitive(t *testing.T) {
	for _, s := range []string{"CREATE USER a IDENTIFIED BY 'x'", "alter user a password expire", "SET PASSWORD = 'x'", "SET PASSWORD FOR a = 'x'",
		"/*!50700 ALTER USER a */", "SELECT 1; DROP USER a", "GRANT SELECT ON a.* TO b IDENTIFIED BY 'x'", "CHANGE MASTER TO MASTER_PASSWORD='x'",
		"START SLAVE USER='a' PASSWORD='x'", "CREATE ROLE a PASSWORD 'x'", "create subscription s connection 'x'"} {

		require.True(t, Sensitive(MySQL, []byte(s)), s)
	}
	for _, s := range []string{"SELECT password FROM users", "UPDATE users SET password = 'x'", "BEGIN", "CREATE TABLE t (a int)", ""} {
		require.False(t, Sensitive(PostgreSQL, []byte(s)), s)
	}
	for s, want := range map[string]bool{resp("AUTH", "x"): true, resp("GET", "x"): false, resp("CONFIG", "SET", "a", "b"): true, resp("CONFIG", "GET", "a"): false} {
		require.Equal(t, want, Sensitive(Redis, []byte(s)), s)
	}
	require.True(t, Sensitive(MongoDB, []byte(doc(i32("saslStart", 1)))))
	require.False(t, Sensitive(MongoDB, []byte(doc(str("find", "x")))))
	require.True(t, Sensitive(0, nil))
}
