package sqltext

import "bytes"

// other reads what is neither a word, a number, a list nor a string.
func (l *lexer) other(i int) int {
	if e := l.comment(i); e > i {
		return e
	}
	var follow class
	if i+1 < len(l.text) {
		follow = classes[l.text[i+1]]
	}
	switch classes[l.text[i]] {
	case cSign:
		if l.unary() && (follow == cDigit || follow == cDot) {
			return i + 1
		}
	case cDollar:
		return l.dollar(i)
	case cQuestion:
		l.literal()
		return i + 1
	case cColon:
		if follow == cColon {
			return l.pair(i)
		}
		if follow == cWord || follow == cDigit {
			l.literal()
			return wordEnd(l.text, i+1)
		}
	case cAt:
		return l.at(i, follow)
	case cDot:
		if follow == cDigit && (i == 0 || !isWord(l.text[i-1]) && l.text[i-1] != '`' && l.text[i-1] != '"') {
			return l.number(i)
		}
	case cBackslash:
		if !l.pg && follow == cWord && l.text[i+1]|0x20 == 'n' {
			l.literal()
			return i + 2
		}
	}
	return l.operator(i)
}

// operator emits the byte at i.
func (l *lexer) operator(i int) int {
	if l.cutElement(i + 1) {
		l.literal()
		return i + 1
	}
	if l.pend != nothing && !l.flush() {
		return i
	}
	if l.blind {
		l.giveUp()
		return i
	}
	c := l.text[i]
	l.sign(c, l.signEnd == i && glues(l.text[i-1], c))
	l.signEnd = i + 1
	return i + 1
}

// pair emits the two bytes at i, :: or @@.
func (l *lexer) pair(i int) int {
	if e := l.operator(i); l.stop || l.prev == lit {
		return e
	}
	l.sign(l.text[i+1], true)
	return i + 2
}

// glues says whether two adjacent bytes make one operator.
func glues(a, b byte) bool {
	return bytes.IndexByte([]byte("<>=!|&:-#~@*^"), a) >= 0 && bytes.IndexByte([]byte("<>=|&~*!@#:"), b) >= 0
}

// unary says whether a sign at this place belongs to the number behind it.
func (l *lexer) unary() bool {
	switch l.prev {
	case lit:
		return l.pend != nothing
	case closing:
		return l.pend != nothing
	case name:
		return keyword(l.text[l.lastAt:l.lastEnd])
	}
	return true
}

// at reads a variable or the host of an account, both placeholders; @@ begins
// the name of a setting.
func (l *lexer) at(i int, follow class) int {
	switch follow {
	case cWord, cDigit, cDollar:
		e := i + 1
		for e < len(l.text) && (isWord(l.text[e]) || l.text[e] == '.') {
			e++
		}
		l.literal()
		return e
	case cQuote:
		return i + 1
	case cDouble, cBacktick:
		if follow == cDouble && !l.names {
			return i + 1
		}
		e, _ := l.nameEnd(i+1, l.text[i+1])
		l.literal()
		return e
	case cAt:
		if l.pg {
			break
		}
		return l.pair(i)
	}
	return l.operator(i)
}

// number reads a literal that begins with a digit, and all word bytes behind
// it: 1.5e-3, 0xFF, 0b1, 1_000. MySQL takes 1a for a name; that is a
// placeholder, too.
func (l *lexer) number(i int) int {
	text, e := l.text, i
	plain := true // digits and dots only
	for ; e < len(text); e++ {
		c := text[e]
		switch k := classes[c]; {
		case k == cDigit || k == cDot:
			continue
		case k == cWord:
			if plain && c|0x20 == 'e' && e+1 < len(text) && classes[text[e+1]] == cSign {
				e++
			}
			plain = false
			continue
		case k == cDollar:
			if !l.pg {
				plain = false
				continue
			}
			if !plain {
				l.confuse()
			}
		}
		break
	}
	l.literal()
	return e
}

// comment returns the end of the comment that begins at i, or i if none does.
// Of comments that are code only the brackets are stepped over.
func (l *lexer) comment(i int) int {
	text := l.text
	c := text[i]
	if c == '#' && !l.pg {
		return l.line(i)
	}
	if i+1 >= len(text) {
		return i
	}
	switch next := text[i+1]; {
	case c == '-' && next == '-':
		if l.pg || i+2 >= len(text) || classes[text[i+2]] == cSpace {
			return l.line(i)
		}
		l.confuse() // two signs in MySQL, a comment in Oracle modes
	case c == '/' && next == '*':
		return l.block(i)
	case c == '*' && next == '/' && l.code:
		l.code = false
		if l.hint {
			l.hint = false
			l.mark3("*/")
		}
		return i + 2
	}
	return i
}

// line is the end of the line comment at i.
func (l *lexer) line(i int) int {
	if l.code {
		l.confuse()
	}
	stop := byte('\n')
	if l.pg {
		stop = '\r'
	}
	return until(l.text, i, '\n', stop)
}

// block is the end of the comment at i, or of its opening if it holds code:
// /*! of MySQL, /*M! of MariaDB, /*T! of TiDB, hints /*+.
func (l *lexer) block(i int) int {
	rest := l.text[i+2:]
	if l.code {
		l.confuse()
	} else if n, hint := codeOpening(rest, l.pg); n > 0 {
		l.code, l.hint = true, hint
		if hint {
			l.mark3("/*+")
		}
		return i + 2 + n
	}
	depth := 1
	for j := 0; j+1 < len(rest); j++ {
		j = until(rest, j, '*', '/')
		if j+1 >= len(rest) {
			break
		}
		switch {
		case rest[j] == '*' && rest[j+1] == '/':
			if depth--; depth == 0 {
				return i + 2 + j + 2
			}
			j++
		case rest[j] == '/' && rest[j+1] == '*' && l.pg:
			depth++
			j++
		}
	}
	return len(l.text)
}

// codeOpening is the length of what marks a comment as code, behind its /*.
func codeOpening(rest []byte, pg bool) (n int, hint bool) {
	if len(rest) > 0 && rest[0] == '+' {
		return 1, true
	}
	if !pg && len(rest) > 1 && (rest[0] == 'M' || rest[0] == 'T') && rest[1] == '!' {
		n = 2
	} else if !pg && len(rest) > 0 && rest[0] == '!' {
		n = 1
	} else {
		return 0, false
	}
	if n < len(rest) && rest[n] == '[' {
		if k := bytes.IndexByte(rest[n:min(len(rest), n+64)], ']'); k > 0 {
			return n + k + 1, false
		}
	}
	for n < len(rest) && classes[rest[n]] == cDigit {
		n++
	}
	return n, false
}

// mark3 emits the bracket of a hint.
func (l *lexer) mark3(s string) {
	if l.pend != nothing && !l.flush() {
		return
	}
	if l.blind {
		l.giveUp()
		return
	}
	for k := range len(s) {
		l.sign(s[k], k > 0)
	}
}
