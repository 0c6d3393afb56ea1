package sqltext

import "encoding/binary"

// escapes says what a backslash does in a string.
type escapes uint8

const (
	unsure escapes = iota
	yes
	no
)

// lexer reads one text. The sequence it emits goes into a hash and, if keep is
// set, into a text: one reading, two results.
type lexer struct {
	text []byte
	h    uint64
	last uint64 // the last word, as hashWord takes it; 0 if it is long
	// lists has a bit for each open parenthesis that holds a list of values,
	// rows one for each depth on which rows stand, square one for each [.
	lists, rows, square uint64
	depth               int
	lastAt, lastEnd     int // place of the last word
	eEnd                int // end of the last E'..' string, or -1
	signEnd             int // end of the last operator byte
	prev                kind
	pend                held
	d                   Dialect
	single, double      escapes
	names               bool // ".." is an identifier
	safe                bool // SafeCharset
	pg                  bool
	code                bool // inside /*! */ or /*+ */
	hint                bool // that code is a hint
	rowClosed           bool // the last ) ended a row
	// blind is set where readings begin to differ: from then on only
	// placeholders, commas and parentheses are emitted.
	blind, stop, gaveUp bool

	// special says that slow or blind is set.
	special             bool
	slow, keep, glue    bool
	shape               kind
	wordAt              int
	dst                 []byte
	base, border, limit int
	watch               *watch
}

func (l *lexer) begin(d Dialect, text []byte) {
	l.text, l.d = text, d
	l.h = uint64(d & engines)
	l.eEnd, l.signEnd = -1, -1
	l.pg = d&engines == PostgreSQL
	l.safe = d&SafeCharset != 0
	switch {
	case d&Backslash != 0:
		l.single = yes
	case d&NoBackslash != 0:
		l.single = no
	}
	l.double = l.single
	l.names = d&QuotedNames != 0 || l.pg && d&QuotedStrings == 0
	if l.single == yes && d&QuotedStrings == 0 {
		l.double = unsure
	}
}

// Words as word reads them: folded, first byte lowest.
const (
	wNull   = 'n' | 'u'<<8 | 'l'<<16 | 'l'<<24
	wTrue   = 't' | 'r'<<8 | 'u'<<16 | 'e'<<24
	wFalse  = 'f' | 'a'<<8 | 'l'<<16 | 's'<<24 | 'e'<<32
	wIs     = 'i' | 's'<<8
	wNot    = 'n' | 'o'<<8 | 't'<<16
	wIn     = 'i' | 'n'<<8
	wRow    = 'r' | 'o'<<8 | 'w'<<16
	wValue  = 'v' | 'a'<<8 | 'l'<<16 | 'u'<<24 | 'e'<<32
	wValues = wValue | 's'<<40
)

// sql reads a text of MySQL or PostgreSQL.
func (l *lexer) sql() {
	text := l.text
	for i := 0; i < len(text) && !l.stop; {
		switch classes[text[i]] {
		case cSpace:
			i++
		case cWord:
			if e := l.plainWord(i); e > 0 {
				if text[e] == ' ' {
					e++
				}
				i = e
				continue
			}
			i = l.word(i)
		case cOther:
			i = l.operator(i)
		case cDot:
			if i+1 < len(text) && classes[text[i+1]] == cWord && !l.special && l.pend == nothing {
				l.h = mix(l.h, '.'<<8|tagSign)
				l.prev, l.signEnd = sign, i+1
				i++
				continue
			}
			i = l.other(i)
		case cComma:
			i = l.comma(i)
		case cDigit:
			if e := plainNumber(text, i); e > 0 {
				l.literal()
				i = e
				continue
			}
			i = l.number(i)
		case cOpen:
			i = l.open(i)
		case cClose:
			i = l.close(i)
		case cQuote:
			i = l.quote(i)
		case cDouble:
			i = l.doubleQuote(i)
		case cBacktick:
			i = l.backtick(i)
		case cSemicolon:
			i = l.semicolon(i)
		default:
			i = l.other(i)
		}
	}
	if !l.stop {
		l.end()
	}
}

// end closes what a cut left open, so that a list has the same sequence
// wherever it is cut.
func (l *lexer) end() {
	if l.prev == opening && l.listed() {
		l.literal()
	}
	l.pend = nothing
	for ; l.depth > 0 && !l.stop; l.depth-- {
		c := byte(')')
		if l.depth <= 64 && l.square>>(l.depth-1)&1 != 0 {
			c = ']'
		}
		l.bracket(closing, c)
	}
}

// listed says whether the innermost parenthesis holds a list of values.
func (l *lexer) listed() bool {
	return l.depth > 0 && l.depth <= 64 && l.lists>>(l.depth-1)&1 != 0
}

// cutElement says whether an element of a list that reaches the end of the
// text begins at i: what it would have become is not known, so it is a literal.
func (l *lexer) cutElement(end int) bool {
	return end >= len(l.text) && l.listed() && (l.pend == afterLit || l.prev == opening)
}

// plainWord does what word does for most words: it takes one of up to 15 bytes
// with nothing special about it or the state, and returns 0 for others.
func (l *lexer) plainWord(i int) int {
	if l.special || l.pend != nothing || len(l.text)-i < 8 {
		return 0
	}
	x := binary.LittleEndian.Uint64(l.text[i:])
	e, h := i, l.h
	n := plainBytes(x)
	w := fold(x)
	if n == 8 && len(l.text)-e >= 16 {
		e += 8
		h = mix(h, w)
		x = binary.LittleEndian.Uint64(l.text[e:])
		n = plainBytes(x)
		w = fold(x)
	}
	if n == 8 || classes[l.text[e+n]] > cPlain {
		return 0
	}
	w &= 1<<(8*uint(n)) - 1
	switch {
	case e != i:
		l.last = 0
	case w == wNull || w == wTrue || w == wFalse || w == wRow:
		return 0
	default:
		l.last = w
	}
	l.h = mix(h, w)
	l.lastAt, l.lastEnd, l.prev = i, e+n, name
	return e + n
}

// word reads a keyword or an unquoted identifier.
func (l *lexer) word(i int) int {
	x := load(l.text, i)
	n := wordBytes(x)
	w, e := fold(x), i+n
	if n < 8 {
		w &= 1<<(8*uint(n)) - 1
	} else {
		e = wordEnd(l.text, e)
	}
	if e == len(l.text) {
		if l.cutElement(e) {
			l.literal()
			return e
		}
	} else if c := l.text[e]; c == '\'' || c == '"' || c == '&' {
		if q := l.prefix(i, e); q > 0 {
			return q
		}
	}
	if (w == wNull || w == wTrue || w == wFalse) && (l.prev != name || l.last != wIs && l.last != wNot) {
		l.literal()
		return e
	}
	if l.pend != nothing {
		if l.pend == afterRow && w == wRow && l.next(e) == '(' {
			return e
		}
		l.flush()
	}
	if l.blind && !l.stop {
		l.giveUp()
	}
	if !l.stop {
		l.hashWord(i, e, w)
	}
	return e
}

// hashWord emits the word from i to e; w is its first eight bytes, folded.
func (l *lexer) hashWord(i, e int, w uint64) {
	l.h = mix(l.h, w)
	if e-i < 8 {
		if w != wRow || l.prev != name || l.last != wValues {
			l.last = w
		}
	} else {
		l.last = 0
		k := i + 8
		for ; e-k >= 8; k += 8 {
			l.h = mix(l.h, fold(load(l.text, k)))
		}
		w = 0
		if k < e {
			w = fold(load(l.text, k)) & (1<<(8*uint(e-k)) - 1)
		}
		l.h = mix(l.h, w)
	}
	l.prev, l.lastAt, l.lastEnd = name, i, e
	if l.slow {
		l.note(l.text[i:e])
	}
}

// note is what the rarer uses need of a word.
func (l *lexer) note(w []byte) {
	if l.watch != nil {
		l.watch.word(w)
	}
	if l.keep {
		l.writeName(w, true)
	}
}

// next is the first byte from i that is no space, or 0.
func (l *lexer) next(i int) byte {
	for ; i < len(l.text); i++ {
		if classes[l.text[i]] != cSpace {
			return l.text[i]
		}
	}
	return 0
}

// prefix returns the place of the quote if the word from i to e is the prefix
// of a string (N” B” X” E” U&” _utf8”), else 0.
func (l *lexer) prefix(i, e int) int {
	c := l.text[i] | 0x20
	switch {
	case l.text[e] == '&':
		if !l.pg || c != 'u' || e-i != 1 {
			return 0
		}
		if e+1 == len(l.text) && l.cutElement(e+1) {
			l.literal()
			return e + 1
		}
		if e+1 < len(l.text) && (l.text[e+1] == '\'' || l.text[e+1] == '"') {
			return e + 1
		}
		return 0
	case l.pg && l.text[e] == '"':
		return 0
	case e-i == 1 && (c == 'n' || c == 'b' || c == 'x' || c == 'e' && l.pg), c == 'q' && e-i == 1, l.text[i] == '_' && !l.pg:
		return e
	}
	return 0
}

func (l *lexer) comma(i int) int {
	if l.pend != nothing && !l.flush() {
		return i
	}
	switch {
	case l.prev == lit:
		l.pend = afterLit
	case l.prev == closing && l.rowClosed:
		l.pend = afterRow
	default:
		l.sign(',', false)
	}
	return i + 1
}

func (l *lexer) semicolon(i int) int {
	if l.prev != none {
		l.pend = semicolon
	}
	return i + 1
}

// open reads ( or [. The second and later rows of VALUES or of a list of rows
// are not emitted at all.
func (l *lexer) open(i int) int {
	c := l.text[i]
	if l.pend == afterRow && c == '(' {
		l.pend = nothing
		return l.skipRow(i)
	}
	row := l.prev == name && (l.last == wValues || l.last == wValue) || l.prev == opening && l.listed()
	list := row || c == '[' || l.prev == name && l.last == wIn
	l.bracket(opening, c)
	if l.depth < 64 {
		bit := uint64(1) << l.depth
		l.rows, l.lists, l.square = l.rows&^bit, l.lists&^bit, l.square&^bit
		if row {
			l.rows |= bit
		}
		if list {
			l.lists |= bit
		}
		if c == '[' {
			l.square |= bit
		}
	}
	l.depth++
	return i + 1
}

func (l *lexer) close(i int) int {
	if l.depth == 0 {
		if l.blind {
			l.giveUp()
			return i
		}
	} else {
		l.depth--
	}
	l.rowClosed = l.depth < 64 && l.rows>>l.depth&1 != 0
	l.bracket(closing, l.text[i])
	return i + 1
}
