package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
)

// options is what the command line asks for.
type options struct {
	command string
	kernel  string
	memory  string
	limit   time.Duration
	pace    time.Duration
	run     string
	keep    bool
	logs    string
	args    []string
}

// pace is how long a run may take where nothing else is said.
const pace = 6 * time.Minute

const usage = `usage: e2e [flags] [run | up | check | kubectl ARG... | sh SCRIPT | load | env]
  run      the whole story (the default)
  up       bring the cluster and the databases up and keep them until Ctrl-C
  check    bring the cluster up and try what the story needs of it: stops, starts, images, tools
  kubectl  run kubectl as cluster-admin on the cluster that is up
  sh       run a shell script as root in the guest
  load     import bin/mooring-agent and bin/mooring-controller as images into the running node
  env      print what to set and run to enter the cluster's network namespace
flags:
`

func main() { os.Exit(run()) }

func run() int {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := dispatch(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return max(code, 1)
	}
	return code
}

func parse(arguments []string, w io.Writer) (options, error) {
	o := options{command: "run"}
	f := flag.NewFlagSet("e2e", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprint(w, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.kernel, "kernel", "6.1", "kernel of the guest: 5.10, 6.1 or 6.12")
	f.StringVar(&o.memory, "memory", "2G", "memory of the guest, in M or G")
	f.DurationVar(&o.limit, "timeout", 0, "time limit; 0 is 30 minutes for run and 24 hours for up")
	f.DurationVar(&o.pace, "pace", pace, "how long a run may take for its checks to pass; on a longer one a fault may also begin later")
	f.StringVar(&o.run, "run", "", "the run to act on, if several are up")
	f.BoolVar(&o.keep, "keep", false, "after a run, keep the cluster until Ctrl-C")
	f.StringVar(&o.logs, "logs", "", "folder to copy all logs to at the end")
	if err := f.Parse(arguments); err != nil {
		return options{}, err
	}
	if f.NArg() > 0 {
		o.command, o.args = f.Arg(0), f.Args()[1:]
	}
	if o.limit == 0 {
		o.limit = 30 * time.Minute
		if o.command == "up" || o.keep {
			o.limit = 24 * time.Hour
		}
	}
	return o, nil
}

// dispatch runs one command and returns its exit status.
func dispatch(ctx context.Context, o options) (int, error) {
	switch o.command {
	case "run", "up", "check":
		return supervise(ctx, o)
	case insideCommand:
		return inside(ctx, o)
	case "node":
		if len(o.args) != 1 {
			return 2, errors.New("node wants the folder of its credentials")
		}
		return 0, node.Run(ctx, o.args[0])
	case "observe":
		return 0, observeFiles(o.args)
	case "traces":
		return 0, printTraces()
	case "kubectl", "sh", "load", "env":
		return attach(ctx, o)
	case attachedCommand:
		return attached(ctx, o)
	}
	return 2, fmt.Errorf("no command %q: see e2e -h", o.command)
}
