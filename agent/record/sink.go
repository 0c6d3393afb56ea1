package record

import (
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
// rotated by size; nil for "". The file is readable by root alone. The caller
// closes it.
func Open(name string, stdout io.Writer) (io.WriteCloser, error) {
	switch {
	case name == "":
		return nil, nil
	case name == "stdout":
		return unclosed{stdout}, nil
	case !filepath.IsAbs(name):
		return nil, fmt.Errorf("records %q is neither stdout nor an absolute path", name)
	}
	// The library makes new files with the mode of the one before.
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open records: %w", err)
	}
	return &lumberjack.Logger{Filename: name, MaxSize: fileMegabytes, MaxBackups: oldFiles}, nil
}

// unclosed leaves standard output open.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
