package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/mooring-dev/mooring/agent/change"
)

// ErrNoLink is returned for an interface that does not exist, or whose index
// another one has by now.
var ErrNoLink = errors.New("no such interface")

// LinkDisciplines lists the queueing disciplines and filters of one interface
// in the calling thread's network namespace, a line each and sorted. Counters
// and the ids of programs are left out, so that two lists are equal when nobody
// put anything there or took it away in between. It alters nothing.
func LinkDisciplines(link int, name string) ([]string, error) {
	tc, err := openTrafficControl()
	if err != nil {
		return nil, err
	}
	defer tc.close()
	l, err := tc.handle.LinkByIndex(link)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("find interface %d (%q): %w", link, name, ErrNoLink)
	}
	if err != nil {
		return nil, fmt.Errorf("find interface %d (%q): %w", link, name, err)
	}
	if got := l.Attrs().Name; got != name {
		return nil, fmt.Errorf("interface %d is %q, not %q: %w", link, got, name, ErrNoLink)
	}
	all, err := tc.qdiscs(link)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, q := range all {
		at := q.Attrs()
		out = append(out, fmt.Sprintf("qdisc %s %s parent %s", q.Type(), netlink.HandleStr(at.Handle), netlink.HandleStr(at.Parent)))
		for _, parent := range filterParents(q) {
			filters, err := tc.handle.FilterList(l, parent)
			if err != nil {
				return nil, fmt.Errorf("list filters of %q: %w", name, err)
			}
			for _, f := range filters {
				out = append(out, describeFilter(f, parent))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// filterParents are the places of a qdisc at which filters hang.
func filterParents(q netlink.Qdisc) []uint32 {
	switch {
	case q.Type() == "clsact":
		return []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}
	case q.Attrs().Handle == 0:
		// One that the kernel put there itself, such as noqueue: it has no
		// handle to hang anything on.
		return nil
	}
	return []uint32{q.Attrs().Handle}
}

func describeFilter(f netlink.Filter, parent uint32) string {
	at := f.Attrs()
	line := fmt.Sprintf("filter %s parent %s pref %d protocol %#x handle %#x", f.Type(), netlink.HandleStr(parent), at.Priority, at.Protocol, at.Handle)
	if b, ok := f.(*netlink.BpfFilter); ok {
		line += fmt.Sprintf(" %q", b.Name)
	}
	return line
}

// Rules lists the rules that name a cgroup as they stand in the kernel, in no
// order. It alters nothing.
func (f *IOFaults) Rules(cgroup uint64) ([]change.IORule, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []change.IORule
	var key iofaultIoKey
	var val iofaultIoRule
	entries := f.maps.IoRules.Iterate()
	for entries.Next(&key, &val) {
		if key.Cgroup == cgroup {
			out = append(out, decodeIORule(key, val))
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("list file faults: %w", err)
	}
	return out, nil
}
