package main

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

type cpioEntry struct {
	name string
	mode uint64
	data string
}

// readCpio reads an archive by the field widths of the kernel's documentation.
func readCpio(t *testing.T, b []byte) []cpioEntry {
	t.Helper()
	var entries []cpioEntry
	align := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; ; {
		require.Zero(t, at%4)
		require.GreaterOrEqual(t, len(b), at+110)
		header := b[at : at+110]
		require.Equal(t, "070701", string(header[:6]))
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(header[6+8*i:14+8*i]), 16, 32)
			require.NoError(t, err)
			return v
		}
		size, nameSize := int(field(6)), int(field(11))
		name := b[at+110 : at+110+nameSize]
		require.Zero(t, name[nameSize-1])
		data := align(at + 110 + nameSize)
		entries = append(entries, cpioEntry{string(name[:nameSize-1]), field(1), string(b[data : data+size])})
		at = align(data + size)
		if string(name[:nameSize-1]) == "TRAILER!!!" {
			require.Len(t, b, at)
			return entries
		}
	}
}

func TestCpioWriter(t *testing.T) {
	var b bytes.Buffer
	c := &cpioWriter{w: &b}
	want := []cpioEntry{{"dev", cpioDirectory, ""}}
	require.NoError(t, c.add("dev", cpioDirectory, nil))
	// Each length of name and data modulo four, for the padding.
	for i := range 5 {
		name, data := "name"[:1+i%4], "data!"[:i]
		want = append(want, cpioEntry{name, cpioProgram, data})
		require.NoError(t, c.add(name, cpioProgram, []byte(data)))
	}
	require.NoError(t, c.close())
	require.Equal(t, append(want, cpioEntry{"TRAILER!!!", 0, ""}), readCpio(t, b.Bytes()))
}
