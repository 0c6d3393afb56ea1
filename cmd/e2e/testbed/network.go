package testbed

import (
	"fmt"
	"net"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"github.com/vishvananda/netlink"
)

// tapName is the interface the guest is joined to. It can be the same in every
// run: each has a network namespace of its own.
const tapName = "tap0"

// serviceIP is the first address of the service network, which the API server
// takes for itself. It is given to the bridge, so that pods reach the API server
// by it without anybody who would translate service addresses.
const serviceIP = "10.96.0.1"

// makeNetwork builds the network in the namespace this process is in: a bridge
// with the host's address, the guest's tap interface on it, and the way to pods.
func makeNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	for _, a := range []string{node.Gateway + "/24", serviceIP + "/32"} {
		address, err := netlink.ParseAddr(a)
		if err != nil {
			return fmt.Errorf("parse address %s: %w", a, err)
		}
		if err := netlink.AddrAdd(bridge, address); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: tapName}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("make tap interface: %w", err)
	}
	if err := netlink.LinkSetMaster(tap, bridge); err != nil {
		return fmt.Errorf("join tap interface to bridge: %w", err)
	}
	for _, l := range []netlink.Link{bridge, tap} {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring %s up: %w", l.Attrs().Name, err)
		}
	}
	_, pods, err := net.ParseCIDR(node.PodCIDR)
	if err != nil {
		return fmt.Errorf("parse pod network: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: pods, Gw: net.ParseIP(node.IP), LinkIndex: bridge.Index}); err != nil {
		return fmt.Errorf("add route to pods: %w", err)
	}
	return nil
}
