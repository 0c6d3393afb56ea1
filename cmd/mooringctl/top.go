package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/explain"
	"github.com/mooring-dev/mooring/agent/trend"
	"github.com/mooring-dev/mooring/cmd/mooringctl/screen"
)

// maxCounters is the size of the largest answer: 50 instances of 500 digests.
const maxCounters = 64 << 20

// top is one invocation of `mooringctl top`.
type top struct {
	client   *client
	interval time.Duration
	once     bool
	sort     string
	instance string
	digests  int

	// old and now are the last two looks that differ.
	old, now *agentpb.CountersReply
}

func (c *client) topCommand() *cobra.Command {
	t := &top{client: c}
	cmd := &cobra.Command{
		Use:   "top [INSTANCE]",
		Short: "Watch instances, their heaviest statements and what they wait for",
		Long: "top shows what happened between two looks at the agent's counters: instances, then the digests with the\n" +
			"most load, then how many on average waited, and for what. LOAD is the average number of statements at work.\n" +
			"CPU% and MEM% are of the limit (cores, as 1.5c, where there is none); THR% is the CPU time withheld by cpu.max of\n" +
			"what was wanted; BLK% the statement time in which the server waited for clients to take replies. \"-\" is not measured.\n\n" +
			"Keys: s sorts by the next figure, q quits. Without a terminal frames are printed one below the other.",
		Example: "  mooringctl top\n  mooringctl top orders-db --interval 5s --sort mean\n  mooringctl top --once -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				t.instance = args[0]
			}
			if err := t.check(); err != nil {
				return err
			}
			return c.call(cmd.Context(), t.run)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&t.interval, "interval", time.Second, "time between two looks")
	f.BoolVar(&t.once, "once", false, "print one frame and end")
	f.StringVar(&t.sort, "sort", "load", "order: "+strings.Join(screen.Sorts(), ", "))
	f.IntVar(&t.digests, "digests", 20, "how many digests to show")
	return cmd
}

func (t *top) check() error {
	switch {
	case t.interval < 100*time.Millisecond:
		return fmt.Errorf("--interval %v is shorter than 100ms", t.interval)
	case !slices.Contains(screen.Sorts(), t.sort):
		return fmt.Errorf("--sort %q is none of %s", t.sort, strings.Join(screen.Sorts(), ", "))
	case t.digests < 0:
		return fmt.Errorf("--digests %d must not be negative", t.digests)
	}
	return nil
}

func (t *top) run(ctx context.Context, a agentpb.AgentClient) error {
	if err := t.look(ctx, a); err != nil {
		return err
	}
	// A first frame without rates would say nothing.
	if err := t.wait(ctx, a); err != nil || ctx.Err() != nil {
		return err
	}
	if t.once {
		f := t.frame(t.sort)
		return t.print(&f)
	}
	next := func(ctx context.Context, sort string) (screen.Frame, error) {
		err := t.look(ctx, a)
		return t.frame(sort), err
	}
	if t.client.format == "json" {
		return t.stream(ctx, next)
	}
	live := screen.Live{Out: t.client.out, In: os.Stdin, Interval: t.interval, Sort: t.sort, Next: next}
	return live.Run(ctx)
}

// wait looks until there are two different looks; the agent takes a new one at
// each of its ticks.
func (t *top) wait(ctx context.Context, a agentpb.AgentClient) error {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for end := time.Now().Add(t.client.timeout); t.old == nil; {
		if time.Now().After(end) {
			return &localError{fmt.Errorf("top: the agent took no new look in %v; see `mooringctl status`", t.client.timeout)}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := t.look(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// look asks for the counters. An answer as old as the one before is left out.
func (t *top) look(ctx context.Context, a agentpb.AgentClient) error {
	ctx, cancel := context.WithTimeout(ctx, t.client.timeout)
	defer cancel()
	r, err := a.Counters(ctx, &agentpb.CountersRequest{Instance: t.instance}, grpc.MaxCallRecvMsgSize(maxCounters))
	if err != nil {
		return err
	}
	if t.now == nil {
		t.now = r
	} else if !r.GetTime().AsTime().Equal(t.now.GetTime().AsTime()) {
		t.old, t.now = t.now, r
	}
	return nil
}

func (t *top) frame(sort string) screen.Frame {
	var old []trend.Sample
	at := t.now.GetTime().AsTime()
	interval := time.Duration(0)
	if t.old != nil {
		old = screen.Samples(t.old)
		interval = max(0, at.Sub(t.old.GetTime().AsTime()))
	}
	f := screen.Build(old, screen.Samples(t.now), t.digests, sort)
	f.Time, f.Node, f.Agent, f.Probe, f.Interval = at, t.now.GetNodeName(), t.now.GetVersion(), t.now.GetProbe().GetMode(), interval.Seconds()
	return f
}

// stream prints a JSON object a line, one for each interval.
func (t *top) stream(ctx context.Context, next func(context.Context, string) (screen.Frame, error)) error {
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for {
		f, err := next(ctx, t.sort)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.print(&f); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (t *top) print(f *screen.Frame) error {
	if t.client.format != "json" {
		_, err := fmt.Fprintln(t.client.out, strings.Join(f.Lines(columns(t.client.out, 1<<20)), "\n"))
		return err
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	_, err = fmt.Fprintln(t.client.out, string(b))
	return err
}

// columns is the width of the terminal behind out, or otherwise.
func columns(out any, otherwise int) int {
	if f, ok := out.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return otherwise
}

func (c *client) explainCommand() *cobra.Command {
	var since time.Duration
	var b strings.Builder
	for _, l := range explain.Limits() {
		fmt.Fprintf(&b, "  %s\n", l)
	}
	cmd := &cobra.Command{
		Use:   "explain INSTANCE",
		Short: "Say what is wrong with an instance, with the evidence and a next step",
		Long: "explain prints one page: findings, the worst first, then what was looked at and what is not measured. The agent\n" +
			"keeps ten minutes in steps of ten seconds and five hours in steps of five minutes; with them it tells since when a\n" +
			"finding holds, and what is normal for the instance (the lower quartile of that history).\n\n" +
			"Thresholds:\n" + b.String(),
		Example: "  mooringctl explain orders-db\n  mooringctl explain orders-db --since 30m -o json",
		Args:    exactly("an INSTANCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.once(cmd.Context(), func(ctx context.Context, a agentpb.AgentClient) error {
				r, err := a.Explain(ctx, &agentpb.ExplainRequest{Instance: args[0], Since: durationpb.New(since)})
				if err != nil {
					return err
				}
				if c.format == "json" {
					return c.json(r)
				}
				return screen.WritePage(c.out, r, columns(c.out, 110), time.Local)
			})
		},
	}
	cmd.Flags().DurationVar(&since, "since", explain.DefaultSince, "how far back to look, from 30s to 6h")
	return cmd
}
