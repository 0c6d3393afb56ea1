package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxListed is the highest CPU or node number a list may hold; the kernel's
// largest NR_CPUS is 8192.
const maxListed = 1<<16 - 1

// span is an inclusive range of CPU or node numbers.
type span struct{ first, last int }

// list is a set of CPUs or nodes as ranges: ascending, apart from one another.
type list []span

// parseList reads the kernel's list format, such as "0-3,8"; the empty string
// is the empty set.
func parseList(s string) (list, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	var l list
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 32)
		b, errB := strconv.ParseUint(last, 10, 32)
		if errA != nil || errB != nil || b < a || b > maxListed {
			return nil, fmt.Errorf("%q is not a list of CPUs or nodes", s)
		}
		l = append(l, span{int(a), int(b)})
	}
	return l.normal(), nil
}

// normal sorts the ranges and joins those that touch.
func (l list) normal() list {
	slices.SortFunc(l, func(a, b span) int { return a.first - b.first })
	out := l[:0]
	for _, s := range l {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// within says whether all of l is in o.
func (l list) within(o list) bool {
	for _, s := range l {
		if !slices.ContainsFunc(o, func(w span) bool { return w.first <= s.first && s.last <= w.last }) {
			return false
		}
	}
	return true
}

// String returns the kernel's list format.
func (l list) String() string {
	items := make([]string, len(l))
	for i, s := range l {
		items[i] = strconv.Itoa(s.first)
		if s.last > s.first {
			items[i] += "-" + strconv.Itoa(s.last)
		}
	}
	return strings.Join(items, ",")
}

// sameList says whether two texts are lists of the same CPUs or nodes.
func sameList(a, b string) bool {
	la, errA := parseList(a)
	lb, errB := parseList(b)
	return errA == nil && errB == nil && slices.Equal(la, lb)
}
