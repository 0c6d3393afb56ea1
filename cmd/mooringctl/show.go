package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

func (c *client) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the node: probe, collectors, NUMA nodes, instances, faults",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return c.call(cmd.Context(), func(ctx context.Context, a agentpb.AgentClient) error { return c.follow(ctx, a) })
			}
			return c.once(cmd.Context(), func(ctx context.Context, a agentpb.AgentClient) error {
				s, err := a.Status(ctx, &agentpb.StatusRequest{})
				if err != nil {
					return err
				}
				return c.printStatus(s)
			})
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print again at each of the agent's ticks")
	return cmd
}

// follow prints each status the agent sends until one side goes away.
func (c *client) follow(ctx context.Context, a agentpb.AgentClient) error {
	stream, err := a.Watch(ctx, &agentpb.WatchRequest{})
	if err != nil {
		return err
	}
	for {
		s, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.printStatus(s); err != nil {
			return err
		}
	}
}

func (c *client) printStatus(s *agentpb.StatusReply) error {
	if c.format == "json" {
		return c.json(s)
	}
	fmt.Fprintf(c.out, "node %s  agent %s  probe %s  %s\n", s.GetNodeName(), s.GetVersion(), s.GetProbe().GetMode(), s.GetTime().AsTime().Local().Format(time.RFC3339))
	if d := s.GetProbe().GetDetail(); d != "" {
		fmt.Fprintln(c.out, "probe:", d)
	}
	if j := s.GetJournal(); j != "" {
		fmt.Fprintln(c.out, "journal:", j)
	}
	if line := control(s); line != "" {
		fmt.Fprintln(c.out, line)
	}
	for _, r := range s.GetCollectors() {
		if r.GetError() != "" {
			fmt.Fprintf(c.out, "collector %s: %s\n", r.GetName(), strings.ReplaceAll(r.GetError(), "\n", "; "))
		}
	}
	for _, u := range s.GetUnresolved() {
		fmt.Fprintln(c.out, "unresolved:", u)
	}
	fmt.Fprintf(c.out, "%d unknown listening processes left alone\n\n", s.GetUnknownListeners())
	t := c.table("NUMA NODE", "CPUS", "MEMORY", "FREE", "DISTANCES")
	for _, n := range s.GetNodes() {
		row(t, n.GetId(), n.GetCpus(), size(n.GetTotalBytes()), size(n.GetFreeBytes()), strings.Trim(fmt.Sprint(n.GetDistances()), "[]"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(c.out)
	if err := c.printInstances(s.GetInstances()); err != nil {
		return err
	}
	if len(s.GetFaults()) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	return c.printFaults(s.GetFaults())
}

// control is one line about who steers this node: the policy in force, the
// controller that was heard last and who writes the limits of pods. It is empty on
// a node that no controller has found.
func control(s *agentpb.StatusReply) string {
	var words []string
	if d := s.GetPolicyDigest(); d != "" {
		words = append(words, "policy "+d)
	}
	if e := s.GetEpoch(); e != 0 {
		words = append(words, fmt.Sprintf("controller epoch %d", e))
	}
	if w := s.GetLimitsWriter(); w != "" {
		words = append(words, "limits of pods written by "+w)
	}
	return strings.Join(words, "  ")
}

// withStatus asks for the agent's status and prints it: as JSON, only what
// keep leaves of it.
func (c *client) withStatus(ctx context.Context, keep func(*agentpb.StatusReply) *agentpb.StatusReply, table func(*agentpb.StatusReply) error) error {
	return c.once(ctx, func(ctx context.Context, a agentpb.AgentClient) error {
		s, err := a.Status(ctx, &agentpb.StatusRequest{})
		if err != nil {
			return err
		}
		if c.format == "json" {
			return c.json(keep(s))
		}
		return table(s)
	})
}

func (c *client) instancesCommand() *cobra.Command {
	var long bool
	cmd := &cobra.Command{
		Use:     "instances",
		Aliases: []string{"instance", "in"},
		Short:   "List the database instances of this node",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withStatus(cmd.Context(), func(s *agentpb.StatusReply) *agentpb.StatusReply {
				return &agentpb.StatusReply{Instances: s.GetInstances(), Time: s.GetTime(), NodeName: s.GetNodeName()}
			}, func(s *agentpb.StatusReply) error {
				if err := c.printInstances(s.GetInstances()); err != nil || !long {
					return err
				}
				if err := c.printDeclared(s.GetInstances()); err != nil {
					return err
				}
				if err := c.printActive(s.GetInstances()); err != nil {
					return err
				}
				return c.printOperations(s.GetInstances())
			})
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "also show what policies declare, what active probes found, and statements by operation")
	return cmd
}

func (c *client) printInstances(in []*agentpb.Instance) error {
	t := c.table("INSTANCE", "ID", "ENGINE", "PORTS", "CPU", "MEMORY", "IN USE", "NUMA", "LOCAL", "STATEMENTS", "MEAN", "NOTE")
	for _, i := range in {
		r := i.GetResources()
		var n uint64
		var sum time.Duration
		for _, o := range i.GetOperations() {
			if o.GetName() != "auth" {
				n += o.GetCount()
				sum += o.GetSum().AsDuration()
			}
		}
		mean := "-"
		if n > 0 {
			mean = short(sum / time.Duration(n))
		}
		note := i.GetShared()
		if note == "" {
			note = i.GetError()
		}
		row(t, i.GetName(), i.GetId(), i.GetEngine(), strings.Trim(fmt.Sprint(i.GetPorts()), "[]"), cpu(r.GetCpuMillicores()),
			limit(r.GetMemoryLimitBytes()), size(r.GetMemoryInUseBytes()), numaNode(i), share(i), n, mean, note)
	}
	return t.Flush()
}

// printDeclared prints what policies say of the instances; nothing where none
// does.
func (c *client) printDeclared(in []*agentpb.Instance) error {
	in = slices.DeleteFunc(slices.Clone(in), func(i *agentpb.Instance) bool { return i.GetPolicy() == "" })
	if len(in) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	t := c.table("INSTANCE", "POLICY", "CLUSTER", "ROLE", "WANTED", "NOTE")
	for _, i := range in {
		row(t, i.GetName(), i.GetPolicy(), i.GetCluster(), i.GetRole(), i.GetNuma(), strings.ReplaceAll(i.GetPlacementError(), "\n", "; "))
	}
	return t.Flush()
}

func (c *client) printOperations(in []*agentpb.Instance) error {
	fmt.Fprintln(c.out)
	t := c.table("INSTANCE", "OPERATION", "OUTCOME", "COUNT", "MEAN")
	for _, i := range in {
		for _, o := range i.GetOperations() {
			outcome := "ok"
			if o.GetError() {
				outcome = "error"
			}
			var mean time.Duration
			if o.GetCount() > 0 {
				mean = o.GetSum().AsDuration() / time.Duration(o.GetCount())
			}
			row(t, i.GetName(), o.GetName(), outcome, o.GetCount(), short(mean))
		}
	}
	return t.Flush()
}

func (c *client) printFaults(faults []*agentpb.Fault) error {
	t := c.table("FAULT", "KIND", "INSTANCE", "PARAMETERS", "PHASE", "STARTED", "ENDS", "HITS", "NOTE")
	for _, f := range faults {
		ends := f.GetDeadline().AsTime().Local().Format(time.TimeOnly)
		if f.GetEnded() != nil {
			ends = "ended " + f.GetEnded().AsTime().Local().Format(time.TimeOnly)
		}
		row(t, f.GetUid(), f.GetKind(), f.GetInstance(), params(f.GetParams()), f.GetPhase(),
			f.GetStarted().AsTime().Local().Format(time.TimeOnly), ends, f.GetHits(), strings.TrimSpace(f.GetReason()+" "+f.GetError()))
	}
	return t.Flush()
}

func (c *client) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Show what this node can do, found by firing each probe",
		Long:  "doctor shows what this node can do. The agent fired each probe when it started: a line says yes only if the thing was seen to work.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.once(cmd.Context(), func(ctx context.Context, a agentpb.AgentClient) error {
				r, err := a.Capabilities(ctx, &agentpb.CapabilitiesRequest{})
				if err != nil {
					return err
				}
				if c.format == "json" {
					return c.json(r)
				}
				t := c.table("CAPABILITY", "OK", "DETAIL")
				for _, k := range r.GetCapabilities() {
					ok := "no"
					if k.GetOk() {
						ok = "yes"
					}
					row(t, k.GetName(), ok, strings.ReplaceAll(k.GetDetail(), "\n", "; "))
				}
				return t.Flush()
			})
		},
	}
}

func (c *client) table(head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	return t
}

func row(t *tabwriter.Writer, cells ...any) {
	s := make([]string, len(cells))
	for i, cell := range cells {
		s[i] = fmt.Sprint(cell)
		if s[i] == "" {
			s[i] = "-"
		}
	}
	fmt.Fprintln(t, strings.Join(s, "\t"))
}
