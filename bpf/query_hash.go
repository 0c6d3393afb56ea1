package bpf

import "encoding/binary"

// textHash is text_hash of query_digest.h: the same operations on the same words,
// of which that file says why. The agent hashes what it is given once more: a text
// that was overwritten while it was read has another hash than it came with. plain
// is the legacy program's.
func textHash(text []byte, length uint32, plain bool) uint64 {
	words := make([]byte, (len(text)+7)/8*8)
	copy(words, text)
	word := func(i int) uint64 {
		if 8*i >= len(words) {
			return 0
		}
		return binary.LittleEndian.Uint64(words[8*i:])
	}
	hash := mix(0xcbf29ce484222325, uint64(length))
	before, odd := uint64(0x80), uint64(0)
	for i := range len(words) / 8 {
		if plain {
			hash = mix(hash, word(i))
			continue
		}
		w, next := word(i), word(i+1)
		number, border := digits(w), borders(w)
		nextNumber, nextBorder := digits(next), borders(next)
		var quoted uint64
		quoted, odd = within(w, odd)
		up := spreadUp(number&(border<<8|before), number)
		last := nextBorder | spreadDown(nextNumber&(nextBorder>>8), nextNumber)
		down := spreadDown(number&(border>>8|last<<56), number)
		before = (border | up) >> 63 << 7
		last = (up & down &^ quoted) >> 7
		hash = mix(hash, w&^(last*0xff)|last*'0')
	}
	return max(1, hash)
}

const (
	highBits = 0x8080808080808080
	lowBits  = 0x7f7f7f7f7f7f7f7f
	eachByte = 0x0101010101010101
)

func mix(hash, word uint64) uint64 {
	hash = (hash ^ word) * 0x9e3779b97f4a7c15
	return hash ^ hash>>32
}

func bytesEqual(x uint64, b byte) uint64 {
	x ^= eachByte * uint64(b)
	return ^(((x & lowBits) + lowBits) | x | lowBits)
}

func bytesAbove(x uint64, b byte) uint64 {
	return (((x & lowBits) + eachByte*uint64(0x7f-b)) | x) & highBits
}

func digits(word uint64) uint64 { return bytesAbove(word, '0'-1) &^ bytesAbove(word, '9') }

func borders(word uint64) uint64 {
	return ^bytesAbove(word, ' ')&highBits |
		bytesAbove(word, '$')&^bytesAbove(word, '/')&^bytesEqual(word, '.') |
		bytesAbove(word, ':')&^bytesAbove(word, '>')
}

func spreadUp(marks, path uint64) uint64 {
	marks |= path & (marks << 8)
	path &= path << 8
	marks |= path & (marks << 16)
	path &= path << 16
	return marks | path&(marks<<32)
}

func spreadDown(marks, path uint64) uint64 {
	marks |= path & (marks >> 8)
	path &= path >> 8
	marks |= path & (marks >> 16)
	path &= path >> 16
	return marks | path&(marks>>32)
}

func within(word, odd uint64) (marks, nowOdd uint64) {
	marks = bytesEqual(word, '"') | bytesEqual(word, '`')
	marks ^= marks << 8
	marks ^= marks << 16
	marks ^= marks << 32
	marks ^= odd
	if marks>>63 != 0 {
		return marks, highBits
	}
	return marks, 0
}
