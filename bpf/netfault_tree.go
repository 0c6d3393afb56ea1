package bpf

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// The handles of our tree, "mo" in ASCII and the two after it, and the classes
// of the prio root for its two bands. The root's handle is how a tree is known
// as ours, so it must never change between releases.
const (
	rootHandle  uint32 = 0x6d6f << 16
	plainHandle uint32 = 0x6d70 << 16
	netemHandle uint32 = 0x6d71 << 16
	plainParent        = rootHandle | 1
	netemParent        = rootHandle | 2
	bands              = 2
)

const (
	gateName     = "mooring"
	gatePriority = 1
	gateHandle   = 1

	// plainLimit replaces the default, the interface's txqueuelen, which may
	// be so short that the plain band would drop.
	plainLimit = 10_000
	// netemLimit is the number of packets that may be under delay at a time:
	// 100 ms of a million packets a second.
	netemLimit = 100_000

	dumpTries = 10

	// drainLimit bounds how long a removal waits for delayed packets.
	drainLimit = 2 * time.Second
)

// netemBand is the disturbance in the kernel's units.
type netemBand struct {
	latency uint32 // packet scheduler ticks
	jitter  uint32 // packet scheduler ticks
	loss    uint32 // share of 2^32-1
}

// netemOptions checks the rule and converts it, with the ticks of the packet
// scheduler's clock in a microsecond.
func netemOptions(r change.NetRule, perMicrosecond float64) (netemBand, error) {
	switch {
	case r.Delay < 0 || r.Jitter < 0:
		return netemBand{}, errors.New("network fault: delay and jitter cannot be negative")
	case r.Jitter > r.Delay:
		return netemBand{}, fmt.Errorf("network fault: jitter %v is more than delay %v", r.Jitter, r.Delay)
	case r.LossPPM > 1_000_000:
		return netemBand{}, fmt.Errorf("network fault: loss of %d ppm is not in 0..1000000", r.LossPPM)
	case r.Delay == 0 && r.LossPPM == 0:
		return netemBand{}, errors.New("network fault: neither delay nor loss is asked for")
	}
	if perMicrosecond <= 0 {
		return netemBand{}, errors.New("network fault: /proc/net/psched does not tell the packet scheduler's clock")
	}
	ticks := func(d time.Duration) float64 {
		return math.Round(float64(d) / float64(time.Microsecond) * perMicrosecond)
	}
	if ticks(r.Delay) > math.MaxUint32 {
		return netemBand{}, fmt.Errorf("network fault: delay %v is too long for netem", r.Delay)
	}
	return netemBand{
		latency: uint32(ticks(r.Delay)),
		jitter:  uint32(ticks(r.Jitter)),
		loss:    uint32(uint64(r.LossPPM) * math.MaxUint32 / 1_000_000),
	}, nil
}

// trafficControl does the netlink part in one network namespace.
type trafficControl struct {
	handle *netlink.Handle
	// sockets is for requests that the netlink library cannot express.
	sockets map[int]*nl.SocketHandle
}

func openTrafficControl() (*trafficControl, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	sock, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &trafficControl{
		handle:  handle,
		sockets: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: sock}},
	}, nil
}

func (c *trafficControl) close() {
	c.handle.Close()
	for _, s := range c.sockets {
		s.Close()
	}
}

// check is NetFaults.Check; ours is true if our tree is there.
func (c *trafficControl) check(link int, name string) (ours bool, err error) {
	l, err := c.handle.LinkByIndex(link)
	if err != nil {
		return false, fmt.Errorf("find interface %d (%q): %w", link, name, err)
	}
	if got := l.Attrs().Name; got != name {
		return false, fmt.Errorf("interface %d is %q, not %q", link, got, name)
	}
	// noqueue is also the root of bridges and overlays, which carry the
	// packets of many instances.
	if kind := l.Type(); kind != "veth" && kind != "netkit" {
		return false, fmt.Errorf("interface %q is of type %q, only the host end of a veth or netkit pair belongs to one instance", name, kind)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		return false, fmt.Errorf("interface %q is down", name)
	}
	root, err := c.root(link)
	if err != nil {
		return false, err
	}
	switch {
	case isOurs(root):
		return true, nil
	case root == nil || root.Type() != "noqueue":
		return false, foreignRoot(name, root)
	}
	return false, nil
}

func foreignRoot(name string, root netlink.Qdisc) error {
	if root == nil {
		return fmt.Errorf("interface %q has no root qdisc, expected noqueue", name)
	}
	return fmt.Errorf("interface %q has root qdisc %s %s which is not ours, see tc qdisc show dev %s",
		name, root.Type(), netlink.HandleStr(root.Attrs().Handle), name)
}

// root returns the root qdisc, or nil if the kernel shows none.
func (c *trafficControl) root(link int) (netlink.Qdisc, error) {
	return c.qdisc(link, netlink.HANDLE_ROOT)
}

// qdisc returns the qdisc with the given parent, or nil.
func (c *trafficControl) qdisc(link int, parent uint32) (netlink.Qdisc, error) {
	all, err := c.qdiscs(link)
	if err != nil {
		return nil, err
	}
	for _, q := range all {
		if q.Attrs().Parent == parent {
			return q, nil
		}
	}
	return nil, nil
}

// qdiscs returns the qdiscs of one interface.
func (c *trafficControl) qdiscs(link int) ([]netlink.Qdisc, error) {
	on := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: link}}
	all, err := c.handle.QdiscList(on)
	// The kernel dumps the qdiscs of all interfaces; one that comes or goes
	// meanwhile spoils the dump.
	for try := 1; try < dumpTries && errors.Is(err, netlink.ErrDumpInterrupted); try++ {
		all, err = c.handle.QdiscList(on)
	}
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	return all, nil
}

// netem returns our netem qdisc.
func (c *trafficControl) netem(link int) (*netlink.Netem, error) {
	q, err := c.qdisc(link, netemParent)
	if err != nil {
		return nil, err
	}
	netem, ok := q.(*netlink.Netem)
	if !ok || netem.Handle != netemHandle {
		return nil, fmt.Errorf("interface %d: the netem qdisc %s is gone", link, netlink.HandleStr(netemHandle))
	}
	return netem, nil
}

// isOurs goes by the handle and shape of the root alone, so that a tree whose
// builder died half way is known too.
func isOurs(root netlink.Qdisc) bool {
	prio, ok := root.(*netlink.Prio)
	return ok && prio.Handle == rootHandle && prio.Bands == bands &&
		prio.PriorityMap == [netlink.PRIORITY_MAP_LEN]uint8{}
}

// build puts the whole tree on the interface. Until the last step all packets
// take the plain band, and after it too, as long as the gate is closed.
func (c *trafficControl) build(link int, band netemBand, gate *ebpf.Program) error {
	// An exclusive create is refused by the kernel if somebody has put a
	// root qdisc there since the check.
	if err := c.handle.QdiscAdd(prioRoot(link)); err != nil {
		return fmt.Errorf("add prio qdisc (kernel module sch_prio): %w", err)
	}
	if err := c.addPlain(link); err != nil {
		return fmt.Errorf("add pfifo qdisc: %w", err)
	}
	if err := c.handle.QdiscAdd(band.qdisc(link)); err != nil {
		return fmt.Errorf("add netem qdisc (kernel module sch_netem): %w", err)
	}
	if err := c.handle.FilterAdd(gateFilter(link, gate.FD())); err != nil {
		return fmt.Errorf("add bpf classifier (kernel module cls_bpf): %w", err)
	}
	return c.verify(link, band, gate)
}

// verify reads the tree back.
func (c *trafficControl) verify(link int, band netemBand, gate *ebpf.Program) error {
	root, err := c.root(link)
	if err != nil {
		return err
	}
	if !isOurs(root) {
		return fmt.Errorf("read back qdiscs of interface %d: our root is gone", link)
	}
	plain, err := c.qdisc(link, plainParent)
	if err != nil {
		return err
	}
	if plain == nil || plain.Type() != "pfifo" || plain.Attrs().Handle != plainHandle {
		return fmt.Errorf("read back qdiscs of interface %d: the plain band is not ours", link)
	}
	netem, err := c.netem(link)
	if err != nil {
		return err
	}
	if got := (netemBand{netem.Latency, netem.Jitter, netem.Loss}); got != band || netem.Limit != netemLimit {
		return fmt.Errorf("read back netem of interface %d: wrote %+v limit %d, found %+v limit %d", link, band, netemLimit, got, netem.Limit)
	}
	return c.verifyGate(link, gate)
}

func (c *trafficControl) verifyGate(link int, gate *ebpf.Program) error {
	info, err := gate.Info()
	if err != nil {
		return fmt.Errorf("read classifier info: %w", err)
	}
	id, _ := info.ID()
	filters, err := c.handle.FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: link}}, rootHandle)
	if err != nil {
		return fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Id == int(id) && b.ClassId == netemParent && !b.DirectAction {
			return nil
		}
	}
	return fmt.Errorf("read back filters of interface %d: classifier %d is not among %d", link, id, len(filters))
}

// clear is NetFaults.Clear without the gate of this process.
func (c *trafficControl) clear(link int, name string) error {
	l, err := c.handle.LinkByIndex(link)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %d (%q): %w", link, name, err)
	}
	root, err := c.root(link)
	if err != nil {
		return err
	}
	got := l.Attrs().Name
	switch {
	case got != name && !isOurs(root):
		// The index names another interface now: ours is gone.
		return nil
	case got != name:
		return fmt.Errorf("interface %d is %q, not %q, and carries a network fault; if it was renamed, run: tc qdisc del dev %s root", link, got, name, got)
	case root == nil || root.Type() == "noqueue":
		return nil
	case !isOurs(root):
		return foreignRoot(name, root)
	}
	return c.remove(link)
}

// remove takes our tree off, if it is there, and reads the result back.
func (c *trafficControl) remove(link int) error {
	root, err := c.root(link)
	if err != nil {
		return err
	}
	if !isOurs(root) {
		return nil
	}
	// Without a classifier every packet takes the plain band: this closes
	// the gate also in a process that does not hold its map. A tree half
	// built has none, and what counts is the read-back below.
	_ = c.handle.FilterDel(gateFilter(link, -1))
	c.drain(link)
	// The handle makes the kernel refuse if the root is no longer ours.
	if err := c.handle.QdiscDel(prioRoot(link)); err != nil {
		return fmt.Errorf("delete prio qdisc: %w", err)
	}
	root, err = c.root(link)
	if err != nil {
		return err
	}
	if root != nil && root.Type() != "noqueue" {
		return fmt.Errorf("read back qdiscs of interface %d: root is %s, expected noqueue", link, root.Type())
	}
	return nil
}

// drain waits until netem holds no more delayed packets: deleting it with them
// inside would turn a delay into a loss.
func (c *trafficControl) drain(link int) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); time.Since(begun) < drainLimit; <-tick.C {
		netem, err := c.netem(link)
		if err != nil || netem.Statistics == nil || netem.Statistics.Queue == nil || netem.Statistics.Queue.Qlen == 0 {
			return
		}
	}
}

func prioRoot(link int) *netlink.Prio {
	return &netlink.Prio{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: rootHandle, Parent: netlink.HANDLE_ROOT},
		Bands:      bands,
		// A priority map of zeroes: whatever no classifier matches, whatever
		// its type of service, takes band 0.
	}
}

func (b netemBand) qdisc(link int) *netlink.Netem {
	return &netlink.Netem{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: netemHandle, Parent: netemParent},
		Latency:    b.latency, Jitter: b.jitter, Loss: b.loss, Limit: netemLimit,
	}
}

func gateFilter(link, fd int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link, Parent: rootHandle, Handle: gateHandle,
			Priority: gatePriority, Protocol: unix.ETH_P_ALL,
		},
		ClassId: netemParent, Fd: fd, Name: gateName,
	}
}

// addPlain puts a pfifo with a limit of our own on the plain band. The netlink
// library knows no options of pfifo, which takes a struct tc_fifo_qopt: the
// limit alone.
func (c *trafficControl) addPlain(link int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.Sockets = c.sockets
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(link), Handle: plainHandle, Parent: plainParent})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("pfifo")))
	req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(plainLimit)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
