package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
)

// nodeLogs are the guest's own.
func nodeLogs() []string { return []string{node.Kubelet, node.Containerd} }

// Report says what is known of a cluster that broke: the ends of the logs, and
// of what the node still tells.
func (c *Cluster) Report() []string {
	var lines []string
	if c.Machine != nil {
		lines = append(lines, "-- "+c.Machine.Log, strings.TrimSpace(tail(c.Machine.Log, 8192)))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, name := range nodeLogs() {
			r, err := c.Node.Run(ctx, "grep -E '^E|error|fatal' /var/log/node/"+name+" | tail -n 15")
			if err == nil {
				lines = append(lines, "-- errors in the log of "+name, strings.TrimSpace(r.Stdout))
			}
		}
	}
	if c.Control != nil {
		for _, p := range c.Control.processes() {
			lines = append(lines, "-- "+p.Log, strings.TrimSpace(tail(p.Log, 1500)))
		}
	}
	return lines
}

// SaveLogs copies every log of the cluster to a folder: those of the processes
// here, of the node, of its kernel and of its pods. What the node no longer tells
// is left out.
func (c *Cluster) SaveLogs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder for logs: %w", err)
	}
	var errs []error
	files, err := filepath.Glob(filepath.Join(c.Dir, "*", "*.log"))
	errs = append(errs, err)
	if c.Machine != nil {
		files = append(files, c.Machine.Log)
	}
	for _, f := range files {
		errs = append(errs, copyFile(f, filepath.Join(dir, filepath.Base(f))))
	}
	if c.Machine == nil {
		return errors.Join(errs...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, name := range nodeLogs() {
		if b, err := c.Node.ReadFile(ctx, "/var/log/node/"+name); err == nil {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name+".log"), b, 0o644))
		}
	}
	for name, script := range map[string]string{
		"kernel.log": "dmesg",
		"pods.log":   "cd /var/log/pods && tail -n +1 */*/*.log",
	} {
		if r, err := c.Node.Run(ctx, script); err == nil {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(r.Stdout+r.Stderr), 0o644))
		}
	}
	return errors.Join(errs...)
}
