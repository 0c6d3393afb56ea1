package controller

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// queue is where keys wait for their turn.
type queue interface{ Add(key) }

// source turns events into keys. It reads the cache and decides nothing: a key
// too many costs a turn that finds nothing to do.
type source struct {
	r   *reconciler
	add queue
	// leading is false while nobody takes from the queue: what happens then is
	// found when the controller begins to lead.
	leading atomic.Bool
}

// watched returns an object of each type that is watched.
func watched() []client.Object {
	return []client.Object{&corev1.Pod{}, &v1alpha1.DatabasePolicy{}, &v1alpha1.ChaosExperiment{}, &v1alpha1.InstanceResize{}}
}

// register subscribes to the events of a cache.
func (s *source) register(ctx context.Context, c cache.Cache) error {
	for _, o := range watched() {
		informer, err := c.GetInformer(ctx, o)
		if err != nil {
			return err
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { s.event(nil, o) },
			UpdateFunc: func(old, new any) { s.event(old, new) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				s.event(o, nil)
			},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// event handles an object that appeared (old is nil), changed, or went away (new
// is nil).
func (s *source) event(old, new any) {
	if !s.leading.Load() {
		return
	}
	o := new
	if o == nil {
		o = old
	}
	switch o := o.(type) {
	case *corev1.Pod:
		was, _ := old.(*corev1.Pod)
		s.pod(was, o, new == nil)
	case *v1alpha1.DatabasePolicy:
		was, _ := old.(*v1alpha1.DatabasePolicy)
		s.policy(was, o, new == nil)
	case *v1alpha1.ChaosExperiment:
		s.add.Add(keyOf(kindChaos, o))
	case *v1alpha1.InstanceResize:
		s.add.Add(keyOf(kindResize, o))
	}
}

// pod handles an event of a pod: of an agent, of an instance, or of neither.
func (s *source) pod(was, is *corev1.Pod, gone bool) {
	if s.r.place.isAgent(is) {
		s.add.Add(key{kind: kindAgents})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all, err := s.r.policiesOf(ctx, is.Namespace)
	if err != nil {
		return // the cache is not there yet; its own events come first
	}
	matched := false
	for i := range all {
		p := &all[i]
		if matches(p, is) || was != nil && matches(p, was) || gone {
			matched = true
			s.add.Add(keyOf(kindPolicy, p))
		}
	}
	if !matched {
		return
	}
	if is.Spec.NodeName != "" {
		s.add.Add(key{kind: kindNode, name: is.Spec.NodeName})
	}
	s.resizes(ctx, is.Namespace, is.Name)
}

// policy handles an event of a policy: its own status, its neighbours' conflicts,
// what waits for it, and all agents, of which any may run its pods.
func (s *source) policy(was, is *v1alpha1.DatabasePolicy, gone bool) {
	if was != nil && !gone && was.Generation == is.Generation && was.UID == is.UID {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.add.Add(keyOf(kindPolicy, is))
	if all, err := s.r.policiesOf(ctx, is.Namespace); err == nil {
		for i := range all {
			s.add.Add(keyOf(kindPolicy, &all[i]))
		}
	}
	if pods, err := s.r.agentPods(ctx); err == nil {
		for i := range pods {
			if node := pods[i].Spec.NodeName; node != "" {
				s.add.Add(key{kind: kindNode, name: node})
			}
		}
	}
}

// agent handles news of a node's agent.
func (s *source) agent(node string) {
	if !s.leading.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.add.Add(key{kind: kindNode, name: node})
	var pods corev1.PodList
	if err := s.r.kube.List(ctx, &pods, client.MatchingFields{byNode: node}); err != nil {
		return
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		all, err := s.r.policiesOf(ctx, pod.Namespace)
		if err != nil {
			return
		}
		for p := range all {
			if matches(&all[p], pod) {
				s.add.Add(keyOf(kindPolicy, &all[p]))
				s.resizes(ctx, pod.Namespace, pod.Name)
			}
		}
	}
	s.experiments(ctx, node)
}

// experiments wakes the experiments that have a fault on a node, or wait to begin.
func (s *source) experiments(ctx context.Context, node string) {
	var list v1alpha1.ChaosExperimentList
	if s.r.kube.List(ctx, &list) != nil {
		return
	}
	for i := range list.Items {
		e := &list.Items[i]
		here := slices.ContainsFunc(e.Status.Targets, func(t v1alpha1.ChaosTargetStatus) bool { return t.Node == node })
		if !finished(e.Status.Phase) && (here || !admitted(e)) {
			s.add.Add(keyOf(kindChaos, e))
		}
	}
}

// resizes wakes the resizes of a namespace that have a pod among their targets,
// or wait to begin.
func (s *source) resizes(ctx context.Context, namespace, pod string) {
	var list v1alpha1.InstanceResizeList
	if s.r.kube.List(ctx, &list, client.InNamespace(namespace)) != nil {
		return
	}
	for i := range list.Items {
		z := &list.Items[i]
		named := slices.ContainsFunc(z.Status.Targets, func(t v1alpha1.ResizeTargetStatus) bool { return t.Pod == pod })
		if !resizeFinished(z.Status.Phase) && (named || len(z.Status.Targets) == 0) {
			s.add.Add(keyOf(kindResize, z))
		}
	}
}

// everything adds a key for all there is, which is how a controller begins to
// lead.
func (s *source) everything(ctx context.Context) error {
	s.add.Add(key{kind: kindAgents})
	var policies v1alpha1.DatabasePolicyList
	var experiments v1alpha1.ChaosExperimentList
	var resizes v1alpha1.InstanceResizeList
	err := errors.Join(s.r.kube.List(ctx, &policies), s.r.kube.List(ctx, &experiments), s.r.kube.List(ctx, &resizes))
	for i := range policies.Items {
		s.add.Add(keyOf(kindPolicy, &policies.Items[i]))
	}
	for i := range experiments.Items {
		s.add.Add(keyOf(kindChaos, &experiments.Items[i]))
	}
	for i := range resizes.Items {
		s.add.Add(keyOf(kindResize, &resizes.Items[i]))
	}
	return err
}
