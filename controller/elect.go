package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leaseName is the Lease that controllers compete for.
const leaseName = "mooring-controller"

// A crashed leader must be replaced before the leases of its faults run out. The
// last renewal of a fault can be 5 s old then, which leaves 10 s of its 15 s: 7 s
// for the Lease to expire, about 1 s until another controller has seen that, and
// the rest to connect. A leader that stops in order hands over at once.
const (
	leaseDuration = 7 * time.Second
	renewDeadline = 5 * time.Second
	retryPeriod   = 500 * time.Millisecond
)

// elect runs for leader, leads, and runs again after it lost the lease, until ctx
// ends. Losing the lease is no reason to end the process: that would throw away a
// cache that is in order, and kubelet's back-off would keep a controller away
// from a cluster whose API server had a bad minute.
func (c *Controller) elect(ctx context.Context) error {
	if !c.opts.LeaderElect {
		// Alone, each start is a takeover.
		c.lead(ctx, epochOf(time.Now(), 0))
		return nil
	}
	config := rest.CopyConfig(c.opts.Config)
	config.Timeout = renewDeadline / 2
	leases, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client for leases: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: c.opts.Namespace, Name: leaseName},
		Client:     leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.opts.Identity},
	}
	for ctx.Err() == nil {
		if err := c.term(ctx, lock, leases); err != nil {
			return err
		}
	}
	return nil
}

// term runs for leader once and leads for as long as the lease is held. The lease
// is given back only when nothing is under way any more.
func (c *Controller) term(ctx context.Context, lock resourcelock.Interface, leases coordinationv1.LeasesGetter) error {
	// held ends after ctx, when the work has ended.
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var working sync.WaitGroup
	var mu sync.Mutex // orders the beginning of the work with its being called off
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		working.Wait()
		release()
	})
	defer stop()
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: leaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(term context.Context) {
				mu.Lock()
				if ctx.Err() != nil {
					mu.Unlock()
					return
				}
				working.Add(1)
				mu.Unlock()
				defer working.Done()
				both, cancel := context.WithCancel(term)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				if epoch, ok := c.readEpoch(both, leases); ok {
					c.lead(both, epoch)
				}
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(id string) {
				c.log.Info("leader elected", "component", "controller", "leader", id)
			},
		},
	})
	if err != nil {
		return fmt.Errorf("run for leader: %w", err)
	}
	elector.Run(held)
	working.Wait()
	return nil
}

// readEpoch reads the fencing epoch back from the Lease that was just taken. It
// returns false when the lease was lost before.
func (c *Controller) readEpoch(ctx context.Context, leases coordinationv1.LeasesGetter) (uint64, bool) {
	for ctx.Err() == nil {
		l, err := leases.Leases(c.opts.Namespace).Get(ctx, leaseName, metav1.GetOptions{})
		if err == nil && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == c.opts.Identity {
			transitions := int32(0)
			if t := l.Spec.LeaseTransitions; t != nil {
				transitions = *t
			}
			return epochOf(l.CreationTimestamp.Time, transitions), true
		}
		if err != nil && ctx.Err() == nil {
			c.log.Warn("lease not read", "component", "controller", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPeriod):
		}
	}
	return 0, false
}

// epochOf grows with every takeover, also when the Lease was deleted and made
// again: it is when the Lease was made, and how often it changed hands since.
func epochOf(created time.Time, transitions int32) uint64 {
	const bits = 20
	return uint64(created.Unix())<<bits | uint64(transitions)&(1<<bits-1)
}
