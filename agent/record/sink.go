package record

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"
)

const (
	// fileMegabytes is the size at which a file is set aside, and oldFiles how
	// many of those stay.
	fileMegabytes = 100
	oldFiles      = 5
)

// Open returns the sink of that name: "stdout", or the path of a file that is
// rotated by size; nil for "". The file is readable by root alone, also where it
// was there before. The caller closes it.
func Open(name string, stdout io.Writer) (io.WriteCloser, error) {
	switch {
	case name == "":
		return nil, nil
	case name == "stdout":
		return unclosed{stdout}, nil
	case !filepath.IsAbs(name):
		return nil, fmt.Errorf("records %q is neither stdout nor an absolute path", name)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	if err := errors.Join(prepare(f), f.Close()); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	return &lumberjack.Logger{Filename: name, MaxSize: fileMegabytes, MaxBackups: oldFiles}, nil
}

// prepare makes a file that may have been there before one of ours.
func prepare(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		// To rotate it would be to rename it.
		return fmt.Errorf("%q is not a regular file", f.Name())
	}
	// The library makes new files with the mode of the one before.
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], info.Size()-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		// A line that an earlier agent did not end. A full disk must not keep this
		// one from its start.
		_, _ = f.WriteString("\n")
	}
	return nil
}

// unclosed leaves standard output open.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
