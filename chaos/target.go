package chaos

import (
	"fmt"

	"github.com/mooring-dev/mooring/agent/state"
)

// fits refuses a target that a fault of this kind would miss or go beyond.
func (k Kind) fits(t Target) error {
	in := t.Instance
	if in.Cgroup.Shared != "" {
		return fmt.Errorf("instance %q does not have its cgroup %q to itself (%s): run it in a container or a service of its own", in.ID, in.Cgroup.Path, in.Cgroup.Shared)
	}
	switch k.Family {
	case Net:
		return fitsNet(in, t.Others)
	case IO:
		return fitsIO(in)
	case Process:
		return fitsProcess(t)
	}
	return fmt.Errorf("%s: nothing is known of whom a fault of family %q may hit", k.Name, k.Family)
}

// fitsNet wants a network namespace that is this instance's, reached through
// an interface of its own.
func fitsNet(in state.Instance, others []state.Instance) error {
	if in.HostNetwork {
		return fmt.Errorf("instance %q shares the host's network; a network fault would hit the whole node: run it without hostNetwork, or choose another instance", in.ID)
	}
	if in.HostLink == 0 {
		return fmt.Errorf("instance %q has no interface of its own on the host (veth), where a network fault could act: its network plugin is not supported, choose another kind of fault", in.ID)
	}
	for _, o := range others {
		same := o.HostLink == in.HostLink || (in.NetNS != 0 && o.NetNS == in.NetNS)
		if o.ID != in.ID && same {
			return fmt.Errorf("instance %q shares its network with instance %q, which a network fault would hit as well: run them in pods of their own", in.ID, o.ID)
		}
	}
	return nil
}

// fitsIO wants what the kernel compares: the id of a cgroup of version 2 and a
// device.
func fitsIO(in state.Instance) error {
	if in.Cgroup.Version != 2 {
		return fmt.Errorf("instance %q is in cgroup version %d; I/O faults find their target by its cgroup of version 2: start the node with the unified hierarchy", in.ID, in.Cgroup.Version)
	}
	if in.Cgroup.ID == 0 {
		return fmt.Errorf("the cgroup of instance %q has no known id, so the kernel could not tell its processes from others: wait until it is found again", in.ID)
	}
	if in.DataDevice == (state.Device{}) {
		return fmt.Errorf("the device that holds the data of instance %q is not known; without it an I/O fault would hit all its files: see why its data directory could not be found", in.ID)
	}
	return nil
}

// fitsProcess wants a cgroup that can be frozen and is not a parent of others.
func fitsProcess(t Target) error {
	in := t.Instance
	if t.Freezer.Path == "" {
		return fmt.Errorf("the cgroup of instance %q has no file to freeze it with: this needs the freezer controller of version 1, or version 2 with Linux 5.2", in.ID)
	}
	if t.Freezer.CgroupID == 0 {
		return fmt.Errorf("the cgroup of instance %q has no known id, so a thaw could hit another one of the same name: wait until it is found again", in.ID)
	}
	if in.Cgroup.Version == 2 && t.Freezer.CgroupID != in.Cgroup.ID {
		return fmt.Errorf("the cgroup of instance %q was made again since the instance was found: try again in a few seconds", in.ID)
	}
	// On version 1 each controller has a tree of its own, and the freezer's
	// may hold more processes at that place than the one that was looked at.
	if own := in.Cgroup.Paths["freezer"]; in.Cgroup.Version == 1 && own != in.Cgroup.Path {
		return fmt.Errorf("instance %q is frozen in cgroup %q but accounted in %q, so others may be frozen with it: run it in a container", in.ID, own, in.Cgroup.Path)
	}
	return nil
}
