package main

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFrames(t *testing.T) {
	t.Run("come out as they went in, and long ones in parts", func(t *testing.T) {
		var b bytes.Buffer
		w := &frameWriter{w: &b}
		long := bytes.Repeat([]byte("x"), maxFrame+1)
		require.NoError(t, w.send(frameBeat, nil))
		require.NoError(t, w.send(frameStdout, long))
		require.NoError(t, w.send(frameExit, []byte("3")))
		r := bufio.NewReader(&b)
		for _, want := range []struct {
			kind frameKind
			data []byte
		}{{frameBeat, []byte{}}, {frameStdout, long[:maxFrame]}, {frameStdout, long[maxFrame:]}, {frameExit, []byte("3")}} {
			kind, data, err := readFrame(r)
			require.NoError(t, err)
			require.Equal(t, want.kind, kind)
			require.Equal(t, want.data, data)
		}
		_, _, err := readFrame(r)
		require.Equal(t, io.EOF, err)
	})
	t.Run("of garbage are refused before memory is taken", func(t *testing.T) {
		_, _, err := readFrame(bufio.NewReader(bytes.NewReader([]byte("o\xff\xff\xff\xff"))))
		require.ErrorContains(t, err, "longer than")
	})
	t.Run("cut short are told from the end", func(t *testing.T) {
		_, _, err := readFrame(bufio.NewReader(bytes.NewReader([]byte("o\x00\x00\x00\x04ab"))))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	})
}

func TestParseExit(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "3": 3, "255": 255} {
		code, err := parseExit([]byte(text))
		require.NoError(t, err)
		require.Equal(t, want, code)
	}
	for _, text := range []string{"", "-1", "256", "x", "3 "} {
		_, err := parseExit([]byte(text))
		require.Error(t, err, "%q", text)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("o\x00\x00\x00\x02hi"))
	f.Add([]byte("x\x00\x00\x00\x010b\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What was read, written again, is what was there.
		var again bytes.Buffer
		w := &frameWriter{w: &again}
		for r := bufio.NewReader(bytes.NewReader(b)); ; {
			kind, data, err := readFrame(r)
			if err != nil {
				break
			}
			require.NoError(t, w.send(kind, data))
		}
		require.True(t, bytes.HasPrefix(b, again.Bytes()))
	})
}
