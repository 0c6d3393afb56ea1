package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
)

// frameKind says what a frame from the guest carries.
type frameKind byte

const (
	frameBeat   frameKind = 'b' // nothing: the guest is alive
	frameStdout frameKind = 'o' // output of the program
	frameStderr frameKind = 'e'
	frameExit   frameKind = 'x' // the exit status in decimal: nothing follows but beats
	frameFailed frameKind = 'f' // why the guest could not run the program
)

// maxFrame bounds a frame's data, so that garbage on the port cannot make the
// host take gigabytes.
const maxFrame = 32 << 10

// frameWriter writes frames. It is safe for concurrent use.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// send writes one frame, cut into several if it is too long. It blocks while
// the host does not read.
func (f *frameWriter) send(kind frameKind, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		part := data[:min(len(data), maxFrame)]
		data = data[len(part):]
		b := binary.BigEndian.AppendUint32([]byte{byte(kind)}, uint32(len(part)))
		if _, err := f.w.Write(append(b, part...)); err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		if len(data) == 0 {
			return nil
		}
	}
}

// readFrame reads one frame. It returns io.EOF at the end between two frames.
func readFrame(r *bufio.Reader) (frameKind, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is longer than %d", n, maxFrame)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("read frame data: %w", err)
	}
	return frameKind(header[0]), data, nil
}

// parseExit reads the data of an exit frame.
func parseExit(data []byte) (int, error) {
	code, err := strconv.ParseUint(string(data), 10, 8)
	if err != nil {
		return 0, fmt.Errorf("parse exit status: %w", err)
	}
	return int(code), nil
}

// stream makes an io.Writer of one kind of frame.
type stream struct {
	frames *frameWriter
	kind   frameKind
}

func (s stream) Write(b []byte) (int, error) {
	if err := s.frames.send(s.kind, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// pipeTo returns the writing end of a pipe and a channel that is closed once
// the pipe has ended and all of it has been sent. The program gets a pipe and
// not the port itself, because a write to a port is cut at 32 KiB.
func (s stream) pipeTo() (*os.File, <-chan struct{}, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		// An error means that the host reads no more; then it is about to end
		// this machine, and there is nobody left to tell.
		_, _ = io.Copy(s, r)
	}()
	return w, done, nil
}
