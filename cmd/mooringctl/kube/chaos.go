package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func (c *command) chaosCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Run, list and abort experiments; each ends by itself",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.chaosRunCommand(), c.chaosListCommand(), c.chaosAbortCommand())
	return cmd
}

func (c *command) chaosListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List experiments, the newest last",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.open()
			if err != nil {
				return err
			}
			all, err := c.experiments(cmd.Context(), s)
			if err != nil {
				return err
			}
			return c.printExperiments(all)
		},
	}
}

// experiments lists those in scope, the oldest first.
func (c *command) experiments(ctx context.Context, s *session) ([]v1alpha1.ChaosExperiment, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	var list v1alpha1.ChaosExperimentList
	if err := s.List(ctx, &list, c.scope(s)); err != nil {
		return nil, c.explain("list chaosexperiments", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.ChaosExperiment) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list.Items, nil
}

func (c *command) printExperiments(all []v1alpha1.ChaosExperiment) error {
	t := table(c.out, "NAMESPACE", "EXPERIMENT", "FAULT", "POLICY", "TARGETS", "PHASE", "ENDS", "HITS", "AGE", "MESSAGE")
	for i := range all {
		x := &all[i]
		ends := c.ends(x.Status.Deadline)
		if experimentOver(x) {
			ends = ""
		}
		row(t, x.Namespace, x.Name, x.Status.Fault, x.Spec.Target.Policy, targets(x), experimentPhase(x), ends, x.Status.Hits,
			c.age(x.CreationTimestamp.Time), experimentMessage(x))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func targets(x *v1alpha1.ChaosExperiment) string {
	var pods []string
	for _, t := range x.Status.Targets {
		pods = append(pods, t.Pod)
	}
	if len(pods) > 3 {
		return fmt.Sprintf("%d pods", len(pods))
	}
	return strings.Join(pods, ",")
}

func experimentPhase(x *v1alpha1.ChaosExperiment) v1alpha1.ExperimentPhase {
	return cmp.Or(x.Status.Phase, v1alpha1.ExperimentPending)
}

// experimentOver says whether nothing more will come of it.
func experimentOver(x *v1alpha1.ChaosExperiment) bool {
	switch experimentPhase(x) {
	case v1alpha1.ExperimentPending, v1alpha1.ExperimentActive, v1alpha1.ExperimentRecovering:
		return false
	}
	return true
}

// experimentMessage says why it went otherwise than asked; empty when it did not.
func experimentMessage(x *v1alpha1.ChaosExperiment) string {
	switch experimentPhase(x) {
	case v1alpha1.ExperimentRecovered, v1alpha1.ExperimentDryRun, v1alpha1.ExperimentActive:
		return ""
	}
	for _, t := range x.Status.Targets {
		if t.Message != "" {
			return t.Pod + ": " + t.Message
		}
	}
	return unmet(x.Status.Conditions)
}

func (c *command) chaosAbortCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "abort NAME",
		Short: "End an experiment now",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := c.open()
			if err != nil {
				return err
			}
			return c.abort(cmd.Context(), s, args[0], watch)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print what happens until it is over")
	return cmd
}

func (c *command) abort(ctx context.Context, s *session, name string, watch bool) error {
	c.writing = true
	x := &v1alpha1.ChaosExperiment{}
	key := client.ObjectKey{Namespace: s.namespace, Name: name}
	once, cancel := c.within(ctx)
	defer cancel()
	if err := s.Get(once, key, x); err != nil {
		if apierrors.IsNotFound(err) {
			return failed("there is no experiment %q in namespace %q", name, s.namespace)
		}
		return c.explain("get chaosexperiments", err)
	}
	if experimentOver(x) {
		fmt.Fprintf(c.out, "experiment %s is over already: %s\n", name, x.Status.Phase)
		return nil
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"abort": true}})
	if err != nil {
		return fmt.Errorf("encode abort: %w", err)
	}
	if err := s.Patch(once, x, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return c.explain("patch chaosexperiments", err)
	}
	fmt.Fprintf(c.out, "experiment %s is to end now\n", name)
	if !watch {
		return nil
	}
	// It may have come to its own end first.
	return c.followExperiment(ctx, s, x, v1alpha1.ExperimentAborted, v1alpha1.ExperimentRecovered)
}
