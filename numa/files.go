package numa

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func readCPUSet(path string) (CPUSet, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return CPUSet{}, err
	}
	set, err := ParseCPUSet(string(b))
	if err != nil {
		return CPUSet{}, fmt.Errorf("%s: %w", path, err)
	}
	return set, nil
}

// readMeminfo fills the memory sizes of n.
func readMeminfo(path string, n *Node) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := parseMeminfo(f, n); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// parseMeminfo understands both /proc/meminfo ("MemTotal: 4 kB") and a node's
// meminfo ("Node 0 MemTotal: 4 kB").
func parseMeminfo(r io.Reader, n *Node) error {
	var hasTotal bool
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		if f := strings.Fields(key); len(f) == 3 && f[0] == "Node" {
			key = f[2]
		}
		switch key {
		case "MemTotal", "MemFree", "Active(file)", "Inactive(file)":
		default:
			continue
		}
		size, err := parseKiB(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		switch key {
		case "MemTotal":
			n.MemTotalBytes, hasTotal = size, true
		case "MemFree":
			n.MemFreeBytes = size
		default:
			n.MemReclaimableBytes += size
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if !hasTotal {
		return errors.New("no MemTotal line")
	}
	return nil
}

// parseKiB reads "4 kB", in which the kernel means 1024 bytes, as bytes.
func parseKiB(s string) (int64, error) {
	number, unit, _ := strings.Cut(strings.TrimSpace(s), " ")
	kib, err := strconv.ParseInt(number, 10, 64)
	// Two file lists are added up: leave room for both.
	if err != nil || kib < 0 || kib > math.MaxInt64>>12 || unit != "kB" {
		return 0, fmt.Errorf("%q is not a size in kB", s)
	}
	return kib << 10, nil
}

// readHugePages returns the pools below dir by page size in bytes; nil when
// the kernel has none.
func readHugePages(dir string) (map[int64]HugePages, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pools map[int64]HugePages
	for _, e := range entries {
		size, ok := strings.CutPrefix(e.Name(), "hugepages-")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(size, "kB"), 10, 32)
		if err != nil || kib <= 0 {
			return nil, fmt.Errorf("%q is not a huge page size", e.Name())
		}
		var p HugePages
		if p.Total, err = readInt(filepath.Join(dir, e.Name(), "nr_hugepages")); err != nil {
			return nil, err
		}
		if p.Free, err = readInt(filepath.Join(dir, e.Name(), "free_hugepages")); err != nil {
			return nil, err
		}
		if pools == nil {
			pools = make(map[int64]HugePages)
		}
		pools[kib<<10] = p
	}
	return pools, nil
}

func readInt(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not a number", path, b)
	}
	return n, nil
}

func readDistances(path string) ([]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var distances []int
	for _, f := range strings.Fields(string(b)) {
		d, err := strconv.Atoi(f)
		if err != nil || d <= 0 {
			return nil, fmt.Errorf("%s: %q is not a distance", path, f)
		}
		distances = append(distances, d)
	}
	return distances, nil
}
