package agent

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/bpf"
)

// netHandler carries out changes of class Net. The BPF gate is loaded at the
// first use: a node that never has a network fault carries none.
type netHandler struct {
	mu sync.Mutex
	f  *bpf.NetFaults
}

// open loads the gate once. The caller holds mu.
func (h *netHandler) open() error {
	if h.f != nil {
		return nil
	}
	f, err := bpf.OpenNetFaults()
	if err != nil {
		return fmt.Errorf("open network faults: %w", err)
	}
	h.f = f
	return nil
}

// Prepare fills the interface's name, by which a later process makes sure that
// the index still means the same interface.
func (h *netHandler) Prepare(c *change.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.open(); err != nil {
		return err
	}
	if c.Net.Name == "" {
		link, err := net.InterfaceByIndex(c.Net.Link)
		if err != nil {
			return fmt.Errorf("find interface %d: %w", c.Net.Link, err)
		}
		c.Net.Name = link.Name
	}
	return h.f.Check(c.Net.Link, c.Net.Name)
}

func (h *netHandler) Apply(c change.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.open(); err != nil {
		return err
	}
	return h.f.Set(*c.Net)
}

func (h *netHandler) Revert(c change.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.open(); err != nil {
		return err
	}
	// Clear waits for packets under way; the leases of other rules must not
	// run out meanwhile.
	return errors.Join(h.f.Renew(bpf.Lease), h.f.Clear(c.Net.Link, c.Net.Name))
}

// Hits returns how many packets the rule took hold of.
func (h *netHandler) Hits(c change.Change) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return 0, nil
	}
	hits, _, _, err := h.f.Get(c.Net.Link)
	return hits, err
}

// Renew extends the lease of all armed rules.
func (h *netHandler) Renew() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	return h.f.Renew(bpf.Lease)
}

// Close unloads the gate.
func (h *netHandler) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	return h.f.Close()
}

// ioHandler carries out changes of class IO. Its programs are attached from
// the first fault on and detached with this process.
type ioHandler struct {
	mu sync.Mutex
	f  *bpf.IOFaults
}

// Prepare attaches the programs; the rule itself needs no pre-image, since it
// is nothing but an entry in a map of this process.
func (h *ioHandler) Prepare(*change.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f != nil {
		return nil
	}
	f, err := bpf.OpenIOFaults()
	if err != nil {
		return fmt.Errorf("open I/O faults: %w", err)
	}
	h.f = f
	return nil
}

func (h *ioHandler) Apply(c change.Change) error {
	if err := h.Prepare(nil); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.f.Set(ioUID(c), *c.IO)
}

// Revert clears the rule. In a process that never attached the programs there
// is nothing to clear: the rule died with the process that set it.
func (h *ioHandler) Revert(c change.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	return h.f.Clear(ioUID(c))
}

// ioUID names a rule: there is at most one for a cgroup and device.
func ioUID(c change.Change) string {
	return fmt.Sprintf("%d/%d:%d", c.IO.CgroupID, c.IO.Major, c.IO.Minor)
}

// Hits returns how many calls the rule made fail.
func (h *ioHandler) Hits(c change.Change) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return 0, nil
	}
	_, hits, _, err := h.f.Get(ioUID(c))
	return hits, err
}

// Renew extends the lease of all armed rules.
func (h *ioHandler) Renew() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	return h.f.Renew(bpf.Lease)
}

// Close detaches the programs.
func (h *ioHandler) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	return h.f.Close()
}

// Rules lists the rules that name a cgroup, as the kernel holds them. Without
// programs of this process there are none.
func (h *ioHandler) Rules(cgroup uint64) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil, nil
	}
	rules, err := h.f.Rules(cgroup)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range rules {
		out = append(out, change.Change{Class: change.IO, IO: &r}.String())
	}
	slices.Sort(out)
	return out, nil
}
