package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/chaos"
)

// apply sends one request and prints what came of it.
func (c *client) apply(ctx context.Context, r *agentpb.ApplyRequest) error {
	return c.once(ctx, func(ctx context.Context, a agentpb.AgentClient) error {
		reply, err := a.Apply(ctx, r)
		if err != nil {
			return err
		}
		if c.format == "json" {
			return c.json(reply)
		}
		verb := "changed"
		if r.GetDryRun() {
			verb = "would change"
		}
		for _, why := range reply.GetReasons() {
			fmt.Fprintln(c.out, why)
		}
		for _, l := range reply.GetChanges() {
			fmt.Fprintf(c.out, "%s: %s\n", verb, l)
		}
		if f := reply.GetFault(); f != nil {
			return c.printFaults([]*agentpb.Fault{f})
		}
		if len(reply.GetChanges()) == 0 {
			fmt.Fprintln(c.out, "nothing to change")
		}
		res := reply.GetResources()
		fmt.Fprintf(c.out, "%s: CPU %s, memory %s (in use %s), cpus %s, memory nodes %s\n", reply.GetInstance(),
			cpu(res.GetCpuMillicores()), limit(res.GetMemoryLimitBytes()), size(res.GetMemoryInUseBytes()), res.GetCpus(), res.GetMemoryNodes())
		return nil
	})
}

func (c *client) pinCommand() *cobra.Command {
	var node, policy string
	var dry bool
	cmd := &cobra.Command{
		Use:   "pin INSTANCE",
		Short: "Confine an instance to one NUMA node, its memory with it",
		Example: "  mooringctl pin orders-db --node 1\n" +
			"  mooringctl pin orders-db              # the policy chooses\n" +
			"  mooringctl pin orders-db --node all   # give the whole machine back",
		Args: exactly("an INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := &agentpb.Placement{Policy: policy}
			switch n, err := strconv.ParseInt(node, 10, 32); {
			case node == "":
			case node == "all":
				p.AllNodes = true
			case err != nil || n < 0:
				return fmt.Errorf("--node %q is neither a NUMA node number nor all", node)
			default:
				id := int32(n)
				p.Node = &id
			}
			return c.apply(cmd.Context(), &agentpb.ApplyRequest{
				Uid: newUID("pin"), Instance: args[0], DryRun: dry,
				Desired: &agentpb.ApplyRequest_Placement{Placement: p},
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "NUMA node, or all; the policy chooses when absent")
	cmd.Flags().StringVar(&policy, "policy", "single-node", "placement policy")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would change and change nothing")
	return cmd
}

func (c *client) resizeCommand() *cobra.Command {
	var cpuFlag, memoryFlag string
	var dry, force, raw bool
	cmd := &cobra.Command{
		Use:     "resize INSTANCE",
		Short:   "Change the CPU and memory limits of a running instance",
		Example: "  mooringctl resize orders-db --cpu 2 --memory 8Gi\n  mooringctl resize orders-db --cpu 1500m",
		Args:    exactly("an INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := &agentpb.Size{}
			if cmd.Flags().Changed("cpu") {
				m, err := quantity("--cpu", cpuFlag, `such as 2 or 1500m`, resource.Milli)
				if err != nil {
					return err
				}
				s.CpuMillicores = &m
			}
			if cmd.Flags().Changed("memory") {
				b, err := quantity("--memory", memoryFlag, `such as 4Gi or 512Mi`, 0)
				if err != nil {
					return err
				}
				s.MemoryBytes = &b
			}
			if s.CpuMillicores == nil && s.MemoryBytes == nil {
				return errors.New("nothing to resize: give --cpu, --memory or both")
			}
			return c.apply(cmd.Context(), &agentpb.ApplyRequest{
				Uid: newUID("resize"), Instance: args[0], DryRun: dry, Force: force, Raw: raw,
				Desired: &agentpb.ApplyRequest_Size{Size: s},
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&cpuFlag, "cpu", "", "CPU limit in cores, such as 2 or 1500m")
	f.StringVar(&memoryFlag, "memory", "", "memory limit, such as 4Gi or 512Mi")
	f.BoolVar(&force, "force", false, "allow a memory limit below what is in use; the kernel may kill the database")
	f.BoolVar(&raw, "raw", false, "write a pod's limits although its kubelet is to write them and may write over them; for emergencies")
	f.BoolVar(&dry, "dry-run", false, "show what would change and change nothing")
	return cmd
}

// quantity parses a Kubernetes quantity that must be positive.
func quantity(flag, s, form string, scale resource.Scale) (int64, error) {
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not a size; write it %s", flag, s, form)
	}
	if q.Sign() <= 0 {
		return 0, fmt.Errorf("%s %q must be more than zero", flag, s)
	}
	return q.ScaledValue(scale), nil
}

func (c *client) faultCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fault",
		Short: "Start, list and stop faults; each ends by itself",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.faultStartCommand(), c.faultListCommand(), c.faultStopCommand())
	return cmd
}

func (c *client) faultStartCommand() *cobra.Command {
	var duration time.Duration
	var uid string
	var set []string
	var dry bool
	cmd := &cobra.Command{
		Use:     "start KIND INSTANCE --duration D [--set NAME=VALUE]...",
		Short:   "Start a fault on one instance",
		Long:    "start begins a fault on one instance and returns when it is in force. It ends by itself after the duration, with or without the agent.\n\n" + kinds(),
		Example: "  mooringctl fault start net-delay orders-db --duration 10s --set delay=100ms",
		Args:    exactly("a KIND", "an INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("duration") {
				return errors.New("a fault needs an end: give --duration, such as --duration 10s")
			}
			if duration <= 0 {
				return fmt.Errorf("--duration %v must be more than zero", duration)
			}
			p, err := pairs(set)
			if err != nil {
				return err
			}
			if uid == "" {
				uid = newUID(args[0])
			}
			return c.apply(cmd.Context(), &agentpb.ApplyRequest{
				Uid: uid, Instance: args[1], DryRun: dry,
				Desired: &agentpb.ApplyRequest_Fault{Fault: &agentpb.FaultSpec{
					Kind: args[0], Params: p, Duration: durationpb.New(duration),
					NotAfter: timestamppb.New(time.Now().Add(duration + c.timeout)),
				}},
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&duration, "duration", 0, "how long the fault lasts, such as 10s (required)")
	f.StringArrayVar(&set, "set", nil, "a parameter of the fault, NAME=VALUE; may be repeated")
	f.StringVar(&uid, "uid", "", "name of the fault; starting the same again changes nothing (default: made up)")
	f.BoolVar(&dry, "dry-run", false, "show what would change and change nothing")
	return cmd
}

func (c *client) faultListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List active faults and those that ended lately",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withStatus(cmd.Context(), func(s *agentpb.StatusReply) *agentpb.StatusReply {
				return &agentpb.StatusReply{Faults: s.GetFaults(), Time: s.GetTime(), NodeName: s.GetNodeName()}
			}, func(s *agentpb.StatusReply) error { return c.printFaults(s.GetFaults()) })
		},
	}
}

func (c *client) faultStopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop UID",
		Short: "End a fault now",
		Args:  exactly("the fault's UID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.apply(cmd.Context(), &agentpb.ApplyRequest{Uid: args[0], Withdraw: true})
		},
	}
}

// kinds lists the faults and their parameters for --help.
func kinds() string {
	var b strings.Builder
	b.WriteString("Kinds:\n")
	for _, k := range chaos.Kinds() {
		fmt.Fprintf(&b, "  %-12s %s\n", k.Name, k.Help)
		for _, p := range k.Params {
			note := ""
			switch {
			case p.Required:
				note = " (required)"
			case p.Default != "":
				note = " (default " + p.Default + ")"
			}
			fmt.Fprintf(&b, "      --set %s=%s  %s%s\n", p.Name, p.Example, p.Help, note)
		}
	}
	return b.String()
}

// pairs splits NAME=VALUE arguments.
func pairs(set []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range set {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--set %q is not NAME=VALUE", s)
		}
		if _, dup := m[k]; dup {
			return nil, fmt.Errorf("--set names %q twice", k)
		}
		m[k] = v
	}
	return m, nil
}

// exactly wants one argument for each name, and says which is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s: %s is missing", cmd.CommandPath(), names[len(args)])
		}
		if len(args) > len(names) {
			return fmt.Errorf("%s: %q is one argument too many", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}

// newUID makes up a name that no other request has.
func newUID(what string) string {
	return what + "-" + strings.ToLower(rand.Text()[:8])
}
