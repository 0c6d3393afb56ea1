package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func (c *command) instancesCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "instances",
		Aliases: []string{"instance", "in"},
		Short:   "List the database instances that policies declare",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.open()
			if err != nil {
				return err
			}
			policies, err := c.policies(cmd.Context(), s)
			if err != nil {
				return err
			}
			return c.printInstances(policies)
		},
	}
}

// policies lists those in scope, by namespace and name.
func (c *command) policies(ctx context.Context, s *session) ([]v1alpha1.DatabasePolicy, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	var list v1alpha1.DatabasePolicyList
	if err := s.List(ctx, &list, c.scope(s)); err != nil {
		return nil, c.explain("list databasepolicies", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.DatabasePolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list.Items, nil
}

func (c *command) printInstances(policies []v1alpha1.DatabasePolicy) error {
	t := table(c.out, "NAMESPACE", "POD", "NODE", "ROLE", "CLUSTER", "ENGINE", "NUMA", "READY", "MESSAGE")
	for _, p := range policies {
		for _, in := range p.Status.Instances {
			node := "any"
			if in.NUMANode != nil {
				node = fmt.Sprint(*in.NUMANode)
			}
			row(t, p.Namespace, in.Pod, in.Node, in.Role, in.Cluster, p.Spec.Engine, node, yes(in.Ready), in.Message)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, p := range policies {
		switch more := int(p.Status.Matched) - len(p.Status.Instances); {
		case p.Status.ObservedGeneration == 0:
			fmt.Fprintf(c.errOut, "policy %s/%s was not looked at yet; `%s status` shows whether a controller runs\n", p.Namespace, p.Name, c.name)
		case p.Status.Matched == 0:
			fmt.Fprintf(c.errOut, "policy %s/%s matches no pod\n", p.Namespace, p.Name)
		case more > 0:
			fmt.Fprintf(c.errOut, "policy %s/%s matches %d more\n", p.Namespace, p.Name, more)
		}
	}
	return nil
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
