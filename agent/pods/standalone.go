package pods

import (
	"context"
	"slices"
	"strconv"

	"github.com/mooring-dev/mooring/agent/state"
)

// Standalone finds servers by their processes alone.
type Standalone struct{ scanner *scanner }

// NewStandalone returns a source that needs nothing but /proc and the cgroup
// file systems. It reads nothing yet.
func NewStandalone(o Options) *Standalone {
	return &Standalone{scanner: newScanner(o)}
}

// Instances scans the node. An error means that nothing could be found out; a
// single server that cannot be described is left out and named in Unresolved.
func (s *Standalone) Instances(ctx context.Context) (Result, error) {
	s.scanner.mu.Lock()
	defer s.scanner.mu.Unlock()
	v, err := s.scanner.scan(ctx)
	if err != nil {
		return Result{}, err
	}
	perCgroup := make(map[string]int)
	for _, srv := range v.servers {
		perCgroup[srv.cgroup.Path]++
	}
	var out Result
	for _, srv := range v.servers {
		in, err := v.instance(srv, false)
		if err != nil {
			if !vanished(err) {
				v.problemf("process %d (%s): %v", srv.pid, srv.executable, err)
			}
			continue
		}
		in.Source = "standalone"
		in.ID, in.Name = srv.cgroup.Path, displayName(srv.cgroup.Path)
		if perCgroup[srv.cgroup.Path] > 1 {
			in.ID = withPort(in.ID, srv.ports)
		}
		out.Instances = append(out.Instances, in)
	}
	separate(out.Instances)
	sortInstances(out.Instances)
	out.UnknownListeners = v.unknownListeners()
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	slices.Sort(v.problems)
	out.Unresolved = v.problems
	return out, nil
}

// withPort adds what tells servers in one cgroup apart: the lowest port, 0 for
// a server that listens on unix sockets only.
func withPort(id string, ports []uint16) string {
	port := 0
	if len(ports) > 0 {
		port = int(ports[0])
	}
	return id + ":" + strconv.Itoa(port)
}

// separate adds the process to ids that are still the same: servers in one
// cgroup may listen on the same port in different network namespaces.
func separate(instances []state.Instance) {
	count := make(map[string]int)
	for _, in := range instances {
		count[in.ID]++
	}
	for i := range instances {
		if in := &instances[i]; count[in.ID] > 1 {
			in.ID += ":" + strconv.Itoa(in.MainPID)
		}
	}
}
