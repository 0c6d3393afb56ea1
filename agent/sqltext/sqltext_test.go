package sqltext

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func norm(d Dialect, s string) string { return string(AppendNormalized(nil, d, []byte(s), 4096)) }

func key(d Dialect, s string) uint64 { return Key(d, []byte(s)) }

const (
	knownMySQL = MySQL | Backslash | SafeCharset | QuotedStrings
	knownPG    = PostgreSQL | NoBackslash | SafeCharset
)

func TestNormalized(t *testing.T) {
	for _, c := range []struct {
		d        Dialect
		in, want string
	}{
		// the rows of the comparison that chose an own lexer
		{MySQL, "INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c')", "insert into t values (?)"},
		{MySQL, "SELECT * FROM t WHERE id IN (1,2,3)", "select * from t where id in (?)"},
		{MySQL, "SELECT a FROM t", "select a from t"},
		{MySQL, "select A from T", "select a from t"},
		{MySQL, "SELECT * FROM t WHERE a='trunc", "select * from t where a = ?"},
		{MySQL, "SELECT $tag$secret$tag$", "select ?"},
		{PostgreSQL, "SELECT $tag$secret$tag$", "select ?"},
		{MySQL, "CREATE USER u IDENTIFIED BY 'S3cret!'", "create user u identified by ?"},
		{MySQL, `SELECT 'it\'s'`, "select ?"},
		{MySQL, "CALL p(123,'x',@o)", "call p(?)"},
		{MySQL, "SELECT '\xbf\\' , 'secret' FROM t", "select ? …"},
		{MySQL, "SELECT '\xbf\\'secret', 1", "select ?"},
		// numbers
		{MySQL, "SELECT -5, +1, 1.5e-3, 0xFF, 0b01, .5, 1e5, 1_000 FROM t", "select ? from t"},
		{MySQL, "SELECT a - 5, a-5, (a)-5, 5-5 FROM t", "select a - ?, a - ?, (a) - ? - ? from t"},
		{MySQL, "SELECT a FROM t WHERE b BETWEEN -5 AND -3", "select a from t where b between ? and ?"},
		{MySQL, "SELECT t1.c2, `a`.5x FROM t1", "select t1.c2, `a`.? from t1"},
		// strings
		{MySQL, `SELECT "a""b", 'a''b', N'x', X'41', b'01', _utf8'x', 'a' 'b'`, "select ?"},
		{PostgreSQL, `SELECT E'a\'b', U&'x', N'x', 'a''b', "Quoted""Name" FROM t`, `select ?, "Quoted""Name" from t`},
		{PostgreSQL, "SELECT E'a'\n'\\'secret', b", "select ? …"},
		{PostgreSQL | QuotedStrings, `SELECT * FROM "card" WHERE no = "6222020200112233445"`, "select * from ? where no = ?"},
		{knownPG, `SELECT a FROM t WHERE b LIKE 'x' ESCAPE '\' AND c = 1`, "select a from t where b like ? escape ? and c = ?"},
		{PostgreSQL, `SELECT a FROM t WHERE b LIKE 'x' ESCAPE '\' AND c = 1`, "select a from t where b like ? escape ? …"},
		{knownMySQL, `UPDATE t SET a='it\'s', b="\"" WHERE id=5`, "update t set a = ?, b = ? where id = ?"},
		{MySQL, `UPDATE t SET a='it\'s' WHERE id=5`, "update t set a = ? …"},
		{MySQL, `INSERT INTO t VALUES ('it\'s', 5, 'x');`, "insert into t values (?)"},
		{MySQL, "SELECT q'[it's]', secret", "select ? …"},
		// comments
		{MySQL, "SELECT 1 -- it's\n, a # x\n FROM /* 'y */ t;", "select ?, a from t"},
		{PostgreSQL, "SELECT /* a /* b */ ' */ a FROM t -- x", "select a from t"},
		{MySQL, "SELECT /*+ INDEX(t i) QB('x') */ a FROM t", "select /*+ index(t i) qb(?) */ a from t"},
		{MySQL, "/*!40101 SET NAMES 'utf8' */;", "set names ?"},
		{MySQL, "/*!99999 it's */ SELECT 'secret' FROM t", "it ? …"},
		{MySQL, "SELECT 5--x'\n, 'secret'", "select ? …"},
		// lists
		{MySQL, "SELECT a FROM t WHERE (a, b) IN ((1, 2), (3, 4)) AND c = 1", "select a from t where (a, b) in ((?)) and c = ?"},
		{MySQL, "INSERT INTO t (a) VALUES (1, NOW(), NULL), (2, ')', DEFAULT) ON DUPLICATE KEY UPDATE a=VALUES(a), b=VALUES(b)",
			"insert into t(a) values (?, now(), ?) on duplicate key update a = values (a), b = values (b)"},
		{MySQL, "VALUES ROW(1,2), ROW(3,4)", "values row(?)"},
		{PostgreSQL, "SELECT ARRAY[1,2,3], a[1:2] FROM (VALUES (1,'a'),(2,'b')) AS v(x, y)", "select array[?], a[?] from (values (?)) as v(x, y)"},
		{PostgreSQL, "SELECT a::int, b->>'x' FROM t WHERE a = $1 AND b IS NOT NULL AND c = :name", "select a :: int, b ->> ? from t where a = ? and b is not null and c = ?"},
		{MySQL, "SELECT a FROM t WHERE a <=> ? AND b IS NULL AND c = TRUE OR @x := 1", "select a from t where a <=> ? and b is null and c = ? or ? := ?"},
		{MySQL, "SELECT @@global.max_connections, 'u'@'h', u@host.name", "select @@global.max_connections, ?, u ?"},
		{MySQL, "BEGIN; SELECT 1;;", "begin; select ?"},
		{MySQL, "SELECT \\N, `weird\x01name` FROM `T`", "select ?, `weird name` from `T`"},
		{MySQL, "SELECT a FROM `表` WHERE a = 1", "select a from …"},
		{knownMySQL, "SELECT a FROM `表` WHERE a = 1", "select a from `表` where a = ?"},
		{MySQL, "", ""},
	} {
		require.Equal(t, c.want, norm(c.d, c.in), "%q", c.in)
	}
}

func TestACutListHasTheKeyOfTheWholeList(t *testing.T) {
	for d, texts := range map[Dialect][]string{
		MySQL: {"INSERT INTO t (a, b) VALUES (|1, 'it''s', NULL, -0x1F, N'x', @v), (2, 'b),(', NULL, 4, now(), 6), (3, 'c', TRUE, 4, 5, 6)",
			"SELECT a FROM t WHERE b IN (|1, 2 , -3, 'x', \"y\", 1.5e-3)"},
		PostgreSQL: {"INSERT INTO t (a, b) VALUES (|1, 'it''s', NULL, $1, E'\\n', $$x$$, U&'x'), (2, 'b),(', $t$)$t$, 4, now(), 6)",
			"SELECT a FROM t WHERE b IN (|1, 2, 'x', $1) "},
	} {
		for _, s := range texts {
			at := len(s)
			for i := range s {
				if s[i] == '|' {
					at = i
				}
			}
			whole := s[:at] + s[at+1:]
			for n := at; n <= len(whole); n++ {
				require.Equal(t, norm(d, whole), norm(d, whole[:n]), "%q", whole[:n])
				require.Equal(t, key(d, whole), key(d, whole[:n]), "%q", whole[:n])
			}
		}
	}
}

func TestTextIsCutOnATokenBorder(t *testing.T) {
	const s = "SELECT alpha, beta FROM gamma"
	for n := range 40 {
		got := string(AppendNormalized([]byte("x"), MySQL, []byte(s), n))[1:]
		require.LessOrEqual(t, len(got), n)
		if n >= len(s) {
			require.Equal(t, "select alpha, beta from gamma", got)
		}
	}
	require.Equal(t, "select alpha,…", string(AppendNormalized(nil, MySQL, []byte(s), 16)))
}

func TestTheKeyOfAWordDoesNotDependOnItsPlace(t *testing.T) {
	seen := map[uint64]bool{}
	for n := 1; n < 40; n++ {
		w := strings.Repeat("Ab_9", 10)[:n]
		alone := key(MySQL, w)
		require.False(t, seen[alone], "%q", w)
		seen[alone] = true
		require.Equal(t, alone, key(MySQL, strings.ToLower(w)+strings.Repeat(" ", 30)))
		require.Equal(t, alone, whole(MySQL, []byte(w+strings.Repeat(" ", 30))))
		require.Equal(t, key(MySQL, w+"."+w), key(MySQL, w+" . "+w+strings.Repeat(" ", 30)))
	}
}

func TestKeyDoesNotAllocate(t *testing.T) {
	for d, s := range map[Dialect]string{MySQL: inputs[3].text, PostgreSQL: inputs[2].text, Redis: resp("CONFIG", "SET", "a", "b"), MongoDB: doc(str("find", "o"), sub("filter", i32("a", 1)))} {
		text := []byte(s)
		require.Zero(t, testing.AllocsPerRun(100, func() { Key(d, text) }), s)
	}
}
