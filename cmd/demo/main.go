// Command demo shows the agent at work on two real databases and checks what
// it did. It runs as root in the virtual machine that `make demo` boots:
// PostgreSQL and MariaDB, each in a cgroup and network namespace of its own as
// in pods, serve pgbench and sysbench while an agent places, resizes and breaks
// them. Every line of the table at the end is computed from the kernel's files,
// from /metrics or from the databases' own counters.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/cmd/internal/figure"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d, err := newDemo(ctx)
	if d != nil {
		defer d.close()
	}
	if err == nil {
		err = d.play(ctx)
	}
	if d != nil && len(d.steps) > 0 {
		fmt.Println()
		if perr := d.figures.Print(os.Stdout); perr != nil {
			err = perr
		}
	}
	if err != nil {
		if d != nil && d.agent != nil {
			fmt.Println(d.agent.log())
		}
		// Last, and in the same stream as the rest: whoever sees but the end of a
		// long output sees why.
		fmt.Println("demo:", err)
		return 1
	}
	if !d.figures.OK() {
		fmt.Println("demo: some checks failed")
		return 1
	}
	fmt.Println("\nall checks passed")
	return 0
}

// demo is the stage: two databases, their load and the agent.
type demo struct {
	bin     string
	start   time.Time
	figures figure.Set
	steps   []string
	orders  *database
	ledger  *database
	agent   *agentProcess
}

func newDemo(ctx context.Context) (*demo, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own binary: %w", err)
	}
	if os.Getenv("VMTEST") != "1" {
		return nil, fmt.Errorf("this makes cgroups and network namespaces and breaks databases on purpose: run it by `make demo`, in the virtual machine")
	}
	d := &demo{bin: filepath.Dir(self), start: time.Now()}
	return d, d.setUp(ctx)
}

// play runs the acts in order and stops at the first that cannot go on.
func (d *demo) play(ctx context.Context) error {
	acts := []struct {
		title string
		act   func(context.Context) error
	}{
		{"the agent finds both databases", d.find},
		{"statements are counted exactly", d.count},
		{"each is pinned to a NUMA node of its own", d.pin},
		{"orders is doubled and halved under load", d.resize},
		{"the network of ledger is delayed for 10 s", d.delayNetwork},
		{"writes of orders fail for 5 s", d.failWrites},
		{"the agent is killed in the middle of a network fault", d.killInDelay},
		{"the agent is killed while ledger is frozen", d.killInFreeze},
		{"what the agent itself needs", d.footprint},
	}
	for _, a := range acts {
		d.steps = append(d.steps, a.title)
		fmt.Printf("\n== %s\n", a.title)
		if err := a.act(ctx); err != nil {
			return fmt.Errorf("%s: %w", a.title, err)
		}
	}
	return nil
}

// say prints one line of what happened, with the time since the beginning.
func (d *demo) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}
