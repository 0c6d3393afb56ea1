package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/mooring-dev/mooring/agent/change"
)

// control is what Files knows of one control file.
type control struct {
	class change.Class
	// check refuses a value the file could never hold.
	check func(value string) error
	// same says whether the kernel, asked for want, took it when it shows got.
	same func(got, want string) bool
	// effective names the file that shows what a cpuset came to, on version 2.
	effective string
}

// controlOf is the allow-list: a file it does not know is never written.
func controlOf(file string) (control, bool) {
	switch file {
	case "cpu.max":
		return control{class: change.File, check: checkCPUMax, same: sameCPUMax}, true
	case "cpu.weight", "cpu.cfs_quota_us":
		return control{class: change.File, check: checkNumber, same: sameNumber}, true
	case "memory.max", "memory.high", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes":
		return control{class: change.File, check: checkBytes, same: sameBytes}, true
	case "cpuset.cpus", "cpuset.mems":
		return control{class: change.File, check: checkList, same: sameList, effective: file + ".effective"}, true
	case "cpuset.memory_migrate":
		return control{class: change.File, check: oneOf("0", "1"), same: sameText}, true
	case "cgroup.freeze":
		return control{class: change.Freeze, check: oneOf("0", "1"), same: sameText}, true
	case "freezer.state":
		return control{class: change.Freeze, check: oneOf("THAWED", "FROZEN"), same: sameText}, true
	}
	return control{}, false
}

func checkCPUMax(v string) error {
	_, err := parseCPUMax(v)
	return err
}

// sameCPUMax compares quotas, and periods where one was asked for.
func sameCPUMax(got, want string) bool {
	g, errG := parseCPUMax(got)
	w, errW := parseCPUMax(want)
	if errG != nil || errW != nil {
		return false
	}
	return g.quota == w.quota && (w.period == 0 || g.period == w.period)
}

func checkNumber(v string) error {
	if _, err := strconv.ParseInt(v, 10, 64); err != nil {
		return fmt.Errorf("%q is not a number", v)
	}
	return nil
}

// sameNumber compares numbers; every negative CFS quota means none.
func sameNumber(got, want string) bool {
	g, errG := strconv.ParseInt(got, 10, 64)
	w, errW := strconv.ParseInt(want, 10, 64)
	return errG == nil && errW == nil && (g == w || g < 0 && w < 0)
}

func checkBytes(v string) error {
	_, err := parseBytes(v)
	return err
}

// sameBytes compares memory sizes as the kernel keeps them: in whole pages,
// rounded down (page_counter_memparse in mm/page_counter.c).
func sameBytes(got, want string) bool {
	g, errG := parseBytes(got)
	w, errW := parseBytes(want)
	if errG != nil || errW != nil {
		return false
	}
	if w == math.MaxInt64 {
		return g == w
	}
	return g == w || g == w/int64(os.Getpagesize())*int64(os.Getpagesize())
}

func checkList(v string) error {
	_, err := parseList(v)
	return err
}

func sameText(got, want string) bool { return got == want }

func oneOf(values ...string) func(string) error {
	return func(v string) error {
		for _, ok := range values {
			if v == ok {
				return nil
			}
		}
		return fmt.Errorf("%q is not one of %s", v, strings.Join(values, ", "))
	}
}

// checkEffective compares a cpuset on version 2 with what the kernel made of
// it: a set the cgroup above does not allow is taken without complaint and
// replaced by that cgroup's. An empty set is "as above" and cannot fail.
func checkEffective(dir string, c control, want string) error {
	if c.effective == "" || want == "" {
		return nil
	}
	got, err := readValue(filepath.Join(dir, c.effective))
	if isMissing(err) {
		return nil // version 1 refuses such a set when it is written
	}
	if err != nil {
		return err
	}
	if !sameList(got, want) {
		return fmt.Errorf("%s is %q although %q was accepted: a cgroup above it overrides it", c.effective, got, want)
	}
	return nil
}

// explain adds to an error of the kernel what it means for this file.
func explain(file string, err error) error {
	var meaning string
	memory := strings.HasPrefix(file, "memory.")
	cpuset := strings.HasPrefix(file, "cpuset.")
	switch {
	case isNoDevice(err):
		return fmt.Errorf("%w: %w", ErrGone, err)
	case errors.Is(err, syscall.EROFS):
		meaning = "the cgroup file system is mounted read-only here; mount the host's writable into the agent"
	case errors.Is(err, syscall.EBUSY) && memory:
		meaning = "more is in use than the new limit and the kernel could not reclaim enough"
	case errors.Is(err, syscall.EBUSY) && cpuset:
		meaning = "a cgroup below it uses more than the new set, or an exclusive set is in the way"
	case errors.Is(err, syscall.EACCES) && cpuset:
		meaning = "the cgroup above it does not allow that set"
	case errors.Is(err, syscall.ENOSPC) && cpuset:
		meaning = "a cpuset with processes in it may not be made empty"
	case errors.Is(err, syscall.ERANGE) && cpuset:
		meaning = "a number is above what this kernel is built for"
	case errors.Is(err, syscall.EINVAL) && file == "memory.memsw.limit_in_bytes", errors.Is(err, syscall.EINVAL) && file == "memory.limit_in_bytes":
		meaning = "the memory limit must not be above the limit on memory and swap together"
	case errors.Is(err, syscall.EINVAL) && strings.HasPrefix(file, "cpu."):
		meaning = "the value is out of range, below cpu burst, or on cgroup version 1 above the parent's share or below a child's"
	case errors.Is(err, syscall.EINVAL) && file == "cpuset.mems":
		meaning = "a node does not exist or has no memory"
	case errors.Is(err, syscall.EINVAL):
		meaning = "the kernel does not take this value"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		meaning = "the agent must be root, and the cgroup file system writable"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, meaning)
}
