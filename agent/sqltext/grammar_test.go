package sqltext

import (
	"bytes"
	"fmt"
	"strings"
)

// choices hands out the choices that a fuzzer's bytes stand for.
type choices struct{ b []byte }

func (c *choices) next() byte {
	if len(c.b) == 0 {
		return 0
	}
	x := c.b[0]
	c.b = c.b[1:]
	return x
}

func (c *choices) of(n int) int { return int(c.next()) % n }

// server is how the session at hand really reads a text.
type server struct {
	pg, escapes, ansi, gbk bool
}

// dialect is what the lexer is told of it: nothing, or a part, never wrong.
func (s server) dialect(told byte) Dialect {
	d := MySQL
	if s.pg {
		d = PostgreSQL
	}
	if told&1 != 0 {
		if s.escapes {
			d |= Backslash
		} else {
			d |= NoBackslash
		}
	}
	if told&2 != 0 && !s.gbk {
		d |= SafeCharset
	}
	if told&4 != 0 && !s.pg {
		if s.ansi {
			d |= QuotedNames
		} else {
			d |= QuotedStrings
		}
	}
	return d
}

// pieces are what markers are made of, besides plain bytes.
var pieces = []string{"zq7x", "wk9v", "'", `"`, "`", `\`, "\xbf", "\x81", "\xfe", "*/", "/*", "-- ", "#", "$", "$$", "\n", "(", ")", ",",
	";", "?", "'zq7x", "\\'", "\xbf\\", "\xbf`", "\xbf|", "\xe4\xb8\xad", "E'", "e", "q", "\r", "/*!", "/*+", "--", " ", "VALUES", "NULL", "\x00"}

func (c *choices) marker() []byte {
	var m []byte
	for range 1 + c.of(9) {
		if x := c.next(); x < 200 {
			m = append(m, pieces[int(x)%len(pieces)]...)
		} else {
			m = append(m, c.next())
		}
	}
	return m
}

// characters splits m as the session's character set does, dropping what is
// not a character of it.
func (s server) characters(m []byte) (out [][]byte) {
	for len(m) > 0 {
		n := 1
		if s.gbk && m[0] >= 0x80 {
			if m[0] == 0x80 || m[0] == 0xff || len(m) < 2 || m[1] < 0x40 || m[1] == 0x7f || m[1] == 0xff {
				m = m[1:]
				continue
			}
			n = 2
		}
		out, m = append(out, m[:n]), m[n:]
	}
	return out
}

// literal writes m as a literal of the session.
func (s server) literal(c *choices, m []byte) string {
	prefix, q, escapes := "", byte('\''), s.escapes
	switch c.of(7) {
	case 0:
		prefix = "N"
	case 1:
		if !s.pg && !s.ansi {
			q = '"'
		}
	case 2:
		if s.pg {
			prefix, escapes = "E", true
		} else {
			prefix = "_utf8"
		}
	case 3:
		if s.pg {
			tag := []string{"$$", "$zq7x$", "$_9$", "$\xbf|$"}[c.of(4)]
			if tag[1] == 0xbf && !s.gbk {
				tag = "$a$"
			}
			return tag + string(bytes.ReplaceAll(bytes.ReplaceAll(m, []byte("$"), nil), []byte{0}, nil)) + tag
		}
	}
	out := append([]byte(prefix), q)
	for _, ch := range s.characters(m) {
		switch {
		case len(ch) == 1 && ch[0] == q && escapes && c.of(2) == 0:
			out = append(out, '\\', q)
		case len(ch) == 1 && ch[0] == q:
			out = append(out, q, q)
		case len(ch) == 1 && ch[0] == '\\' && escapes:
			out = append(out, `\\`...)
		default:
			out = append(out, ch...)
		}
	}
	return string(append(out, q))
}

// name is an identifier of the session; its text is allowed to survive.
func (s server) name(c *choices) string {
	names := []string{"tab", "a1", "e", "x$y", "`we ird`", "`q``q`", "`a'b`", "\xe4\xb8\xad", "`\xe4\xb8\xad\xe4\xb8\xad`"}
	switch {
	case s.gbk && s.pg:
		names = []string{"tab", "\xbf|", "\xbfe", `"we ird"`, `"q""q"`, `"a'b"`, "\"\xbf\\\"", "\xbf\\x"}
	case s.gbk:
		names = []string{"tab", "\xbf|", "\xbf`", "`\xbf`x`", "`\xbf\\`", "`a'b`", "\xbf\\x"}
	case s.pg:
		names = []string{"tab", "a1", "e", "x$y", `"we ird"`, `"q""q"`, `"a'b"`, "\xe4\xb8\xad", "a$b$c"}
	}
	n := names[c.of(len(names))]
	if s.ansi && !s.pg && c.of(4) == 0 {
		return `"a\"`
	}
	return n
}

// comment is a comment around m, or code in one.
func (s server) comment(c *choices, m []byte) string {
	var chars []byte
	for _, ch := range s.characters(m) {
		chars = append(chars, ch...)
	}
	clean := strings.NewReplacer("*/", "", "/*", "", "*", "", "/", "", "!", "", "+", "")
	block := clean.Replace(string(chars))
	line := strings.NewReplacer("\n", "", "\r", "").Replace(string(chars))
	switch c.of(7) {
	case 0:
		return "/* " + block + " */"
	case 1:
		return "-- " + line + "\n"
	case 2:
		if !s.pg {
			return "#" + line + "\n"
		}
		return "--" + line + "\n"
	case 3:
		if s.pg {
			return "/* /* " + block + " */ ' */"
		}
		return "/*!99999 it's */"
	case 4:
		return "/*+ it's */"
	}
	return " "
}

// statement builds a text of one of some shapes. Its literals hold markers,
// and plain is the same with a literal x in their places.
func (s server) statement(c *choices) (text, plain string, markers [][]byte) {
	shapes := []string{
		"select N from N where N = L C and N in (L, C L , L) order by N",
		"insert into N (N, N) values (L, L, now()),(L, L, C L) , (L, L, L) C on duplicate key update N = L",
		"update N set N = L, N=L C where N=L or N like L escape L",
		"select /*+ idx(N L) */ N, L from N C /*!40101 where N = L */ and N = L",
		"create user N identified by L C; set password = L",
		"C call N(L, L, C L); C select L from N where N in ((L, L), (L, L)) and N = L",
		"select L,N,L,N,L",
		"select L C L, N, L C N",
		"with N as (values (L, (L)), (L, L)) select N [L] from N where N<L and (N, N) = (L, L)",
	}
	var a, b strings.Builder
	gap := ""
	shape := shapes[c.of(len(shapes))]
	if s.pg { // for which /*! is no code, and two strings in a line are no string
		shape = strings.NewReplacer("/*!40101", "/*+", "L C L", "L C + L").Replace(shape)
	}
	for _, r := range shape {
		switch r {
		case 'N':
			n := s.name(c)
			fmt.Fprint(&a, n)
			fmt.Fprint(&b, n)
		case 'L':
			m := c.marker()
			markers = append(markers, m)
			lit := s.literal(c, m)
			fmt.Fprint(&a, lit)
			fmt.Fprint(&b, "'x'")
		case 'C':
			gap = s.comment(c, c.marker())
			fmt.Fprint(&a, gap)
			fmt.Fprint(&b, " ")
		default:
			a.WriteRune(r)
			b.WriteRune(r)
		}
	}
	return a.String(), b.String(), markers
}

// leaked is a piece of four bytes of a marker, letters, digits and bytes from
// 0x80, that text holds and that is not in the words allowed there.
func leaked(text string, allowed string, markers [][]byte) string {
	low := func(s string) string { return string(lower(nil, []byte(s))) }
	text, allowed = low(strings.ReplaceAll(text, "\ufffd", " ")), low(allowed)
	for _, m := range markers {
		m := low(string(m))
		for i := 0; i+4 <= len(m); i++ {
			p := m[i : i+4]
			if strings.IndexFunc(p, func(r rune) bool { return r < 0x80 && classes[byte(r)] != cWord && classes[byte(r)] != cDigit }) < 0 &&
				strings.Contains(text, p) && !strings.Contains(allowed, p) {
				return p
			}
		}
	}
	return ""
}

// hasCode says whether servers may read a comment of text in two ways.
func hasCode(text string) bool {
	return strings.Contains(text, "it's") || (strings.Contains(text, "/*!") || strings.Contains(text, "/*+")) && strings.Contains(text, "*/")
}
