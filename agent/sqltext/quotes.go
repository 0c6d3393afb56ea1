package sqltext

import "bytes"

// longestName bounds a quoted identifier; engines allow 63 to 128 bytes.
const longestName = 256

// confuse makes the lexer blind.
func (l *lexer) confuse() { l.blind, l.special = true, true }

// straddles makes the lexer blind if a quoted piece inside code in a comment
// holds the end of the comment: who does not execute the comment reads it so.
func (l *lexer) straddles(i, e int) {
	if l.code && bytes.Contains(l.text[i:e], []byte("*/")) {
		l.confuse()
	}
}

// quote reads the string that begins with the ' at i.
func (l *lexer) quote(i int) int {
	e := l.single1(i)
	l.literal()
	return e
}

// doubleQuote reads "..": an identifier or a string.
func (l *lexer) doubleQuote(i int) int {
	if l.names {
		return l.name(i, '"')
	}
	e := l.str(i, '"', l.double)
	l.literal()
	return e
}

// backtick reads `..`. PostgreSQL has no such quotes, its relatives in a MySQL
// mode have: only what reads the same in both is taken.
func (l *lexer) backtick(i int) int {
	e, _ := l.nameEnd(i, '`')
	if l.pg && e-i > 2 && wordEnd(l.text, i+1) < e-1 {
		l.confuse()
	}
	return l.name(i, '`')
}

// name emits the quoted identifier at i, or gives up if it cannot be one.
func (l *lexer) name(i int, q byte) int {
	e, ok := l.nameEnd(i, q)
	if l.blind || !ok {
		if l.pend != nothing && !l.flush() {
			return e
		}
		l.giveUp()
		return e
	}
	l.quotedName(l.text[i:e])
	return e
}

// nameEnd is the end of the quoted identifier at i, and whether it is one.
func (l *lexer) nameEnd(i int, q byte) (int, bool) {
	if q == '`' && l.trail(i) {
		l.confuse()
	}
	for j := i + 1; ; j += 2 {
		k := bytes.IndexByte(l.text[j:], q)
		if k < 0 {
			l.straddles(i, len(l.text))
			return len(l.text), false
		}
		j += k
		if q == '`' && l.trail(j) {
			l.confuse()
		}
		if j+1 == len(l.text) || l.text[j+1] != q {
			l.straddles(i, j+1)
			return j + 1, j+1-i <= longestName
		}
	}
}

// trail says whether the byte at j, one of 0x40 to 0x7e, may be the second
// byte of a character. Any byte from 0x80 may be a first one: which it is
// depends on the character set and on all bytes before.
func (l *lexer) trail(j int) bool {
	return !l.safe && j > 0 && l.text[j-1] >= 0x80
}

// single1 finds the end of the string that begins with the ' at i, by what
// stands before it.
func (l *lexer) single1(i int) int {
	mode := l.single
	continued := l.pg && l.eEnd >= 0 && l.continues(i)
	if continued {
		mode = unsure
	}
	if i > 0 {
		switch l.text[i-1] | 0x20 {
		case 'e':
			if l.pg {
				mode, continued = l.prefixE(i-1), true
			}
		case 'q': // q'[..]' of the Oracle modes
			l.confuse()
		}
	}
	e := l.str(i, '\'', mode)
	l.eEnd = -1
	if continued {
		l.eEnd = e
	}
	return e
}

// prefixE says what a backslash does in a string behind the letter E at i.
func (l *lexer) prefixE(i int) escapes {
	if i == 0 {
		return yes
	}
	c := l.text[i-1]
	if isWord(c) || c >= 0x40 && l.trail(i-1) {
		return unsure
	}
	return yes
}

// continues says whether the string at i may carry on the E'..' string that
// ended at eEnd: only space and line comments between the two.
func (l *lexer) continues(i int) bool {
	for j := l.eEnd; j < i; j++ {
		if c := l.text[j]; c == '-' && l.text[j+1] == '-' {
			j = until(l.text, j, '\n', '\r')
		} else if classes[c] != cSpace {
			return false
		}
	}
	return true
}

// str finds the end of the string that begins with the quote q at i.
func (l *lexer) str(i int, q byte, mode escapes) int {
	text := l.text
	for j := i + 1; ; {
		j = until(text, j, q, '\\')
		switch {
		case j >= len(text):
			l.straddles(i, len(text))
			return len(text)
		case text[j] == '\\':
			j = l.backslash(j, q, mode)
		case j+1 < len(text) && text[j+1] == q:
			j += 2
		default:
			if l.code {
				l.straddles(i, j+1)
			}
			return j + 1
		}
	}
}

// backslash steps over the backslash at j in a string, and makes the lexer
// blind if the readings part here: whether a quote behind it ends the string,
// or whether the backslash is half of a character.
func (l *lexer) backslash(j int, q byte, mode escapes) int {
	if mode == no || j+1 >= len(l.text) {
		return j + 1
	}
	switch next := l.text[j+1]; {
	case next == q && (mode == unsure || l.trail(j)):
		l.confuse()
		if l.pg && mode == unsure {
			return j + 1
		}
	case next == '\\' && l.trail(j):
		l.confuse()
	}
	return j + 2
}

// dollar reads what begins with the $ at i: a parameter, a dollar-quoted
// string, or in MySQL a word.
func (l *lexer) dollar(i int) int {
	if !l.pg {
		e := wordEnd(l.text, i)
		if bytes.IndexByte(l.text[i+1:e], '$') < 0 {
			return l.word(i)
		}
		l.confuse() // MySQL 9 has dollar quotes, older ones such words
		l.literal()
		return e
	}
	e := l.dollarEnd(i)
	if e > 0 {
		l.literal()
		return e
	}
	return l.operator(i)
}

// dollarEnd is the end of the literal that begins with the $ at i, or 0.
func (l *lexer) dollarEnd(i int) int {
	text := l.text
	if i > 0 && text[i-1] >= 0x40 && !isWord(text[i-1]) && l.trail(i-1) {
		l.confuse()
	}
	j := i + 1
	if j < len(text) && classes[text[j]] == cDigit {
		for j < len(text) && classes[text[j]] == cDigit {
			j++
		}
		if j < len(text) && isWord(text[j]) {
			l.confuse()
		}
		return j
	}
	for j < len(text) && (classes[text[j]] == cWord || classes[text[j]] == cDigit) {
		j++
	}
	switch {
	case j == len(text):
		return j
	case text[j] != '$':
		if text[j] >= 0x40 && l.trail(j) {
			l.confuse()
		}
		return 0
	}
	tag := text[i : j+1]
	e := len(text)
	if k := bytes.Index(text[j+1:], tag); k >= 0 {
		e = j + 1 + k + len(tag)
	}
	l.straddles(i, e)
	return e
}
