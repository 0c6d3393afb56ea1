package pods

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/mooring-dev/mooring/agent/state"
)

// ErrNotSynced is returned by Kubernetes.Synced until the pods of this node have
// been received once, and by Instances until then while none is declared.
var ErrNotSynced = errors.New("pods of this node not received yet")

// Source yields the instances on this node now. Instances blocks for one scan
// and may be called from several goroutines.
type Source interface {
	Instances(ctx context.Context) (Result, error)
}

// Result is what one scan found. It belongs to the caller.
type Result struct {
	// Instances is sorted by ID.
	Instances []state.Instance
	// UnknownListeners is the number of processes that listen on a TCP port of
	// their own and are no known engine. Kubernetes leaves it 0.
	UnknownListeners int
	// Missing are the declared pods that run on this node, are not being deleted
	// and have no server that listens; sorted by namespace and pod. Container is
	// the one that it would run in, "" where that is not known. Standalone leaves
	// it nil, and so does Kubernetes until the pods have been received.
	Missing []state.Declared
	// Unresolved says, one sentence each and sorted, what looked like a
	// database and is not listed, and why.
	Unresolved []string
}

// Options says where to look. The zero value looks at this machine.
type Options struct {
	// ProcRoot is where the host's procfs is mounted; "" means /proc.
	ProcRoot string
	// CgroupRoot is where the cgroup file systems are mounted; "" means
	// /sys/fs/cgroup. Version 1 controllers are looked for in directories below
	// it, version 2 in it or in "unified" below it.
	CgroupRoot string
	// HostPID is a process in the host's network namespace; 0 means 1.
	HostPID int
	// KubepodsRoots are cgroups, besides the root, below which the kubelet puts
	// its pods: "/kubelet" for a kubelet run with that as its cgroup root.
	KubepodsRoots []string
	// PeerLink returns the index in the host of the interface whose peer is the
	// only veth of the process's network namespace, 0 where there is none. Nil
	// means to ask the kernel, which needs CAP_SYS_ADMIN.
	PeerLink func(pid int) (int, error)
}

func (o Options) withDefaults() Options {
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	if o.CgroupRoot == "" {
		o.CgroupRoot = "/sys/fs/cgroup"
	}
	if o.HostPID == 0 {
		o.HostPID = 1
	}
	if o.PeerLink == nil {
		o.PeerLink = peerLink(o.ProcRoot, o.HostPID)
	}
	return o
}

// Merge joins what both sources found. Where both list a cgroup, Kubernetes'
// word stands, also when the standalone source saw more servers in it. The
// arguments are not changed.
func Merge(k8s, standalone Result) Result {
	type key struct {
		version int
		path    string
	}
	taken := make(map[key]bool, len(k8s.Instances))
	out := Result{UnknownListeners: max(k8s.UnknownListeners, standalone.UnknownListeners), Missing: slices.Clone(k8s.Missing)}
	for _, in := range k8s.Instances {
		taken[key{in.Cgroup.Version, in.Cgroup.Path}] = true
		out.Instances = append(out.Instances, in)
	}
	for _, in := range standalone.Instances {
		if !taken[key{in.Cgroup.Version, in.Cgroup.Path}] {
			out.Instances = append(out.Instances, in)
		}
	}
	sortInstances(out.Instances)
	out.Unresolved = append(slices.Clone(k8s.Unresolved), standalone.Unresolved...)
	slices.Sort(out.Unresolved)
	out.Unresolved = slices.Compact(out.Unresolved)
	return out
}

func sortInstances(in []state.Instance) {
	slices.SortFunc(in, func(a, b state.Instance) int { return strings.Compare(a.ID, b.ID) })
}
