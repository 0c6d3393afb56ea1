package numa

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxCPU is the highest CPU number ParseCPUSet accepts. The kernel's largest
// NR_CPUS is 8192; the bound keeps a damaged file from asking for memory
// without end.
const maxCPU = 1<<16 - 1

// CPUSet is an immutable set of CPU numbers (or of NUMA node numbers, which
// the kernel writes the same way). The zero value is the empty set.
type CPUSet struct {
	cpus []int // ascending, no duplicates; nil when empty
}

// NewCPUSet returns the set of the given CPU numbers, in any order. Negative
// numbers are left out: no CPU has one.
func NewCPUSet(cpus ...int) CPUSet {
	sorted := make([]int, 0, len(cpus))
	for _, c := range cpus {
		if c >= 0 {
			sorted = append(sorted, c)
		}
	}
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	if len(sorted) == 0 {
		return CPUSet{}
	}
	return CPUSet{cpus: sorted}
}

// ParseCPUSet reads the kernel's list format, such as "0-3,8". White space at
// either end is ignored and an empty list is the empty set. Ranges that run
// backwards and numbers above 65535 are errors.
func ParseCPUSet(list string) (CPUSet, error) {
	list = strings.TrimSpace(list)
	if list == "" {
		return CPUSet{}, nil
	}
	var cpus []int
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(item, "-")
		low, err := parseCPU(first)
		if err != nil {
			return CPUSet{}, fmt.Errorf("parse CPU list %q: %w", list, err)
		}
		high := low
		if isRange {
			if high, err = parseCPU(last); err != nil {
				return CPUSet{}, fmt.Errorf("parse CPU list %q: %w", list, err)
			}
		}
		if high < low {
			return CPUSet{}, fmt.Errorf("parse CPU list %q: range %q runs backwards", list, item)
		}
		// A list of overlapping ranges is legal but must not grow beyond what
		// a set can hold.
		if len(cpus)+high-low > 2*maxCPU {
			cpus = NewCPUSet(cpus...).cpus
		}
		for c := low; c <= high; c++ {
			cpus = append(cpus, c)
		}
	}
	return NewCPUSet(cpus...), nil
}

func parseCPU(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a CPU number", s)
	}
	if n > maxCPU {
		return 0, fmt.Errorf("CPU number %d is above %d", n, maxCPU)
	}
	return int(n), nil
}

// String returns the set in the kernel's list format; the empty set is "".
func (s CPUSet) String() string {
	var b strings.Builder
	for i := 0; i < len(s.cpus); {
		j := i
		for j+1 < len(s.cpus) && s.cpus[j+1] == s.cpus[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s.cpus[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(s.cpus[j]))
		}
		i = j + 1
	}
	return b.String()
}

// Len returns the number of CPUs in the set.
func (s CPUSet) Len() int { return len(s.cpus) }

// List returns the CPU numbers in ascending order. The slice is the caller's.
func (s CPUSet) List() []int { return slices.Clone(s.cpus) }

// Contains says whether cpu is in the set.
func (s CPUSet) Contains(cpu int) bool {
	_, found := slices.BinarySearch(s.cpus, cpu)
	return found
}

// Union returns the CPUs that are in s or in o.
func (s CPUSet) Union(o CPUSet) CPUSet {
	return NewCPUSet(slices.Concat(s.cpus, o.cpus)...)
}

// Intersect returns the CPUs that are in s and in o.
func (s CPUSet) Intersect(o CPUSet) CPUSet {
	return s.filter(o.Contains)
}

// Minus returns the CPUs that are in s and not in o.
func (s CPUSet) Minus(o CPUSet) CPUSet {
	return s.filter(func(cpu int) bool { return !o.Contains(cpu) })
}

func (s CPUSet) filter(keep func(int) bool) CPUSet {
	var cpus []int
	for _, c := range s.cpus {
		if keep(c) {
			cpus = append(cpus, c)
		}
	}
	return CPUSet{cpus: cpus}
}

// Equal says whether both sets hold the same CPUs.
func (s CPUSet) Equal(o CPUSet) bool { return slices.Equal(s.cpus, o.cpus) }
