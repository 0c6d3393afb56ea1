package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
)

func snapshotToPB(s *state.Snapshot) *agentpb.StatusReply {
	r := &agentpb.StatusReply{
		ProtocolVersion:  agentpb.Version,
		Time:             timestamppb.New(s.Time),
		NodeName:         s.NodeName,
		Version:          s.Version,
		UnknownListeners: int32(s.UnknownListeners),
		Unresolved:       onlyUTF8(s.Unresolved),
		Probe:            &agentpb.Probe{Mode: s.Probe.Mode, Detail: utf8Only(s.Probe.Detail), Lost: s.Probe.Lost},
		Journal:          utf8Only(s.Journal),
		PolicyDigest:     s.PolicyDigest,
		Epoch:            s.Epoch,
		LimitsWriter:     s.LimitsWriter,
	}
	for i := range s.Instances {
		r.Instances = append(r.Instances, instanceToPB(&s.Instances[i]))
	}
	for _, f := range s.Faults {
		r.Faults = append(r.Faults, faultToPB(f))
	}
	for _, c := range s.Capabilities {
		r.Capabilities = append(r.Capabilities, &agentpb.Capability{Name: c.Name, Ok: c.OK, Detail: utf8Only(c.Detail)})
	}
	for _, c := range s.Collectors {
		r.Collectors = append(r.Collectors, &agentpb.Collector{Name: c.Name, Duration: durationpb.New(c.Duration), Error: utf8Only(c.Err)})
	}
	for _, n := range s.Nodes {
		pb := &agentpb.NumaNode{Id: int32(n.ID), Cpus: n.CPUs, TotalBytes: n.TotalBytes, FreeBytes: n.FreeBytes}
		for _, d := range n.Distances {
			pb.Distances = append(pb.Distances, int32(d))
		}
		r.Nodes = append(r.Nodes, pb)
	}
	return r
}

func instanceToPB(s *state.InstanceStatus) *agentpb.Instance {
	r := &agentpb.Instance{
		Id: utf8Only(s.ID), Name: utf8Only(s.Name), Namespace: s.Namespace, Pod: s.Pod, Container: s.Container,
		Engine: string(s.Engine), Source: s.Source,
		Cgroup: utf8Only(s.Cgroup.Path), CgroupVersion: int32(s.Cgroup.Version), Shared: utf8Only(s.Cgroup.Shared),
		MainPid: int32(s.MainPID), Processes: int32(len(s.PIDs)),
		DataDir: utf8Only(s.DataDir), DataDevice: s.DataDevice.String(), HostNetwork: s.HostNetwork,
		Resources: resourcesToPB(s.Resources), Error: utf8Only(s.Err),
		PodUid: s.PodUID, ContainerId: s.ContainerID, PlacementError: utf8Only(s.PlacementErr),
	}
	if d := s.Declared; d != nil {
		r.Cluster, r.Role, r.Policy, r.Numa = d.Cluster, d.Role, d.Policy, d.NUMA
	}
	for _, p := range s.Ports {
		r.Ports = append(r.Ports, uint32(p))
	}
	if p := s.Placement; p != nil {
		n := int32(p.Node)
		r.NumaNode = &n
	}
	if share, ok := s.LocalShare(); ok {
		r.LocalShare = &share
	}
	r.Active = activeToPB(s.Active)
	statementsToPB(r, s.Statements)
	for _, o := range s.Operations {
		r.Operations = append(r.Operations, &agentpb.Operation{Name: o.Name, Error: o.Error, Count: o.Count, Sum: durationpb.New(o.Sum)})
	}
	return r
}

func resourcesToPB(s state.Resources) *agentpb.Resources {
	r := &agentpb.Resources{
		CpuMillicores: s.CPUMillicores, CpuUsage: durationpb.New(s.CPUUsage), CpuThrottled: durationpb.New(s.CPUThrottled),
		MemoryLimitBytes: s.MemoryLimitBytes, MemoryUsageBytes: s.MemoryUsageBytes, MemoryInUseBytes: s.MemoryInUseBytes,
		OomKills: s.OOMKills, Cpus: s.CPUs, MemoryNodes: s.MemoryNodes, NodeBytes: map[int32]int64{},
	}
	for n, b := range s.NodeBytes {
		r.NodeBytes[int32(n)] = b
	}
	return r
}

func faultToPB(f state.Fault) *agentpb.Fault {
	return &agentpb.Fault{
		Uid: f.UID, Kind: f.Kind, Instance: utf8Only(f.Instance), Params: f.Params,
		Started: timeToPB(f.Started), Deadline: timeToPB(f.Deadline), Ended: timeToPB(f.Ended),
		Phase: string(f.Phase), Reason: f.Reason, Hits: f.Hits, Error: utf8Only(f.Err),
		Verified: f.Verified, Residue: onlyUTF8(f.Residue), LeaseUntil: timeToPB(f.LeaseUntil),
	}
}

// declaredOf reads the declarations of a policy; unread says of each that it does
// not return what is wrong with it. SetPolicy checks the rest.
func declaredOf(p *agentpb.Policy, version string) (declared []state.Declared, unread []string) {
	for _, in := range p.GetInstances() {
		d, err := declarationOf(in, version)
		if err != nil {
			unread = append(unread, leftOut(d, err))
			continue
		}
		declared = append(declared, d)
	}
	return declared, unread
}

// declarationOf reads a declaration strictly: one with a word that this version
// does not know is not followed in part, for its instance would then be treated
// as another one.
func declarationOf(in *agentpb.Declared, version string) (state.Declared, error) {
	d := state.Declared{
		Namespace: in.GetNamespace(), Pod: in.GetPod(), PodUID: in.GetPodUid(), Container: in.GetContainer(),
		Engine: state.Engine(in.GetEngine()), Cluster: in.GetCluster(), Role: in.GetRole(), Policy: in.GetPolicy(), NUMA: in.GetNuma(),
	}
	var errs []error
	if _, known := d.Engine.Facts(); !known {
		errs = append(errs, fmt.Errorf("engine %q is unknown to agent %s, which knows %v", d.Engine, version, pods.Engines()))
	}
	if roles := []string{"primary", "replica", ""}; !slices.Contains(roles, d.Role) {
		errs = append(errs, fmt.Errorf("role %q is unknown to agent %s, which knows %q", d.Role, version, roles))
	}
	if placements := []string{state.NUMANone, state.NUMASingleNode}; !slices.Contains(placements, d.NUMA) {
		errs = append(errs, fmt.Errorf("NUMA placement %q is unknown to agent %s, which knows %q", d.NUMA, version, placements))
	}
	var err error
	if d.Probe, err = probeSpecOf(in.GetProbe()); err != nil {
		errs = append(errs, fmt.Errorf("probe: %w", err))
	}
	if d.Statements, err = statementsOf(in.GetStatements()); err != nil {
		errs = append(errs, fmt.Errorf("statements: %w", err))
	}
	return d, errors.Join(errs...)
}

// checkTimes refuses durations and times that no conversion can hold; absent
// ones are for StartFault to judge.
func checkTimes(d *agentpb.FaultSpec) error {
	var errs []error
	if d.Duration != nil && d.Duration.CheckValid() != nil {
		errs = append(errs, fmt.Errorf("duration %v cannot be", d.Duration))
	}
	if d.Lease != nil && d.Lease.CheckValid() != nil {
		errs = append(errs, fmt.Errorf("lease %v cannot be", d.Lease))
	}
	if d.NotAfter != nil && d.NotAfter.CheckValid() != nil {
		errs = append(errs, fmt.Errorf("time %v cannot be", d.NotAfter))
	}
	return errors.Join(errs...)
}

// outcomeToPB returns nil for nil, beside an error.
func outcomeToPB(o *Outcome) *agentpb.ApplyReply {
	if o == nil {
		return nil
	}
	return &agentpb.ApplyReply{Instance: utf8Only(o.Instance), Changes: onlyUTF8(o.Changes), Reasons: onlyUTF8(o.Reasons), Resources: resourcesToPB(o.Resources)}
}

// timeToPB leaves a time that was not set absent.
func timeToPB(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// oneLine makes an error fit a status line.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.FieldsFunc(errors.Join(err).Error(), func(r rune) bool { return r == '\n' }), "; ")
}
