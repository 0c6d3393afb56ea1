package sqltext

// skipRow steps over the row that begins with the parenthesis at i: only what
// may hide its end is looked at.
func (l *lexer) skipRow(i int) int {
	l.prev, l.rowClosed = closing, true
	text, depth := l.text, 0
	for j := i; j < len(text); {
		switch classes[text[j]] {
		case cOpen:
			depth++
			j++
		case cClose:
			j++
			if depth--; depth == 0 {
				return j
			}
		case cQuote, cDouble, cBacktick, cDollar, cSign, cSlash, cStar, cHash:
			j = l.skipOne(j)
		default:
			j++
		}
	}
	return len(text)
}

// skipOne steps over a string, a quoted identifier, a comment, or one byte.
func (l *lexer) skipOne(j int) int {
	switch c := l.text[j]; c {
	case '\'':
		return l.single1(j)
	case '"':
		if !l.names {
			return l.str(j, '"', l.double)
		}
		fallthrough
	case '`':
		e, ok := l.nameEnd(j, c)
		if !ok || l.pg && c == '`' {
			l.confuse()
		}
		return e
	case '$':
		inWord := j > 0 && isWord(l.text[j-1])
		if !l.pg {
			if !inWord {
				l.confuse()
			}
			return j + 1
		}
		e := l.dollarEnd(j)
		if e == 0 {
			return j + 1
		}
		if inWord {
			l.confuse()
		}
		return e
	case '/', '*':
		code := l.code
		if e := l.comment(j); e > j {
			// code that begins or ends inside a row
			if code != l.code {
				l.confuse()
			}
			return e
		}
	default:
		if e := l.comment(j); e > j {
			return e
		}
	}
	return j + 1
}
