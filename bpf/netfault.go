package bpf

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/mooring-dev/mooring/agent/change"
)

//go:generate go tool bpf2go -target bpfel netfault netfault.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// NetFaults delays and drops the packets that leave the host through one end
// of a veth or netkit pair, and so arrive at the instance at its other end. It
// enters no network namespace and touches nothing inside the instance.
//
// The interface gets a qdisc tree: a prio root with a plain band and a netem
// band, and a BPF classifier, the gate, that sends packets to the netem band
// until the deadline, or until the lease of three seconds runs out. The tree
// outlives the process. The fault does not: from then on the gate lets
// everything through the plain band, and Clear of any later process takes the
// tree away.
//
// Putting a root qdisc on a running interface, and taking it off, makes the
// kernel pause the interface's queue: packets sent in these few milliseconds
// are lost (net/sched/sch_generic.c, dev_deactivate). Jitter reorders packets.
// netem counts a segmentation offload packet as one. Packets from the instance
// are not touched. A network plugin that hands packets to the far end directly
// (the BPF helper bpf_redirect_peer) goes round the qdisc: the count of hits
// stays zero then.
//
// The methods are safe for concurrent use. They act on the network namespace
// in which OpenNetFaults was called.
type NetFaults struct {
	mu    sync.Mutex
	tc    *trafficControl
	gates map[int]*netGate
}

// netGate is the classifier of one interface, and the rule it carries out.
type netGate struct {
	rule change.NetRule
	objs netfaultObjects
}

// Indices of the map net_gate, as in netfault.bpf.c.
const (
	gateDeadline uint32 = iota
	gateLease
)

// OpenNetFaults opens a netlink socket in the calling thread's network
// namespace. It loads nothing and changes nothing; whether this kernel can
// carry out network faults is for ProbeNetFaults to say.
func OpenNetFaults() (*NetFaults, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise memlock limit: %w", err)
	}
	tc, err := openTrafficControl()
	if err != nil {
		return nil, err
	}
	return &NetFaults{tc: tc, gates: make(map[int]*netGate)}, nil
}

// Check tells whether the interface can carry a fault: it has this index and
// this name, it is the host's end of a pair, it is up, and its root qdisc is
// noqueue, which is to say nobody's, or our own tree. It alters nothing.
func (n *NetFaults) Check(link int, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, err := n.tc.check(link, name)
	return err
}

// Set builds the tree on the interface with the gate closed, reads it back,
// and opens the gate with one map write. Packets are disturbed from there to
// r.Deadline, provided that Renew is called at least every Lease. Setting the
// same rule again renews the leases and checks that the tree still stands.
//
// A tree left behind by an earlier process is replaced. A link that holds
// another rule of this process is refused with an error that wraps ErrBusy.
func (n *NetFaults) Set(r change.NetRule) error {
	netem, err := netemOptions(r, netlink.TickInUsec())
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()

	ours, err := n.tc.check(r.Link, r.Name)
	if err != nil {
		return err
	}
	if g := n.gates[r.Link]; g != nil && ours {
		if g.rule != r {
			return fmt.Errorf("interface %q carries another network fault, clear it first: %w", r.Name, ErrBusy)
		}
		if err := n.tc.verify(r.Link, netem, g.objs.OnClsEgress); err != nil {
			return err
		}
		return n.renew(Lease)
	}
	n.forget(r.Link)
	if ours {
		if err := n.tc.remove(r.Link); err != nil {
			return fmt.Errorf("remove leftover network fault from %q: %w", r.Name, err)
		}
	}
	g, err := n.build(r, netem)
	if err != nil {
		return err
	}
	if err := g.arm(r.Deadline); err != nil {
		n.forget(r.Link)
		return errors.Join(err, n.tc.remove(r.Link))
	}
	return nil
}

// Get returns the packets sent through the netem band, how many of those netem
// has dropped, and whether the gate is open now. It is an error if this
// process has set no fault on the link.
func (n *NetFaults) Get(link int) (hits uint64, drops uint64, armed bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	g := n.gates[link]
	if g == nil {
		return 0, 0, false, fmt.Errorf("interface %d carries no network fault of this process", link)
	}
	var perCPU []uint64
	if err := g.objs.NetHits.Lookup(uint32(0), &perCPU); err != nil {
		return 0, 0, false, fmt.Errorf("read packet counter: %w", err)
	}
	for _, v := range perCPU {
		hits += v
	}
	netem, err := n.tc.netem(link)
	if err != nil {
		return 0, 0, false, err
	}
	if s := netem.Statistics; s != nil && s.Queue != nil {
		drops = uint64(s.Queue.Drops)
	}
	now := uint64(BootTime())
	var deadline, lease uint64
	if err := g.objs.NetGate.Lookup(gateDeadline, &deadline); err != nil {
		return 0, 0, false, fmt.Errorf("read gate: %w", err)
	}
	if err := g.objs.NetGate.Lookup(gateLease, &lease); err != nil {
		return 0, 0, false, fmt.Errorf("read gate: %w", err)
	}
	return hits, drops, now < deadline && now < lease, nil
}

// Renew makes every fault of this process last for lease from now, at most
// until its own deadline. One whose lease has run out, but not its deadline,
// takes effect again.
func (n *NetFaults) Renew(lease time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.renew(lease)
}

// Clear closes the gate, waits up to two seconds for delayed packets to leave,
// takes the tree away and checks that the interface is back to noqueue. It is
// idempotent and works in a process that did not set the fault. An interface
// that is gone counts as cleared. A root qdisc that is not ours is left alone
// and is an error.
func (n *NetFaults) Clear(link int, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if g := n.gates[link]; g != nil {
		if err := g.disarm(); err != nil {
			return err
		}
		n.forget(link)
	}
	return n.tc.clear(link, name)
}

// Close closes all gates, so that the faults end now rather than with their
// leases, and releases the descriptors. The trees stay, inert, for Clear.
func (n *NetFaults) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	for link, g := range n.gates {
		err = errors.Join(err, g.disarm())
		n.forget(link)
	}
	n.tc.close()
	return err
}

// build puts the tree on the interface with its gate closed and remembers it.
// On error nothing is left behind.
func (n *NetFaults) build(r change.NetRule, netem netemBand) (*netGate, error) {
	g := &netGate{rule: r}
	if err := loadNetfaultObjects(&g.objs, nil); err != nil {
		return nil, fmt.Errorf("load classifier: %w", err)
	}
	if err := n.tc.build(r.Link, netem, g.objs.OnClsEgress); err != nil {
		return nil, errors.Join(
			fmt.Errorf("network fault on %q: %w", r.Name, err),
			n.tc.remove(r.Link), g.objs.Close())
	}
	n.gates[r.Link] = g
	return g, nil
}

func (n *NetFaults) renew(lease time.Duration) error {
	var err error
	for _, g := range n.gates {
		err = errors.Join(err, g.renew(lease))
	}
	return err
}

// forget releases our descriptors of a gate; the qdisc tree keeps its own.
func (n *NetFaults) forget(link int) {
	if g := n.gates[link]; g != nil {
		// Closing a descriptor of a map or program cannot fail.
		_ = g.objs.Close()
		delete(n.gates, link)
	}
}

func (g *netGate) arm(deadline time.Duration) error {
	if now := BootTime(); deadline <= now {
		return fmt.Errorf("network fault on %q: deadline %v has passed, boot time is %v", g.rule.Name, deadline, now)
	}
	if err := g.renew(Lease); err != nil {
		return err
	}
	if err := putUint64(g.objs.NetGate, gateDeadline, uint64(deadline)); err != nil {
		return fmt.Errorf("arm network fault on %q: %w", g.rule.Name, err)
	}
	return nil
}

func (g *netGate) renew(lease time.Duration) error {
	until := uint64(max(BootTime()+lease, 0))
	if err := putUint64(g.objs.NetGate, gateLease, until); err != nil {
		return fmt.Errorf("renew lease of network fault on %q: %w", g.rule.Name, err)
	}
	return nil
}

func (g *netGate) disarm() error {
	if err := putUint64(g.objs.NetGate, gateDeadline, 0); err != nil {
		return fmt.Errorf("close gate of network fault on %q: %w", g.rule.Name, err)
	}
	return nil
}
