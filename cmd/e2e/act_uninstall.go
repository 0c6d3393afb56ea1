package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// uninstall takes Mooring off the cluster by the steps of deploy/README.md and
// compares the node with what it was before.
func (s *stage) uninstall(ctx context.Context) error {
	for _, args := range [][]string{
		{"delete", "chaosexperiments,instanceresizes", "-A", "--all", "--timeout", "60s"},
		{"delete", "databasepolicies", "-A", "--all", "--timeout", "60s"},
		{"delete", "-n", system, "daemonset/mooring-agent", "deployment/mooring-controller"},
		{"wait", "-n", system, "pod", "-l", "app.kubernetes.io/part-of=mooring", "--for=delete", "--timeout=2m"},
	} {
		if _, err := s.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	if err := s.cleanNodes(ctx); err != nil {
		return err
	}
	out, err := s.Kubectl(ctx, "delete", "-k", filepath.Join(s.Dir, "install"), "--ignore-not-found", "--timeout", "120s")
	if err != nil {
		return err
	}
	s.say("kubectl delete -k: %d objects", len(strings.Split(out, "\n")))
	var left []string
	err = s.Eventually(ctx, 30*time.Second, "the node to be as it was", func(ctx context.Context) error {
		now, err := s.traces(ctx)
		if err != nil {
			return err
		}
		if left = difference(s.before, now); len(left) > 0 {
			return fmt.Errorf("%d lines differ", len(left))
		}
		return nil
	})
	if err != nil {
		s.say("%v", err)
	}
	for _, l := range left {
		s.say("  %s", l)
	}
	s.figures.Equal("differences of the node from before the installation", float64(len(left)), "", 0)
	return nil
}

const cleanupOverlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../deploy/uninstall]
images:
  - {name: mooring-agent, newName: mooring.local/mooring-agent, newTag: e2e}
`

// cleanNodes has every node undo what its agents left.
func (s *stage) cleanNodes(ctx context.Context) error {
	dir := filepath.Join(s.Dir, "cleanup")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(cleanupOverlay), 0o644); err != nil {
		return fmt.Errorf("write overlay: %w", err)
	}
	if _, err := s.Kubectl(ctx, "apply", "-k", dir); err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, "rollout", "status", "daemonset/mooring-uninstall", "-n", system, "--timeout", "120s"); err != nil {
		return err
	}
	out, err := s.Kubectl(ctx, "logs", "-n", system, "daemonset/mooring-uninstall", "-c", "clean")
	if err != nil {
		return err
	}
	s.show("kubectl logs -n mooring-system daemonset/mooring-uninstall -c clean", out)
	for _, args := range [][]string{
		{"delete", "-k", dir, "--timeout", "120s"},
		{"wait", "-n", system, "pod", "-l", "app.kubernetes.io/name=mooring-uninstall", "--for=delete", "--timeout=2m"},
	} {
		if _, err := s.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// difference lists what is only in one of two sorted lists.
func difference(before, now []string) []string {
	var out []string
	for _, l := range before {
		if !slices.Contains(now, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range now {
		if !slices.Contains(before, l) {
			out = append(out, "+ "+l)
		}
	}
	return out
}
