package pods

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/osthread"
)

// peerLink returns the real Options.PeerLink. It needs CAP_SYS_ADMIN over both
// network namespaces; it opens no file of the process other than its namespace.
func peerLink(procRoot string, hostPID int) func(pid int) (int, error) {
	return func(pid int) (index int, err error) {
		host, err := os.Open(procFS{procRoot}.path(hostPID, "ns/net"))
		if err != nil {
			return 0, fmt.Errorf("open the host's network namespace: %w", err)
		}
		defer host.Close()
		inner, err := os.Open(procFS{procRoot}.path(pid, "ns/net"))
		if err != nil {
			return 0, fmt.Errorf("open network namespace of process %d: %w", pid, err)
		}
		defer inner.Close()
		osthread.Discard(func() { index, err = findPeer(host, inner) })
		return index, err
	}
}

// findPeer leaves its thread in another network namespace.
func findPeer(host, inner *os.File) (int, error) {
	if err := unix.Setns(int(inner.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("enter network namespace: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list links of network namespace: %w", err)
	}
	if err := unix.Setns(int(host.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, fmt.Errorf("enter the host's network namespace: %w", err)
	}
	innerID, err := netlink.GetNetNsIdByFd(int(inner.Fd()))
	if err != nil {
		return 0, fmt.Errorf("get id of network namespace: %w", err)
	}
	var found []int
	for _, link := range links {
		if _, ok := link.(*netlink.Veth); !ok {
			continue
		}
		if isPeer(link.Attrs(), innerID) {
			found = append(found, link.Attrs().ParentIndex)
		}
	}
	if len(found) != 1 {
		return 0, nil
	}
	return found[0], nil
}

// isPeer reports whether the thread's network namespace has a veth that is the
// other end of one in the namespace known here as innerID. Both ends must name
// each other: an index alone may by chance be that of another pod's link.
func isPeer(attrs *netlink.LinkAttrs, innerID int) bool {
	outer, err := netlink.LinkByIndex(attrs.ParentIndex)
	if err != nil {
		return false // its peer is in a third namespace, or both are gone
	}
	_, isVeth := outer.(*netlink.Veth)
	return isVeth && innerID >= 0 && outer.Attrs().NetNsID == innerID &&
		outer.Attrs().ParentIndex == attrs.Index
}
