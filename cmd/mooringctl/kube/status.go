package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// screenful is how many agents are listed before only those that are not ready
// are.
const screenful = 12

func (c *command) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show controller, agents, policies, and what is going on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.open()
			if err != nil {
				return err
			}
			// What one may not see, or what fails, does not hide the rest.
			return errors.Join(c.systemStatus(cmd.Context(), s), c.workStatus(cmd.Context(), s))
		},
	}
}

// systemStatus prints who leads and which agents there are. Someone who may see
// the databases only is told so, and that is no error.
func (c *command) systemStatus(ctx context.Context, s *session) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	err := c.printLeader(ctx, s)
	if err == nil {
		err = c.printAgents(ctx, s)
	}
	if apierrors.IsForbidden(err) {
		fmt.Fprintf(c.errOut, "controller and agents are not shown: %v\n", c.explain("read "+c.system, err))
		return nil
	}
	return c.explain("read "+c.system, err)
}

func (c *command) printLeader(ctx context.Context, s *session) error {
	pods, err := c.systemPods(ctx, s, controllerName)
	if err != nil {
		return err
	}
	ready := 0
	for i := range pods {
		if podReady(&pods[i]) {
			ready++
		}
	}
	var lease coordinationv1.Lease
	err = s.Get(ctx, client.ObjectKey{Namespace: c.system, Name: controllerName}, &lease)
	leader := "no leader yet"
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return err
	case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "":
		leader = "no leader: the last one gave up the lease"
	case lease.Spec.RenewTime != nil && lease.Spec.LeaseDurationSeconds != nil &&
		c.now().Sub(lease.Spec.RenewTime.Time).Seconds() > float64(*lease.Spec.LeaseDurationSeconds):
		leader = fmt.Sprintf("no leader: %s has not renewed the lease for %s", *lease.Spec.HolderIdentity, c.age(lease.Spec.RenewTime.Time))
	default:
		leader = "leader " + *lease.Spec.HolderIdentity
	}
	_, err = fmt.Fprintf(c.out, "controller  %d of %d ready, %s\n", ready, len(pods), leader)
	return err
}

func (c *command) printAgents(ctx context.Context, s *session) error {
	pods, err := c.systemPods(ctx, s, agentName)
	if err != nil {
		return err
	}
	var set appsv1.DaemonSet
	wanted := len(pods)
	switch err := s.Get(ctx, client.ObjectKey{Namespace: c.system, Name: agentName}, &set); {
	case err == nil:
		wanted = int(set.Status.DesiredNumberScheduled)
	case !apierrors.IsNotFound(err):
		return err
	}
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return cmp.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	ready, shown := 0, pods[:0:0]
	for i := range pods {
		ok := podReady(&pods[i])
		if ok {
			ready++
		}
		if !ok || len(pods) <= screenful {
			shown = append(shown, pods[i])
		}
	}
	fmt.Fprintf(c.out, "agents      %d of %d ready\n\n", ready, wanted)
	if len(shown) == 0 {
		return nil
	}
	t := table(c.out, "NODE", "AGENT", "READY", "VERSION", "RESTARTS", "AGE", "MESSAGE")
	for i := range shown {
		p := &shown[i]
		row(t, p.Spec.NodeName, p.Name, yes(podReady(p)), version(p), restarts(p), c.age(p.CreationTimestamp.Time), podMessage(p))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.out)
	return err
}

// workStatus prints the policies and what has not ended.
func (c *command) workStatus(ctx context.Context, s *session) error {
	policies, err := c.policies(ctx, s)
	if err != nil {
		return err
	}
	t := table(c.out, "NAMESPACE", "POLICY", "ENGINE", "MATCHED", "READY", "MESSAGE")
	for _, p := range policies {
		row(t, p.Namespace, p.Name, p.Spec.Engine, p.Status.Matched, p.Status.Ready, unmet(p.Status.Conditions))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	experiments, err := c.experiments(ctx, s)
	if err != nil {
		return err
	}
	live := slices.DeleteFunc(experiments, func(x v1alpha1.ChaosExperiment) bool { return experimentOver(&x) })
	if len(live) > 0 {
		fmt.Fprintln(c.out)
		if err := c.printExperiments(live); err != nil {
			return err
		}
	}
	resizes, err := c.resizes(ctx, s)
	if err != nil {
		return err
	}
	running := slices.DeleteFunc(resizes, func(r v1alpha1.InstanceResize) bool { return resizeOver(&r) })
	if len(running) == 0 {
		return nil
	}
	fmt.Fprintln(c.out)
	return c.printResizes(running)
}

func podReady(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// version is the tag of the pod's image.
func version(p *corev1.Pod) string {
	if len(p.Spec.Containers) == 0 {
		return ""
	}
	image := p.Spec.Containers[0].Image
	image, digest, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i+1:]
	}
	return digest
}

func restarts(p *corev1.Pod) int32 {
	var n int32
	for _, s := range p.Status.ContainerStatuses {
		n += s.RestartCount
	}
	return n
}

// podMessage says why a pod is not ready.
func podMessage(p *corev1.Pod) string {
	switch {
	case p.DeletionTimestamp != nil:
		return "is being deleted"
	case podReady(p):
		return ""
	case p.Status.Message != "":
		return p.Status.Message
	}
	for _, s := range p.Status.ContainerStatuses {
		switch {
		case s.State.Waiting != nil:
			return s.State.Waiting.Reason + " " + s.State.Waiting.Message
		case s.State.Terminated != nil:
			return "ended: " + s.State.Terminated.Reason + " " + s.State.Terminated.Message
		}
	}
	for _, cond := range p.Status.Conditions {
		if cond.Status != corev1.ConditionTrue && cond.Message != "" {
			return cond.Message
		}
	}
	return string(p.Status.Phase)
}
