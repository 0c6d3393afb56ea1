package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
	"github.com/mooring-dev/mooring/cmd/internal/figure"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// stage is what the acts play on. The embedded cluster has the clients of the
// API server, of the node and of the databases.
type stage struct {
	*testbed.Cluster
	cache   *testbed.Cache
	begun   time.Time
	slack   float64 // how much slower than by the usual pace a run may be, from 1
	mu      sync.Mutex
	figures figure.Set

	// resources is made at its first use; before is what the node was like without
	// Mooring. replicated waits until the replicas are Ready, scraped until
	// Prometheus has scraped everything.
	resources  client.Client
	prometheus *testbed.Prometheus
	before     []string
	replicated func() error
	scraped    func() error
}

// act is one part of the story.
type act struct {
	title string
	play  func(context.Context) error
}

// acts are the story, in order.
func (s *stage) acts() []act {
	return []act{
		{"a controller without API server and custom resources", s.withoutResources},
		{"Mooring is installed by one kubectl apply -k", s.install},
		{"the databases are Ready and answer", s.databasesAnswer},
		{"policies make the databases instances, each on a NUMA node", s.declare},
		{"Prometheus has the databases' own counts", s.compareStatements},
		{"the cluster is doubled, replicas first", s.resize},
		{"a replica's network is delayed for 20 s", s.delay},
		{"the primary's writes fail for 5 s", s.breakPrimary},
		{"what must not go is refused", s.refuse},
		{"what an operator sees, and a stranger does not", s.operate},
		{"the agent is upgraded in the middle of an experiment", s.upgrade},
		{"agent and API server are lost in the middle of two faults", s.loseEverything},
		{"uninstalled, the node is as it was", s.uninstall},
	}
}

// checks are the acts of the testbed's own check.
func (s *stage) checks() []act {
	return []act{
		{"the databases are Ready and answer", s.databasesAnswer},
		{"every lever works", s.leversWork},
	}
}

// say prints one line of what happened, with the time since the beginning.
func (s *stage) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("%6.1fs  %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// inside is the run itself, in namespaces of its own. It returns the exit status.
func inside(ctx context.Context, o options) (code int, err error) {
	if len(o.args) != 2 {
		return 2, errors.New("inside is what run and up start: see e2e -h")
	}
	// Mounts made here are not to reach the machine's own namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return 1, fmt.Errorf("separate mounts: %w", err)
	}
	s := &stage{begun: time.Now(), slack: max(1, o.pace.Seconds()/pace.Seconds())}
	if s.cache, err = testbed.OpenCache(os.Getenv); err != nil {
		return 1, err
	}
	defer s.cache.Close()
	b, err := build()
	if err != nil {
		return 1, err
	}
	dir := o.args[1]
	fmt.Printf("== the cluster comes up\n")
	cluster, running, err := testbed.Up(ctx, testbed.Options{
		Cache: s.cache, Dir: dir, Build: b, Kernel: o.kernel, Memory: o.memory, Limit: o.limit, Say: s.say,
	})
	s.Cluster = cluster
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(fmt.Errorf("panic: %v", p), err)
		}
		if err != nil && ctx.Err() == nil {
			s.explain()
		}
		err = errors.Join(err, s.finish(o, err))
		if err != nil {
			code = 1
		}
	}()
	if err == nil {
		s.replicated, err = s.DeployDatabases(running)
	}
	if err == nil && o.args[0] == "run" {
		err = s.prepareInstall(running)
	}
	switch {
	case err != nil:
	case o.args[0] == "run":
		err = s.tell(running, s.acts())
		if err != nil && o.keep {
			s.say("%v", err)
			err = errors.Join(err, s.wait(ctx, running, filepath.Base(dir)))
		}
	case o.args[0] == "check":
		err = s.tell(running, s.checks())
	}
	if err == nil && o.args[0] == "up" {
		err = s.replicated()
	}
	if err == nil && (o.args[0] == "up" || o.keep) {
		err = s.wait(ctx, running, filepath.Base(dir))
	}
	// What broke the cluster says more than what an act saw of it.
	if cause := context.Cause(running); cause != nil && err != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	return 0, err
}

// tell plays the acts in order and stops at the first that cannot go on.
func (s *stage) tell(ctx context.Context, acts []act) error {
	for _, a := range acts {
		fmt.Printf("\n== %s\n", a.title)
		if err := a.play(ctx); err != nil {
			return fmt.Errorf("%s: %w", a.title, errors.Join(err, s.systemLogs(ctx)))
		}
	}
	return nil
}

// wait keeps the cluster until the user ends it.
func (s *stage) wait(ctx, running context.Context, name string) error {
	fmt.Printf("\nthe cluster %s is up until Ctrl-C:\n  bin/e2e kubectl get pods -A\n  bin/e2e sh 'uptime'\n  bin/e2e load\n  eval \"$(bin/e2e env)\"; ip netns exec %s COMMAND\n", name, name)
	<-running.Done()
	if ctx.Err() != nil {
		return nil // the user's wish
	}
	return context.Cause(running)
}

// memoryLimit is what a run may need, in bytes, at its end.
const memoryLimit = 2560 << 20

// finish ends the cluster and prints the figures, after a failure those that
// there are. cause is why it ends, if something went wrong. No phase has a limit of
// its own: where the time went is for the reader.
func (s *stage) finish(o options, cause error) error {
	var machine, control int64
	if s.Machine != nil && s.Control != nil {
		machine, control = s.ResidentMemory()
	}
	var err error
	if o.logs != "" {
		err = s.SaveLogs(o.logs)
	}
	begun := time.Now()
	err = errors.Join(err, s.Down())
	s.say("down: %.1f s", time.Since(begun).Seconds())
	if o.args[0] == "up" {
		return err
	}
	for _, p := range s.Phases() {
		s.figures.AtMost("phase: "+p.Name, p.Took.Seconds(), "s", o.pace.Seconds())
	}
	s.figures.AtMost("memory of the virtual machine", float64(machine>>20), "MiB", memoryLimit>>20)
	s.figures.AtMost("memory of the control plane", float64(control>>20), "MiB", memoryLimit>>20)
	s.figures.AtMost("memory in all", float64((machine+control)>>20), "MiB", memoryLimit>>20)
	s.figures.AtMost("the whole run", time.Since(s.begun).Seconds(), "s", o.pace.Seconds())
	fmt.Println()
	err = errors.Join(err, s.figures.Print(os.Stdout))
	switch {
	case cause != nil || err != nil:
	case !s.figures.OK():
		err = errors.New("some checks failed")
	default:
		fmt.Println("\nall checks passed")
	}
	return err
}

// explain prints what the cluster knows of itself before it ends.
func (s *stage) explain() {
	fmt.Fprintln(os.Stderr, "\ne2e: what the cluster says of itself:")
	for _, l := range s.Report() {
		fmt.Fprintln(os.Stderr, l)
	}
}
