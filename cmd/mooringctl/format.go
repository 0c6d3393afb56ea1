package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// size writes bytes as Kubernetes does.
func size(b int64) string {
	switch {
	case b >= 10<<30:
		return fmt.Sprintf("%dGi", b>>30)
	case b >= 10<<20:
		return fmt.Sprintf("%dMi", b>>20)
	case b >= 10<<10:
		return fmt.Sprintf("%dKi", b>>10)
	}
	return fmt.Sprint(b)
}

// limit is size, with 0 for none.
func limit(b int64) string {
	if b == 0 {
		return "none"
	}
	return size(b)
}

// cpu writes millicores as Kubernetes does, with 0 for none.
func cpu(m int64) string {
	switch {
	case m == 0:
		return "none"
	case m%1000 == 0:
		return fmt.Sprint(m / 1000)
	}
	return fmt.Sprintf("%dm", m)
}

func numaNode(i *agentpb.Instance) string {
	if i.NumaNode == nil {
		return "any"
	}
	return fmt.Sprint(i.GetNumaNode())
}

func share(i *agentpb.Instance) string {
	if i.LocalShare == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*i.GetLocalShare())
}

// short drops digits nobody reads.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(100 * time.Nanosecond).String()
}

func params(p map[string]string) string {
	var s []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		s = append(s, k+"="+p[k])
	}
	return strings.Join(s, ",")
}
