package change

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// String returns the change on one line, for a dry run and the audit log. The
// old value of a file is empty before Prepare has read it.
func (c Change) String() string {
	if err := c.check(); err != nil {
		return "invalid change: " + err.Error()
	}
	switch c.Class {
	case File:
		return fmt.Sprintf("write %s: %q -> %q", c.File.Path, c.File.Old, c.File.New)
	case Freeze:
		return fmt.Sprintf("freeze %s: %q -> %q", c.File.Path, c.File.Old, c.File.New)
	case Net:
		return c.Net.describe()
	default:
		return c.IO.describe()
	}
}

func (r *NetRule) describe() string {
	var effects []string
	if r.Delay != 0 || r.Jitter != 0 {
		e := "delay " + r.Delay.String()
		if r.Jitter != 0 {
			e += " varied by " + r.Jitter.String()
		}
		effects = append(effects, e)
	}
	if r.LossPPM != 0 {
		effects = append(effects, "lose "+percent(r.LossPPM))
	}
	if len(effects) == 0 {
		effects = []string{"no effect"}
	}
	// The deadline is not a time of day; in a log it tells one rule from
	// the next, and it is what the kernel compares.
	return fmt.Sprintf("disturb packets through %s: %s, until %v after boot", r.link(), strings.Join(effects, ", "), r.Deadline)
}

func (r *NetRule) link() string {
	if r.Name == "" {
		return fmt.Sprintf("link %d", r.Link)
	}
	return fmt.Sprintf("link %d (%s)", r.Link, strconv.QuoteToASCII(r.Name))
}

func (r *IORule) describe() string {
	var ops []string
	if r.Read {
		ops = append(ops, "reads")
	}
	if r.Write {
		ops = append(ops, "writes")
	}
	if len(ops) == 0 {
		ops = []string{"no operations"}
	}
	name := unix.ErrnoName(syscall.Errno(r.Errno))
	if name == "" {
		name = fmt.Sprintf("errno %d", r.Errno)
	}
	return fmt.Sprintf("fail %s of %s by %s on device %d:%d with %s, until %v after boot",
		percent(r.PPM), strings.Join(ops, " and "), r.cgroup(), r.Major, r.Minor, name, r.Deadline)
}

func (r *IORule) cgroup() string { return fmt.Sprintf("cgroup %d", r.CgroupID) }

// percent writes parts per million as a percentage, exactly.
func percent(ppm uint32) string {
	s := fmt.Sprintf("%d.%04d", ppm/10_000, ppm%10_000)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") + "%"
}

// target names what the change alters: two open operations must not have one
// in common.
func (c Change) target() string {
	switch c.Class {
	case Net:
		return fmt.Sprintf("link %d", c.Net.Link)
	case IO:
		return fmt.Sprintf("I/O of %s on device %d:%d", c.IO.cgroup(), c.IO.Major, c.IO.Minor)
	default:
		return c.File.Path
	}
}

// check returns what is wrong with the form of the change.
func (c Change) check() error {
	set := map[Class]bool{File: c.File != nil, Net: c.Net != nil, IO: c.IO != nil}
	member := c.Class
	if member == Freeze {
		member = File
	}
	if _, known := set[member]; !known {
		return fmt.Errorf("unknown class %q", c.Class)
	}
	for class, is := range set {
		if is != (class == member) {
			return fmt.Errorf("class %q with the data of another class, or with none", c.Class)
		}
	}
	if member == File && !strings.HasPrefix(c.File.Path, "/") {
		return fmt.Errorf("path %q is not absolute", c.File.Path)
	}
	return nil
}
