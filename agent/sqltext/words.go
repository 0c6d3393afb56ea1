package sqltext

import "strings"

// keywords are the words after which a sign belongs to the number that
// follows, and before whose parenthesis people write a space.
var keywords = set(`all and any as between by case check default distinct do else elseif end except exists from group having
	if ilike in insert intersect interval into is join key leading like limit not null offset on or order over partition
	primary regexp replace return returning rlike select set similar some table then to trailing union unique until update
	using value values when where while with xor div mod`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// keyword says whether w is one of keywords, in any case.
func keyword(w []byte) bool {
	var b [16]byte
	if len(w) > len(b) {
		return false
	}
	return keywords[string(lower(b[:0], w))]
}

// lower appends w to b with ASCII letters in lower case.
func lower(b, w []byte) []byte {
	for _, c := range w {
		if c-'A' < 26 {
			c |= 0x20
		}
		b = append(b, c)
	}
	return b
}
