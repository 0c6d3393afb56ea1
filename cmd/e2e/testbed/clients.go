package testbed

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
)

// Command returns a command that runs a program of the Debian tree, such as
// psql, pgbench, mariadb, sysbench, redis-cli or promtool's like, on this
// machine. Start it by Start or Output.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	return dbserver.Command(ctx, c.clients.merged, "", name, args...)
}

// Output runs a program of the Debian tree to its end and returns its output
// without blanks around it.
func (c *Cluster) Output(ctx context.Context, name string, args ...string) (string, error) {
	cmd, err := c.Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	out, err := c.launcher.Run(cmd)
	return strings.TrimSpace(out), err
}

// Background starts a program of the Debian tree, such as a load, and leaves it
// running until it ends or is stopped; Down kills it at the latest. Its Log has
// its output.
func (c *Cluster) Background(ctx context.Context, name string, args ...string) (*Process, error) {
	cmd, err := c.Command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	return c.start(name, cmd)
}

// start starts a process that Down kills, with a log of its own.
func (c *Cluster) start(name string, cmd *exec.Cmd) (*Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := filepath.Join(c.Dir, "control", fmt.Sprintf("%s-%d.log", name, len(c.others)))
	p, err := c.launcher.Start(name, log, cmd, nil)
	if err == nil {
		c.others = append(c.others, p)
	}
	return p, err
}

// Kubectl runs kubectl as cluster-admin to its end and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.tool(ctx, "kubectl", args...)
}

// Helm runs helm as cluster-admin to its end and returns its output.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return c.tool(ctx, "helm", args...)
}

func (c *Cluster) tool(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Cache.Kube(name), args...)
	// A home of its own: the user's configuration is not to matter.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.Dir, "KUBECONFIG=" + c.Kubeconfig()}
	return c.launcher.Run(cmd)
}

// PostgreSQL runs SQL on a pod's PostgreSQL, as a client elsewhere would, and
// returns its bare output.
func (c *Cluster) PostgreSQL(ctx context.Context, pod, sql string) (string, error) {
	address, err := c.address(ctx, pod)
	if err != nil {
		return "", err
	}
	return c.PostgreSQLAt(ctx, address, sql)
}

// PostgreSQLAt is PostgreSQL by address, which needs no API server.
func (c *Cluster) PostgreSQLAt(ctx context.Context, address, sql string) (string, error) {
	return c.Output(ctx, "psql", "-h", address, "-U", "postgres", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres")
}

// MariaDB runs SQL on a pod's MariaDB and returns its bare output.
func (c *Cluster) MariaDB(ctx context.Context, pod, sql string) (string, error) {
	address, err := c.address(ctx, pod)
	if err != nil {
		return "", err
	}
	return c.MariaDBAt(ctx, address, sql)
}

// MariaDBAt is MariaDB by address, which needs no API server.
func (c *Cluster) MariaDBAt(ctx context.Context, address, sql string) (string, error) {
	return c.Output(ctx, "mariadb", "--no-defaults", "-h", address, "-u", "root", "-BN", "-e", sql)
}

// Redis runs one command on a pod's Redis and returns its bare output.
func (c *Cluster) Redis(ctx context.Context, pod string, args ...string) (string, error) {
	address, err := c.address(ctx, pod)
	if err != nil {
		return "", err
	}
	return c.RedisAt(ctx, address, args...)
}

// RedisAt is Redis by address, which needs no API server.
func (c *Cluster) RedisAt(ctx context.Context, address string, args ...string) (string, error) {
	return c.Output(ctx, "redis-cli", append([]string{"-h", address}, args...)...)
}

// address is a pod's IP address.
func (c *Cluster) address(ctx context.Context, pod string) (string, error) {
	p, err := c.Pod(ctx, pod)
	if err != nil {
		return "", err
	}
	if p.Status.PodIP == "" {
		return "", fmt.Errorf("pod %s is %s and has no address", pod, p.Status.Phase)
	}
	return p.Status.PodIP, nil
}
