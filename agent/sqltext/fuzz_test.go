package sqltext

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// survives makes a statement from b, and fails if a literal is to be seen in
// what the lexer says about it or about a prefix of it.
func survives(t require.TestingT, b []byte) {
	c := &choices{b: b}
	how, told, cut := c.next(), c.next(), int(c.next())<<8|int(c.next())
	s := server{pg: how&1 != 0, escapes: how&2 != 0, ansi: how&4 != 0, gbk: how&8 != 0}
	d := s.dialect(told)
	text, plain, markers := s.statement(c)
	got := norm(d, text)
	require.Empty(t, leaked(got, plain, markers), "%+v %08b\n%q\n%q", s, d, text, got)
	head := text[:cut%(len(text)+1)]
	got = norm(d, head)
	require.Empty(t, leaked(got, plain, markers), "%+v %08b\n%q\n%q", s, d, head, got)
	if all := Backslash | NoBackslash; d&all != 0 && d&SafeCharset != 0 && (s.pg || d&(QuotedNames|QuotedStrings) != 0) && !hasCode(text) {
		require.Equal(t, norm(d, plain), norm(d, text), "%+v %08b %q", s, d, text)
		require.Equal(t, key(d, plain), key(d, text))
	}
}

func FuzzNoLiteralSurvives(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x10\x00\x00\x03\x01\x02\x03"))
	f.Fuzz(func(t *testing.T, b []byte) { survives(t, b) })
}

func TestNoLiteralSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { survives(t, rapid.SliceOfN(rapid.Byte(), 4, 200).Draw(t, "choices")) })
}

func FuzzNeverPanics(f *testing.F) {
	for d := range Dialect(5) {
		for _, s := range []string{"SELECT 'a', \"b\", `c` -- x\n", "E'a\\'' $t$ x $t$ /*+ /*! */", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "\x10\x00\x00\x00\x10ping\x00\x01\x00\x00\x00\x00"} {
			f.Add(byte(d), []byte(s), 40)
		}
	}
	f.Fuzz(func(t *testing.T, d byte, text []byte, limit int) {
		limit = max(limit%2048, 0)
		got := AppendNormalized(nil, Dialect(d), text, limit)
		require.LessOrEqual(t, len(got), limit)
		require.True(t, utf8.Valid(got), "%q", got)
		Sensitive(Dialect(d), text)
		Privileges(Dialect(d), text)
		require.Equal(t, Key(Dialect(d), text), whole(Dialect(d), text))
	})
}

// whole is the key that comes with the text.
func whole(d Dialect, text []byte) uint64 {
	var l lexer
	l.begin(d, text)
	l.keep, l.slow, l.special, l.limit = true, true, true, 1<<40
	l.run()
	return finish(l.h)
}

// FuzzCut cuts a list of values anywhere: the key must be that of the whole.
func FuzzCut(f *testing.F) {
	f.Add([]byte("\x00\x05\x03\x01\x02\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &choices{b: b}
		how, rows := c.next(), c.of(2) == 0
		s := server{pg: how&1 != 0, escapes: how&2 != 0, ansi: how&4 != 0}
		d := s.dialect(7)
		head, list := "SELECT a FROM t WHERE b IN (", ""
		if rows {
			head = "INSERT INTO t VALUES ("
		}
		for n := range 1 + c.of(6) {
			if n > 0 && rows && c.of(3) == 0 {
				list += ") , ("
			} else if n > 0 {
				list += ", "
			}
			list += s.literal(c, c.marker())
		}
		want, text := norm(d, head+list+")"), head+list+")"
		for n := len(head); n <= len(text); n++ {
			require.Equal(t, want, norm(d, text[:n]), "%+v %q", s, text[:n])
			require.Equal(t, key(d, text), key(d, text[:n]))
		}
	})
}

// FuzzNoArgumentSurvives writes markers into Redis arguments and BSON values.
func FuzzNoArgumentSurvives(f *testing.F) {
	f.Add([]byte("\x00\x05\x03\x01\x02\x03\x07\x09\x20\x11"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &choices{b: b}
		cut := int(c.next())<<8 | int(c.next())
		m := [][]byte{c.marker(), c.marker(), c.marker()}
		args := []string{[]string{"SET", "MGET", "AUTH", "CONFIG", "object", "hello"}[c.of(6)], string(m[0]), string(m[1]), string(m[2])}
		find := doc(str([]string{"find", "delete", "createUser", "update"}[c.of(4)], "tab"),
			sub("filter", str("a", string(m[0])), arr("$in", str("0", string(m[1])), sub("1", field(0x05, "b", le(len(m[2]))+"\x00"+string(m[2]))))),
			arr("updates", sub("0", sub("q", str("c", string(m[0]))), sub("u", sub("$set", str("d", string(m[1])))))), str("$db", string(m[2])))
		for d, s := range map[Dialect]string{Redis: resp(args...), MongoDB: find} {
			require.Empty(t, leaked(norm(d, s), "config object hello filter updates createuser", m), "%q", s)
			head := s[:cut%(len(s)+1)]
			require.Empty(t, leaked(norm(d, head), "config object hello filter updates createuser", m), "%q", head)
		}
	})
}
