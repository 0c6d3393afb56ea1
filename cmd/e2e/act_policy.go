package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// policies declare the databases. A single Redis has no majority to keep: its
// owner says that it may be broken all the same.
const policies = `
apiVersion: mooring.dev/v1alpha1
kind: DatabasePolicy
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  engine: postgresql
  clusterLabel: app
  role: {label: role}
  numa: SingleNode
  chaos: {allow: true}
---
apiVersion: mooring.dev/v1alpha1
kind: DatabasePolicy
metadata: {name: ledger, namespace: shop}
spec:
  selector: {matchLabels: {app: ledger}}
  engine: mariadb
  numa: SingleNode
---
apiVersion: mooring.dev/v1alpha1
kind: DatabasePolicy
metadata: {name: cache, namespace: shop}
spec:
  selector: {matchLabels: {app: cache}}
  engine: redis
  numa: SingleNode
  chaos: {allow: true, maxAffected: 1}
`

// declare makes the pods instances by policies, and checks in the kernel's
// files that each is pinned with its memory.
func (s *stage) declare(ctx context.Context) error {
	begun := time.Now()
	if err := s.Apply(ctx, []byte(policies)); err != nil {
		return err
	}
	if err := s.applied(ctx, 2*time.Minute); err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	s.say("all policies are applied %.1f s after they were made", took)
	s.figures.AtMost("policies applied: found, declared, pinned", took, "s", 60)
	out, err := s.program(ctx, s.ctl(), "instances", "-n", testbed.Namespace)
	if err != nil {
		return err
	}
	s.show("kubectl mooring instances -n "+testbed.Namespace, out)
	for _, pod := range databasePods() {
		if err := s.pinned(ctx, pod); err != nil {
			return err
		}
	}
	return nil
}

// applied waits until every policy is in force on all its pods.
func (s *stage) applied(ctx context.Context, limit time.Duration) error {
	c, err := s.mooring()
	if err != nil {
		return err
	}
	for name, pods := range map[string]int32{"orders": 3, "ledger": 1, "cache": 1} {
		if err := s.Eventually(ctx, limit, "policy "+name+" to be applied", func(ctx context.Context) error {
			var p v1alpha1.DatabasePolicy
			if err := c.Get(ctx, types.NamespacedName{Namespace: testbed.Namespace, Name: name}, &p); err != nil {
				return err
			}
			if err := isTrue(p.Status.Conditions, v1alpha1.PolicyApplied); err != nil {
				return err
			}
			if p.Status.Ready != pods {
				return fmt.Errorf("%d of %d pods are ready", p.Status.Ready, pods)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// pinned checks by the kernel's word that a pod is on one node with its memory.
func (s *stage) pinned(ctx context.Context, pod string) error {
	values, err := s.control(ctx, pod, "cpuset.mems.effective", "cpuset.cpus.effective", "memory.numa_stat")
	if err != nil {
		return err
	}
	node, err := strconv.Atoi(values[0])
	if err != nil {
		s.figures.Equal(pod+" may use one NUMA node", 0, "", 1)
		s.say("%s may use the memory of nodes %q", pod, values[0])
		return nil
	}
	// The policy counts as applied once the pod is confined; its memory may still
	// be on its way.
	share := onNode(values[2], node)
	err = s.Eventually(ctx, 60*time.Second, pod+"'s memory to be on its NUMA node", func(ctx context.Context) error {
		stat, err := s.control(ctx, pod, "memory.numa_stat")
		if err != nil {
			return err
		}
		if share = onNode(stat[0], node); share < 0.95 {
			return fmt.Errorf("%.1f %% of it is", 100*share)
		}
		return nil
	})
	if err != nil {
		s.say("%v", err)
	}
	s.say("%s: CPUs %s, memory of node %d, %.1f %% of it there", pod, values[1], node, 100*share)
	s.figures.AtLeast(pod+" memory on its NUMA node, by memory.numa_stat", share, "", 0.95)
	return nil
}

// onNode is the share of anonymous and shared memory on a node.
func onNode(stat string, node int) float64 {
	var there, all float64
	for line := range strings.Lines(stat) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "anon" && f[0] != "shmem" {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				continue
			}
			all += n
			if k == "N"+strconv.Itoa(node) {
				there += n
			}
		}
	}
	return there / all
}

// ctl is the plug-in of kubectl.
func (s *stage) ctl() string { return s.Build.Bin + "/kubectl-mooring" }

// show prints a command of the operator's with what it printed.
func (s *stage) show(command, out string) {
	s.say("$ %s", command)
	for line := range strings.Lines(out) {
		fmt.Print("         ", line)
	}
	fmt.Println()
}
