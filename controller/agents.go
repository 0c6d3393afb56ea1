package controller

import (
	"context"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/fleet"
)

// findAgents tells the fleet which agents there are: the pods of the DaemonSet.
func (r *reconciler) findAgents(ctx context.Context) error {
	pods, err := r.agentPods(ctx)
	if err != nil {
		return err
	}
	best := map[string]*corev1.Pod{}
	for i := range pods {
		pod := &pods[i]
		if pod.Spec.NodeName == "" || pod.Status.PodIP == "" || over(pod) {
			continue
		}
		if old := best[pod.Spec.NodeName]; old == nil || newer(pod, old) {
			best[pod.Spec.NodeName] = pod
		}
	}
	var all []fleet.Endpoint
	for node, pod := range best {
		all = append(all, fleet.Endpoint{
			Node: node, Address: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(r.place.port)),
			PodUID: string(pod.UID), Ready: ready(pod),
		})
	}
	r.endpoints(all)
	return nil
}

// newer prefers, where a node has two agents for the moment of an upgrade, the
// one that stays.
func newer(a, b *corev1.Pod) bool {
	if going := a.DeletionTimestamp != nil; going != (b.DeletionTimestamp != nil) {
		return !going
	}
	return b.CreationTimestamp.Before(&a.CreationTimestamp)
}

func (r *reconciler) agentPods(ctx context.Context) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := r.kube.List(ctx, &pods, client.InNamespace(r.place.namespace), client.MatchingLabelsSelector{Selector: r.place.selector})
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	return pods.Items, nil
}
