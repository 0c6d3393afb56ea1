package sqltext

import (
	"encoding/binary"
	"math/bits"
)

// class is what a byte begins outside quotes.
type class uint8

// Those up to cPlain may follow a word without changing what it is.
const (
	cSpace class = iota
	cComma
	cOpen
	cClose
	cSemicolon
	cDot
	cPlain class = cDot
	cOther class = iota // operators
	cWord
	cDigit
	cQuote
	cDouble
	cBacktick
	cSign // + -
	cSlash
	cStar
	cHash
	cDollar
	cQuestion
	cColon
	cAt
	cBackslash
)

var classes = classify()

func classify() (t [256]class) {
	for c := range t {
		switch b := byte(c); {
		case b <= ' ':
			t[c] = cSpace
		case b >= 0x80 || b|0x20 >= 'a' && b|0x20 <= 'z' || b == '_' || b == 0x7f:
			t[c] = cWord
		case b >= '0' && b <= '9':
			t[c] = cDigit
		default:
			t[c] = cOther
		}
	}
	for k, s := range map[class]string{cOpen: "([", cClose: ")]", cComma: ",", cSemicolon: ";", cQuote: "'", cDouble: `"`,
		cBacktick: "`", cSign: "+-", cSlash: "/", cStar: "*", cHash: "#", cDollar: "$", cQuestion: "?", cColon: ":",
		cAt: "@", cDot: ".", cBackslash: `\`} {
		for _, c := range []byte(s) {
			t[c] = k
		}
	}
	return t
}

// isWord says whether c may stand inside an unquoted word.
func isWord(c byte) bool {
	k := classes[c]
	return k == cWord || k == cDigit || k == cDollar
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// load reads up to eight bytes from i, the first lowest, zeros behind the end.
func load(b []byte, i int) uint64 {
	if len(b)-i >= 8 {
		return binary.LittleEndian.Uint64(b[i:])
	}
	return loadTail(b, i)
}

func loadTail(b []byte, i int) uint64 {
	if n := len(b); n >= 8 {
		if i >= n {
			return 0
		}
		return binary.LittleEndian.Uint64(b[n-8:]) >> (64 - 8*uint(n-i))
	}
	var x uint64
	for k := len(b) - 1; k >= i; k-- {
		x = x<<8 | uint64(b[k])
	}
	return x
}

// fold sets bit 5 of every byte below 0x80, which makes letters lower case and
// keeps all other bytes of words apart.
func fold(x uint64) uint64 {
	return x | 0x20*ones&^(x>>2)
}

// wordBytes counts the bytes from the low end of x that are of a word:
// letters, digits, _, $ and all from 0x80. Each test leaves its answer in bit 7
// of the byte; with seven bits a byte no sum carries into the next.
func wordBytes(x uint64) int {
	y := x &^ uint64(highs)
	f := y | 0x20*ones
	letter := (f + (0x80-'a')*ones) &^ (f + (0x7f-'z')*ones)
	digit := (y + (0x80-'0')*ones) &^ (y + (0x7f-'9')*ones)
	other := (f + ones) | ^(y ^ '$'*ones + 0x7f*ones)
	word := letter | digit | other | x
	return bits.TrailingZeros64(^word&highs) >> 3
}

// plainNumber is the end of the digits from i, if there are fewer than eight
// and a space, a comma or a parenthesis follows, else 0.
func plainNumber(b []byte, i int) int {
	if len(b)-i < 8 {
		return 0
	}
	x := binary.LittleEndian.Uint64(b[i:])
	y := x &^ uint64(highs)
	digit := (y + (0x80-'0')*ones) &^ (y + (0x7f-'9')*ones) &^ x
	n := bits.TrailingZeros64(^digit&highs) >> 3
	if n >= 8 || classes[b[i+n]] >= cDot {
		return 0
	}
	return i + n
}

// plainBytes counts like wordBytes, but may stop early, at $ or a byte from
// 0x80. With bit 5 set _ is 0x7f, as is the control byte DEL, which counts as
// another way to write it.
func plainBytes(x uint64) int {
	y := x &^ uint64(highs)
	f := y | 0x20*ones
	letter := (f+(0x80-'a')*ones)&^(f+(0x7f-'z')*ones) | (f + ones)
	digit := (y + (0x80-'0')*ones) &^ (y + (0x7f-'9')*ones)
	return bits.TrailingZeros64(^(letter|digit)&highs) >> 3
}

// wordEnd is the end of the word bytes from i.
func wordEnd(b []byte, i int) int {
	for {
		n := wordBytes(load(b, i))
		i += n
		if n < 8 {
			return i
		}
	}
}

// zeroByte has bit 7 set in the lowest zero byte of x, and nothing below it.
func zeroByte(x uint64) uint64 {
	return (x - ones) &^ x & highs
}

// until is the first position from i that holds a or b, or the end.
func until(s []byte, i int, a, b byte) int {
	wa, wb := uint64(a)*ones, uint64(b)*ones
	for ; len(s)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(s[i:])
		if m := zeroByte(x^wa) | zeroByte(x^wb); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(s); i++ {
		if s[i] == a || s[i] == b {
			return i
		}
	}
	return i
}
