package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// unlimited is the smallest value that means "no limit" in a version 1 memory
// file: the kernel writes the largest multiple of the page size below 2^63.
const unlimited = math.MaxInt64 - 1<<20

func isNoDevice(err error) bool { return errors.Is(err, syscall.ENODEV) }

// readValue returns the first line of a control file without its newline.
func readValue(name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line, nil
}

func readWords(name string) ([]string, error) {
	v, err := readValue(name)
	return strings.Fields(v), err
}

// readBytes reads a memory size; 0 stands for "max" and its version 1 forms.
func readBytes(name string) (int64, error) {
	v, err := readValue(name)
	if err != nil {
		return 0, err
	}
	n, err := parseBytes(v)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if n == math.MaxInt64 {
		return 0, nil
	}
	return n, nil
}

// parseBytes reads a memory size as control files hold it; math.MaxInt64 is
// no limit.
func parseBytes(s string) (int64, error) {
	if s == "max" || s == "-1" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size in bytes", s)
	}
	if n >= unlimited {
		return math.MaxInt64, nil
	}
	return int64(n), nil
}

// maxQuota is more microseconds than the kernel takes (max_cfs_runtime in
// kernel/sched/core.c) and few enough to multiply by 1000.
const maxQuota = 1 << 50

// cpuLimit is a CFS bandwidth limit in microseconds; quota -1 is none.
type cpuLimit struct {
	quota, period int64
}

// parseCPUMax reads "max 100000", "200000 100000" or a quota alone, which
// leaves the period 0.
func parseCPUMax(s string) (cpuLimit, error) {
	bad := fmt.Errorf("%q is not a CPU limit", s)
	f := strings.Fields(s)
	if len(f) < 1 || len(f) > 2 {
		return cpuLimit{}, bad
	}
	l := cpuLimit{quota: -1}
	var err error
	if f[0] != "max" {
		if l.quota, err = strconv.ParseInt(f[0], 10, 64); err != nil || l.quota <= 0 || l.quota > maxQuota {
			return cpuLimit{}, bad
		}
	}
	if len(f) == 2 {
		if l.period, err = strconv.ParseInt(f[1], 10, 64); err != nil || l.period <= 0 || l.period > maxQuota {
			return cpuLimit{}, bad
		}
	}
	return l, nil
}

// millicores returns the limit as millicores; 0 is none.
func (l cpuLimit) millicores() int64 {
	if l.quota < 0 || l.period <= 0 {
		return 0
	}
	return l.quota * 1000 / l.period
}

// readCPULimit reads the limit of a directory. Where the file does not exist
// (the root of version 2, or a controller that is not enabled) there is none.
func (f *FS) readCPULimit(dir string) (cpuLimit, error) {
	if f.version == 2 {
		v, err := readValue(filepath.Join(dir, "cpu.max"))
		if errors.Is(err, os.ErrNotExist) {
			return cpuLimit{quota: -1, period: defaultPeriod}, nil
		}
		if err != nil {
			return cpuLimit{}, err
		}
		l, err := parseCPUMax(v)
		if err != nil || l.period == 0 {
			return cpuLimit{}, fmt.Errorf("%s: %q is not a CPU limit and a period", filepath.Join(dir, "cpu.max"), v)
		}
		return l, nil
	}
	quota, err := readInt(filepath.Join(dir, "cpu.cfs_quota_us"))
	if err != nil {
		return cpuLimit{}, err
	}
	period, err := readInt(filepath.Join(dir, "cpu.cfs_period_us"))
	if err != nil {
		return cpuLimit{}, err
	}
	if quota > maxQuota || period <= 0 || period > maxQuota {
		return cpuLimit{}, fmt.Errorf("CPU limit in %s is out of range: quota %d, period %d", dir, quota, period)
	}
	return cpuLimit{quota: quota, period: period}, nil
}

// readMemoryLimit reads the limit of a directory in bytes; 0 is none.
func (f *FS) readMemoryLimit(dir string) (int64, error) {
	name := "memory.max"
	if f.version == 1 {
		name = "memory.limit_in_bytes"
	}
	n, err := readBytes(filepath.Join(dir, name))
	if f.version == 2 && errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return n, err
}

func readInt(name string) (int64, error) {
	v, err := readValue(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a number", name, v)
	}
	return n, nil
}

// readKeys reads a flat file of "key value" lines, such as memory.stat.
func readKeys(name string) (map[string]int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := parseKeys(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return keys, nil
}

func parseKeys(r io.Reader) (map[string]int64, error) {
	keys := make(map[string]int64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("line %q is not a key and a number", lines.Text())
		}
		keys[key] = int64(min(n, math.MaxInt64))
	}
	return keys, lines.Err()
}

// parseNodeStat adds up some lines of memory.numa_stat by node, times unit.
// A line reads "anon N0=1 N1=2" on version 2 and "total=3 N0=1 N1=2" on
// version 1. It returns nil when no line has one of the names.
func parseNodeStat(r io.Reader, unit int64, names ...string) (map[int]int64, error) {
	var nodes map[int]int64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) == 0 {
			continue
		}
		name, _, _ := strings.Cut(f[0], "=")
		if !slices.Contains(names, name) {
			continue
		}
		if nodes == nil {
			nodes = make(map[int]int64)
		}
		for _, item := range f[1:] {
			node, value, err := parseNodeItem(item)
			if err != nil {
				return nil, err
			}
			if value > (math.MaxInt64-nodes[node])/unit {
				return nil, fmt.Errorf("%q is too large", item)
			}
			nodes[node] += value * unit
		}
	}
	return nodes, lines.Err()
}

func parseNodeItem(item string) (node int, value int64, err error) {
	key, number, ok := strings.Cut(item, "=")
	id, isNode := strings.CutPrefix(key, "N")
	if !ok || !isNode {
		return 0, 0, fmt.Errorf("%q is not a node and a number", item)
	}
	n, err := strconv.ParseUint(id, 10, 16)
	if err != nil {
		return 0, 0, fmt.Errorf("%q is not a node and a number", item)
	}
	value, err = strconv.ParseInt(number, 10, 64)
	if err != nil || value < 0 {
		return 0, 0, fmt.Errorf("%q is not a node and a number", item)
	}
	return int(n), value, nil
}

func readNodeStat(name string, unit int64, names ...string) (map[int]int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	nodes, err := parseNodeStat(f, unit, names...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return nodes, nil
}
