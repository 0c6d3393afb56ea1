package sqltext

import (
	"math/bits"
	"unicode/utf8"
)

// kind is what the last token was.
type kind uint8

const (
	none    kind = iota
	name         // word or quoted identifier
	lit          // any literal or placeholder
	opening      // ( [ {
	closing      // ) ] }
	sign         // operator or punctuation
)

// held is a separator that is emitted only if what follows wants it.
type held uint8

const (
	nothing   held = iota
	afterLit       // comma behind a literal: dropped with the next literal
	afterRow       // comma behind a row: dropped with the next row
	semicolon      // dropped at the end
)

// Tags of single-chunk tokens. No word begins with a byte this small, so the
// sequence of chunks spells the token sequence in one way only.
const (
	tagSign   = 1
	tagLit    = 2
	tagQuoted = 3
	tagMark   = 4
)

// mix adds a chunk to a hash: a 64 x 64 bit product folded in half.
func mix(h, w uint64) uint64 {
	hi, lo := bits.Mul64(h^w^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}

func finish(h uint64) uint64 {
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>29
}

// flush emits the separator that was held back and says whether the sequence
// goes on.
func (l *lexer) flush() bool {
	p := l.pend
	l.pend = nothing
	switch {
	case p == semicolon && l.blind:
		l.giveUp()
	case p == semicolon:
		l.sign(';', false)
		if l.watch != nil {
			l.watch.n = 0
		}
	case p != nothing:
		l.sign(',', false)
	}
	return !l.stop
}

// literal emits the placeholder; runs of literals become one.
func (l *lexer) literal() {
	if l.prev == lit {
		if l.pend == afterLit {
			l.pend = nothing
		}
		if l.pend == nothing {
			return
		}
	}
	if l.pend != nothing && !l.flush() {
		return
	}
	l.h = mix(l.h, tagLit)
	l.prev = lit
	if l.keep {
		l.write(lit, "?")
	}
}

// sign emits one byte of punctuation. glued says that it belongs to the
// operator whose byte came just before.
func (l *lexer) sign(c byte, glued bool) {
	if l.pend != nothing && !l.flush() {
		return
	}
	v := uint64(c)<<8 | tagSign
	if glued {
		v |= 1 << 16
	}
	l.h = mix(l.h, v)
	l.prev = sign
	if l.keep {
		l.glue = l.glue || glued
		l.write(sign, string(rune(c)))
	}
}

// bracket emits an opening or closing bracket.
func (l *lexer) bracket(k kind, c byte) {
	if l.pend != nothing && !l.flush() {
		return
	}
	l.h = mix(l.h, uint64(c)<<8|tagSign)
	l.prev = k
	if l.keep {
		l.write(k, string(rune(c)))
	}
}

// quotedName emits a quoted identifier, its quotes included.
func (l *lexer) quotedName(b []byte) {
	if l.pend != nothing && !l.flush() {
		return
	}
	l.h = mix(l.h, uint64(len(b))<<8|tagQuoted)
	l.chunks(b)
	l.prev, l.last, l.lastAt, l.lastEnd = name, 0, 0, 0
	if l.keep {
		l.writeName(b, false)
	}
}

// giveUp ends the sequence with the mark: what follows cannot be read safely.
func (l *lexer) giveUp() {
	l.pend = nothing
	l.h = mix(l.h, tagMark)
	l.stop, l.gaveUp = true, true
	if l.keep {
		l.write(sign, mark)
	}
}

// chunks adds the bytes of s to the hash whose length is in the hash already.
func (l *lexer) chunks(s []byte) {
	for len(s) >= 8 {
		l.h = mix(l.h, load(s, 0))
		s = s[8:]
	}
	l.h = mix(l.h, load(s, 0))
}

// write appends the text of a token, with a space before it where people
// expect one, or ends the text when the limit is reached.
func (l *lexer) write(k kind, s string) {
	if l.spaced(k, s) {
		l.dst = append(l.dst, ' ')
	}
	l.glue = k == opening || k == sign && (s == "." || s == "@")
	l.shape, l.wordAt = k, len(l.dst)
	l.dst = append(l.dst, s...)
	l.fit()
}

// writeName appends an identifier: folded to lower case unless quoted, invalid
// UTF-8 and control bytes replaced.
func (l *lexer) writeName(b []byte, fold bool) {
	if l.spaced(name, "") {
		l.dst = append(l.dst, ' ')
	}
	l.glue, l.shape, l.wordAt = false, name, len(l.dst)
	for len(b) > 0 {
		c := b[0]
		if c < utf8.RuneSelf {
			switch {
			case fold && c-'A' < 26:
				c |= 0x20
			case fold && c == 0x7f:
				c = '_'
			case c < ' ' || c == 0x7f:
				c = ' '
			}
			l.dst, b = append(l.dst, c), b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		l.dst, b = utf8.AppendRune(l.dst, r), b[n:]
	}
	l.fit()
}

// fit keeps the text within its limit and remembers the last border behind
// which the mark has room.
func (l *lexer) fit() {
	switch n := len(l.dst) - l.base; {
	case n > l.limit:
		l.dst = append(l.dst[:l.border], mark...)
		l.stop, l.keep = true, false
	case n <= l.limit-len(mark):
		l.border = len(l.dst)
	}
}

// spaced says whether a space goes before a token.
func (l *lexer) spaced(k kind, s string) bool {
	if l.glue || len(l.dst) == l.base {
		return false
	}
	switch {
	case k == opening && s == "(":
		return l.shape != name || keywords[string(l.dst[l.wordAt:])]
	case k == opening && s == "[":
		return l.shape == sign
	case k == closing:
		return false
	case k == sign:
		return s != "," && s != ";" && s != "." && !(s == ":" && l.d&engines == MongoDB)
	}
	return true
}
