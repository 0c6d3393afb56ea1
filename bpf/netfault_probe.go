package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/osthread"
)

const (
	probeDelayed = 50 * time.Millisecond
	// probeOpen is how long the probe's gate is open. It leaves a slow
	// machine time to send a datagram through it.
	probeOpen = 400 * time.Millisecond
	// probeAnswer is how long a datagram may take on a very busy machine.
	probeAnswer = 5 * time.Second
	probeTries  = 5
)

// probeDelay builds the real tree with the real gate, opens it, and measures.
func probeDelay(ctx context.Context) (detail string, err error) {
	err = inNetPair(func(p *netPair) error {
		n, err := OpenNetFaults()
		if err != nil {
			return err
		}
		rule := change.NetRule{Link: p.link, Name: p.name, Delay: probeDelayed}
		detail, err = n.probe(ctx, p, rule)
		return errors.Join(err, n.Clear(p.link, p.name), n.Close())
	})
	return detail, err
}

func (n *NetFaults) probe(ctx context.Context, p *netPair, rule change.NetRule) (string, error) {
	band, err := netemOptions(rule, netlink.TickInUsec())
	if err != nil {
		return "", err
	}
	if err := n.Check(rule.Link, rule.Name); err != nil {
		return "", err
	}
	// The first datagram waits for address resolution and is not measured.
	if _, err := p.send(ctx); err != nil {
		return "", fmt.Errorf("send without a fault: %w", err)
	}
	// Not Set: loading kernel modules may take longer than the gate is open.
	gate, err := n.build(rule, band)
	if err != nil {
		return "", err
	}
	deadline := BootTime() + probeOpen
	if err := gate.arm(deadline); err != nil {
		return "", err
	}
	during, err := p.send(ctx)
	if err != nil {
		return "", fmt.Errorf("send through the open gate: %w", err)
	}
	if during < probeDelayed {
		return "", fmt.Errorf("the gate was open for %v, yet a datagram took only %v", probeDelayed, during)
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(deadline - BootTime()):
	}
	after := time.Duration(1<<63 - 1)
	for try := 0; try < probeTries && after >= probeDelayed; try++ {
		took, err := p.send(ctx)
		if err != nil {
			return "", fmt.Errorf("send after the deadline: %w", err)
		}
		after = min(after, took)
	}
	if after >= probeDelayed {
		return "", fmt.Errorf("a datagram still took %v after the deadline", after)
	}
	return fmt.Sprintf("%v asked, %v measured, %v after the deadline", probeDelayed, during, after), nil
}

// netPair is a pair of network namespaces joined by a veth pair, for trying
// things out. The calling thread is in the one that stands for the host.
type netPair struct {
	link     int
	name     string
	from, to *net.UDPConn
}

// inNetPair runs fn with a netPair, on a thread of its own. The namespaces go
// with that thread and with their last sockets.
func inNetPair(fn func(*netPair) error) (err error) {
	osthread.Discard(func() {
		var p *netPair
		if p, err = newNetPair(); err != nil {
			err = fmt.Errorf("throw-away network: %w", err)
			return
		}
		defer p.close()
		err = fn(p)
	})
	return err
}

func newNetPair() (*netPair, error) {
	far, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	defer far.Close()
	near, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("new network namespace: %w", err)
	}
	defer near.Close()

	p := &netPair{name: "mooring-near"}
	// RFC 5737, TEST-NET-1: addresses that nobody has.
	nearIP, farIP := net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)
	const farName = "mooring-far"
	attrs := netlink.NewLinkAttrs()
	attrs.Name = p.name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: farName, PeerNamespace: netlink.NsFd(far)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("add veth pair: %w", err)
	}
	if p.link, err = bringUp(p.name, nearIP); err != nil {
		return nil, err
	}
	if err := netns.Set(far); err != nil {
		return nil, fmt.Errorf("enter far namespace: %w", err)
	}
	if _, err := bringUp(farName, farIP); err != nil {
		return nil, err
	}
	if p.to, err = net.ListenUDP("udp4", &net.UDPAddr{IP: farIP}); err != nil {
		return nil, err
	}
	if err := netns.Set(near); err != nil {
		p.close()
		return nil, fmt.Errorf("enter near namespace: %w", err)
	}
	if p.from, err = net.DialUDP("udp4", nil, p.to.LocalAddr().(*net.UDPAddr)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// bringUp gives an interface of the thread's namespace an address and switches
// it on.
func bringUp(name string, ip net.IP) (index int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(30, 32)}}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return 0, fmt.Errorf("add address to %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return 0, fmt.Errorf("switch on %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}

func (p *netPair) close() {
	for _, c := range []*net.UDPConn{p.from, p.to} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// send sends one datagram and returns the time until it was received.
func (p *netPair) send(ctx context.Context) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := p.from.Write([]byte{1}); err != nil {
		return 0, err
	}
	if err := p.to.SetReadDeadline(begun.Add(probeAnswer)); err != nil {
		return 0, err
	}
	if _, err := p.to.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	return time.Since(begun), nil
}
