package journal

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
)

// Record is one operation that was begun and not closed.
type Record struct {
	// ID is unique among open records.
	ID string
	// Data is what the caller stored.
	Data []byte
}

// The operations of a line.
const (
	opOpen  = '+'
	opClose = '-'
)

// entry is one line of the file.
type entry struct {
	op   byte
	id   string
	data []byte
}

// headerLen is the length of "LLLLLLLL CCCCCCCC ".
const headerLen = 18

// appendLine appends e in the form of the file, line break included.
func appendLine(b []byte, e entry) []byte {
	body := []byte{e.op, ' '}
	body = strconv.AppendQuoteToASCII(body, e.id)
	if e.op == opOpen {
		body = append(body, ' ')
		body = strconv.AppendQuoteToASCII(body, string(e.data))
	}
	b = fmt.Appendf(b, "%08x %08x ", len(body), checksum(body))
	b = append(b, body...)
	return append(b, '\n')
}

func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// parse reads all lines of data. What cannot be read is skipped up to the next
// line break and counted; everything else is returned in order.
func parse(data []byte) (entries []entry, unreadable int) {
	for len(data) > 0 {
		e, n, ok := parseLine(data)
		if !ok {
			unreadable++
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				break
			}
			data = data[i+1:]
			continue
		}
		entries = append(entries, e)
		if n == len(data) || data[n] != '\n' {
			// The record is whole and only its line break is missing
			// or altered; the next record is found by the length.
			unreadable++
		}
		data = data[min(n+1, len(data)):]
	}
	return entries, unreadable
}

// parseLine reads the line at the start of data and returns its length without
// the line break, which it does not look at.
func parseLine(data []byte) (e entry, n int, ok bool) {
	if len(data) < headerLen {
		return entry{}, 0, false
	}
	size, err := strconv.ParseUint(string(data[:8]), 16, 31)
	if err != nil {
		return entry{}, 0, false
	}
	n = headerLen + int(size)
	if n > len(data) {
		return entry{}, 0, false
	}
	sum, err := strconv.ParseUint(string(data[9:17]), 16, 32)
	if err != nil || uint32(sum) != checksum(data[headerLen:n]) {
		return entry{}, 0, false
	}
	e, ok = parseBody(string(data[headerLen:n]))
	if !ok {
		return entry{}, 0, false
	}
	// There is one way to write an entry. Anything else was not written here.
	line := appendLine(nil, e)
	return e, n, bytes.Equal(line[:len(line)-1], data[:n])
}

func parseBody(body string) (entry, bool) {
	if len(body) < 2 {
		return entry{}, false
	}
	e := entry{op: body[0]}
	id, rest, ok := unquote(body[2:])
	if !ok || id == "" {
		return entry{}, false
	}
	e.id = id
	switch e.op {
	case opClose:
		return e, rest == ""
	case opOpen:
		if rest == "" {
			return entry{}, false
		}
		data, rest, ok := unquote(rest[1:])
		e.data = []byte(data)
		return e, ok && rest == ""
	}
	return entry{}, false
}

// unquote reads the quoted string at the start of s.
func unquote(s string) (text, rest string, ok bool) {
	quoted, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", false
	}
	text, err = strconv.Unquote(quoted)
	return text, s[len(quoted):], err == nil
}

// replay returns the records that entries leave open, in the order in which
// they were opened. A replaced record keeps its place.
func replay(entries []entry) []Record {
	var open []Record
	for _, e := range entries {
		if e.op == opOpen {
			open = put(open, Record{ID: e.id, Data: e.data})
		} else {
			open = remove(open, e.id)
		}
	}
	return open
}
