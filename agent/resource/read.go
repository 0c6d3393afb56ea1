package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

// errBadLine is wrapped by every complaint about the contents of a file.
var errBadLine = errors.New("unexpected line")

// absent says that a file, or the controller that has it, is not there; or that
// it is there and off, as pressure files are with psi=0.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP)
}

// lines calls visit with the fields of each line; it stops at the first error.
func lines(data []byte, visit func(fields [][]byte) error) error {
	for len(data) > 0 {
		line := data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, data = data[:i], data[i+1:]
		} else {
			data = nil
		}
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if err := visit(fields); err != nil {
			return fmt.Errorf("%w %q: %w", errBadLine, line, err)
		}
	}
	return nil
}

// number reads a count; what is beyond an int64 is the largest one.
func number(b []byte) (int64, error) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a count", b)
	}
	return int64(min(n, math.MaxInt64)), nil
}

// parseFlat reads "key value" lines, such as those of memory.stat and vmstat.
func parseFlat(data []byte, visit func(key []byte, value int64)) error {
	return lines(data, func(f [][]byte) error {
		if len(f) != 2 {
			return errors.New("not a key and a number")
		}
		n, err := number(f[1])
		if err != nil {
			return err
		}
		visit(f[0], n)
		return nil
	})
}

// readFlat does it for a file.
func readFlat(name string, visit func(key []byte, value int64)) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := parseFlat(data, visit); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// readNumber reads a file of one number; "max" is 0.
func readNumber(name string) (int64, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	data = bytes.TrimSpace(data)
	if string(data) == "max" {
		return 0, nil
	}
	n, err := number(data)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

// parseStall reads a pressure file:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=12345
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=123
//
// total is in microseconds (kernel/sched/psi.c). The node's cpu file has no
// line "full" before Linux 5.13.
func parseStall(data []byte) (state.Stall, error) {
	var s state.Stall
	err := lines(data, func(f [][]byte) error {
		for _, item := range f[1:] {
			value, ok := bytes.CutPrefix(item, []byte("total="))
			if !ok {
				continue
			}
			n, err := number(value)
			if err != nil {
				return err
			}
			switch string(f[0]) {
			case "some":
				s.Some = microseconds(n)
			case "full":
				s.Full = microseconds(n)
			}
			return nil
		}
		return errors.New("no total")
	})
	return s, err
}

// readPressure reads the three files of a cgroup ("cpu.pressure") or of the node
// ("cpu"); nil where there are none.
func readPressure(prefix, suffix string) (*state.Pressure, error) {
	p := &state.Pressure{}
	for _, r := range []struct {
		name string
		into *state.Stall
	}{{"cpu", &p.CPU}, {"memory", &p.Memory}, {"io", &p.IO}} {
		name := prefix + r.name + suffix
		data, err := os.ReadFile(name)
		if absent(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if *r.into, err = parseStall(data); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return p, nil
}

func microseconds(n int64) time.Duration { return scale(n, time.Microsecond) }

// ticks turns USER_HZ, which is 100 on every architecture we build for, into time.
func ticks(n int64) time.Duration { return scale(n, 10*time.Millisecond) }

// scale multiplies without running over.
func scale(n int64, unit time.Duration) time.Duration {
	if n > math.MaxInt64/int64(unit) {
		return math.MaxInt64
	}
	return time.Duration(n) * unit
}
