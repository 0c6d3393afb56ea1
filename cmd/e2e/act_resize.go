package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const doubled = `
apiVersion: mooring.dev/v1alpha1
kind: InstanceResize
metadata: {name: orders-doubled, namespace: shop}
spec:
  target: {policy: orders, cluster: orders}
  resources: {cpu: 800m, memory: 512Mi}
`

// resize doubles the cluster under load: the replicas one by one, then the
// primary.
func (s *stage) resize(ctx context.Context) error {
	before := map[string]int32{}
	for _, pod := range ordersPods() {
		n, err := s.restarts(ctx, pod)
		if err != nil {
			return err
		}
		before[pod] = n
	}
	load, err := s.loadOrders(ctx)
	if err != nil {
		return err
	}
	if err := s.Apply(ctx, []byte(doubled)); err != nil {
		return err
	}
	r, err := s.resized(ctx, "orders-doubled", 3*time.Minute)
	if err != nil {
		return err
	}
	s.say("resize: %s, %s", r.Status.Phase, r.Status.Progress)
	var order []string
	for _, t := range r.Status.Targets {
		s.say("%s (%s): %s by %s in %.1f s: %s", t.Pod, t.Role, t.State, t.Method, t.FinishedAt.Sub(t.StartedAt.Time).Seconds(), t.Message)
		order = append(order, t.Pod)
	}
	s.figures.Equal("resize is complete", truth(r.Status.Phase == v1alpha1.ResizeDone), "", 1)
	s.figures.Equal("replicas were resized before the primary", truth(slices.Equal(order, []string{"orders-1", "orders-2", "orders-0"})), "", 1)
	for _, pod := range ordersPods() {
		values, err := s.control(ctx, pod, "cpu.max", "memory.max", "cpuset.mems.effective")
		if err != nil {
			return err
		}
		s.figures.Equal(pod+" cpu.max and memory.max in the kernel", truth(values[0] == "80000 100000" && values[1] == "536870912"), "", 1)
		s.figures.Equal(pod+" is still on one NUMA node", truth(len(values[2]) == 1), "", 1)
		n, err := s.restarts(ctx, pod)
		if err != nil {
			return err
		}
		s.figures.Equal(pod+" restarts by the resize", float64(n-before[pod]), "", 0)
	}
	failed, err := load()
	if err != nil {
		return err
	}
	s.figures.Equal("statements that failed while the cluster was resized", failed, "", 0)
	return s.compareWriters(ctx)
}

func ordersPods() []string { return []string{"orders-0", "orders-1", "orders-2"} }

// resized waits until a resize is over.
func (s *stage) resized(ctx context.Context, name string, limit time.Duration) (*v1alpha1.InstanceResize, error) {
	c, err := s.mooring()
	if err != nil {
		return nil, err
	}
	r := &v1alpha1.InstanceResize{}
	return r, s.Eventually(ctx, limit, "resize "+name+" to be over", func(ctx context.Context) error {
		if err := c.Get(ctx, types.NamespacedName{Namespace: testbed.Namespace, Name: name}, r); err != nil {
			return err
		}
		switch r.Status.Phase {
		case v1alpha1.ResizeDone, v1alpha1.ResizeRolledBack, v1alpha1.ResizeFailed, v1alpha1.ResizeRefused:
			return nil
		}
		return fmt.Errorf("it is %q (%s): %v", r.Status.Phase, r.Status.Progress, r.Status.Conditions)
	})
}

var failedTransactions = regexp.MustCompile(`number of failed transactions: (\d+)`)

// loadOrders writes to the primary and reads from a replica, 10 transactions a
// second each, which leaves processor time for what is watched. The function
// returned ends the load and returns how many transactions failed.
func (s *stage) loadOrders(ctx context.Context) (func() (float64, error), error) {
	type result struct {
		failed float64
		err    error
	}
	results := make(chan result, 2)
	var over atomic.Bool
	for _, one := range []struct {
		pod  string
		args []string
	}{{"orders-0", []string{"-n"}}, {"orders-1", []string{"-n", "-S"}}} {
		address, err := s.serverAddress(ctx, one.pod)
		if err != nil {
			return nil, err
		}
		args := append(one.args, "-c", "2", "-R", "10", "-T", "3", "-h", strings.TrimSuffix(address, ":5432"), "-U", "postgres", "postgres")
		go func() {
			var r result
			for r.err == nil && !over.Load() {
				var n float64
				n, r.err = s.pgbench(ctx, args)
				r.failed += n
			}
			if r.err != nil {
				r.err = fmt.Errorf("load %s: %w", one.pod, r.err)
			}
			results <- r
		}()
	}
	return func() (float64, error) {
		over.Store(true)
		a, b := <-results, <-results
		return a.failed + b.failed, errors.Join(a.err, b.err)
	}, nil
}

// pgbench returns how many transactions of one run failed.
func (s *stage) pgbench(ctx context.Context, args []string) (failed float64, err error) {
	out, err := s.Output(ctx, "pgbench", args...)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	m := failedTransactions.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench printed no count of failures: %s", out)
	}
	_, err = fmt.Sscan(m[1], &failed)
	return failed, err
}

// compareWriters times the kubelet's in-place resize and the agent's own writes
// on the same pod, from the call to the last write of a cgroup file.
func (s *stage) compareWriters(ctx context.Context) error {
	if err := s.bringCtl(ctx); err != nil {
		return err
	}
	p, err := s.Pod(ctx, "ledger-0")
	if err != nil {
		return err
	}
	dir, err := cgroupDir(p)
	if err != nil {
		return err
	}
	files := []string{path.Join(dir, "cpu.max"), path.Join(dir, "memory.max"), path.Join(path.Dir(dir), "cpu.max"), path.Join(path.Dir(dir), "memory.max")}
	time1, err := s.timeWrites(ctx, files, func() error {
		_, err := s.Kubectl(ctx, "patch", "pod", "ledger-0", "-n", testbed.Namespace, "--subresource", "resize", "-p",
			`{"spec":{"containers":[{"name":"mariadb","resources":{"limits":{"cpu":"600m","memory":"320Mi"}}}]}}`)
		return err
	})
	if err != nil {
		return fmt.Errorf("by the kubelet: %w", err)
	}
	time2, err := s.timeWrites(ctx, files, func() error {
		_, err := s.Node.Must(ctx, s.guestCtl()+" resize shop/ledger-0/mariadb --cpu 700m --memory 352Mi --raw")
		return err
	})
	if err != nil {
		return fmt.Errorf("by the agent: %w", err)
	}
	s.say("in-place resize, call to last cgroup write: kubelet %.2f s, agent %.2f s", time1, time2)
	s.figures.AtMost("in-place resize by the kubelet, call to last cgroup write", time1, "s", 30)
	s.figures.AtMost("resize by the agent, call to last cgroup write", time2, "s", 5)
	return nil
}

// timeWrites returns the seconds from the beginning of call to the last change
// of the files.
func (s *stage) timeWrites(ctx context.Context, files []string, call func() error) (float64, error) {
	type observation struct {
		all []seen
		err error
	}
	// The observer reads everything once before the call, however long it takes to
	// start.
	const ready = "/tmp/observed"
	if _, err := s.Node.Must(ctx, "rm -f "+ready); err != nil {
		return 0, err
	}
	done := make(chan observation, 1)
	go func() {
		all, err := s.observe(ctx, 60*time.Second, ready, files...)
		done <- observation{all, err}
	}()
	if err := s.Eventually(ctx, 30*time.Second, "the observer to be ready", func(ctx context.Context) error {
		_, err := s.Node.ReadFile(ctx, ready)
		return err
	}); err != nil {
		return 0, errors.Join(err, (<-done).err)
	}
	begun := time.Now()
	if err := call(); err != nil {
		<-done
		return 0, err
	}
	o := <-done
	if o.err != nil {
		return 0, o.err
	}
	last := o.all[len(o.all)-1].Time
	if len(o.all) < 2*len(files) { // each file's first value, and at least one more
		return 0, fmt.Errorf("only %d of %d files changed: %v", len(o.all)-len(files), len(files), o.all)
	}
	return last.Sub(begun).Seconds(), nil
}

// guestCtl is mooringctl as it is run on the node.
func (s *stage) guestCtl() string {
	return guestProgram + " --socket /run/mooring/agent.sock"
}

// guestProgram is where mooringctl is put on the node, as its operator would.
const guestProgram = "/tmp/mooringctl"

// bringCtl puts mooringctl on the node.
func (s *stage) bringCtl(ctx context.Context) error {
	f, err := os.Open(filepath.Join(s.Build.Bin, "mooringctl"))
	if err != nil {
		return fmt.Errorf("open mooringctl: %w", err)
	}
	defer f.Close()
	if err := s.Node.WriteFile(ctx, guestProgram, f); err != nil {
		return err
	}
	_, err = s.Node.Must(ctx, "chmod 755 "+guestProgram)
	return err
}
