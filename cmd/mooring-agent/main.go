// Command mooring-agent is the agent of one node. It finds the database
// instances there, exports their statement latencies and carries out what
// mooringctl and the controller ask for.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/mooring-dev/mooring/agent"
	"github.com/mooring-dev/mooring/agent/keeper"
	"github.com/mooring-dev/mooring/cmd/internal/calm"
	"github.com/mooring-dev/mooring/exporter"
)

// version is set by the linker.
var version = "dev"

// memoryGoal is what the garbage collector works towards: well below the
// 100 MiB the agent is allowed, and above what it needs with many instances.
const memoryGoal = 72 << 20

func main() { os.Exit(start(os.Args[1:], os.Stdout, os.Stderr)) }

// start is run, in the host's cgroup namespace.
func start(args []string, stdout, stderr io.Writer) int {
	if err := joinHostCgroups(args); err != nil {
		fmt.Fprintln(stderr, "mooring-agent:", err)
		return 1
	}
	return run(args, stdout, stderr)
}

// run returns the exit status: 0 done, 1 something failed, 2 wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	cmd := root(stdout, stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "mooring-agent:", err)
	var failed *runError
	if errors.As(err, &failed) {
		return 1
	}
	fmt.Fprintln(stderr, "run `mooring-agent --help` for the flags")
	return 2
}

// runError is a failure after the flags were understood.
type runError struct{ err error }

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

func root(stdout, stderr io.Writer) *cobra.Command {
	cfg := agent.Default()
	cfg.Version = version
	var check, logJSON bool
	cmd := &cobra.Command{
		Use:   "mooring-agent",
		Short: "Keep the database instances of this node steady",
		Long: "mooring-agent finds the database instances of this node, times their statements in the kernel,\n" +
			"and places, resizes and breaks them when asked through mooringctl or by mooring-controller. It needs root.",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return err
			}
			log := logger(stderr, logJSON)
			if check {
				return wrap(doctor(cmd.Context(), cfg, stdout))
			}
			return wrap(serve(cmd.Context(), cfg, log))
		},
	}
	configFlags(cmd.Flags(), &cfg)
	f := cmd.Flags()
	f.BoolVar(&check, "check", false, "fire every probe, print what this node can do, and exit")
	f.BoolVar(&logJSON, "log-json", false, "log JSON lines")
	cmd.AddCommand(keeperCommand(), uninstallCommand(&cfg, stderr))
	return cmd
}

// configFlags makes every field of the configuration a flag.
func configFlags(f *pflag.FlagSet, c *agent.Config) {
	f.StringVar(&c.NodeName, "node", c.NodeName, "name of this node, as Kubernetes knows it")
	f.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory of the journal; must survive restarts")
	f.StringVar(&c.Socket, "socket", c.Socket, "unix socket on which mooringctl is served")
	f.StringVar(&c.Listen, "listen", c.Listen, "TCP address on which controllers are served over mutual TLS (default: none)")
	f.StringVar(&c.TLSDir, "tls-dir", c.TLSDir, "directory of tls.crt, tls.key and ca.crt for --listen; read again when they change")
	f.StringVar(&c.ControllerName, "controller-name", c.ControllerName, "DNS name that a controller's certificate must carry")
	f.StringVar(&c.MetricsAddress, "metrics", c.MetricsAddress, "TCP address of /metrics, /healthz and /readyz")
	f.BoolVar(&c.Kubernetes, "kubernetes", c.Kubernetes, "also find instances among this node's pods")
	f.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "file to reach the API server with (default: in-cluster)")
	f.StringVar(&c.Probe, "probe", c.Probe, "statement probe: auto, fentry, tracepoint or off")
	f.StringVar(&c.ProbeLogins, "probe-logins", c.ProbeLogins, "file (mode 0600) of logins for active probes of instances outside Kubernetes (default: none are probed)")
	f.StringVar(&c.ProcRoot, "proc-root", c.ProcRoot, "where the host's proc file system is")
	f.StringVar(&c.SysRoot, "sys-root", c.SysRoot, "where the host's sysfs is")
	f.StringVar(&c.CgroupRoot, "cgroup-root", c.CgroupRoot, "where the host's cgroup file system is")
	f.StringVar(&c.Records, "records", c.Records, "where slow, failed and audited statements go as JSON lines: stdout or the absolute path of a file (default: only to mooringctl records)")
	f.IntVar(&c.Statements.Top, "digests", c.Statements.Top, "how many statement digests of an instance are shown, 0 to 500; a policy may say otherwise")
	f.BoolVar(&c.Statements.NoText, "no-digest-text", c.Statements.NoText, "keep normalised statement texts out of metrics and records; a policy may say otherwise")
	f.DurationVar(&c.Statements.Slow, "slow-threshold", c.Statements.Slow, "time from which a statement is counted and recorded as slow, 0 for none; a policy may say otherwise")
	f.StringSliceVar(&c.Audit, "audit", c.Audit, "what is recorded whatever it takes: session, read, write, ddl, all (default: nothing); a policy may say otherwise")
	f.DurationVar(&c.Tick, "tick", c.Tick, "how often counters are read")
	f.DurationVar(&c.Discover, "discover", c.Discover, "how often instances are looked for")
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return &runError{err}
}

// keeperCommand is how the agent starts the process that ends a freeze in its
// stead; people have no use for it.
func keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    keeper.Command + " MARKER",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return wrap(keeper.Main(args[0])) },
	}
}

// librarySaysAgain is how often client-go may repeat a message.
const librarySaysAgain = 30 * time.Second

func logger(w io.Writer, asJSON bool) *slog.Logger {
	var h slog.Handler = slog.NewTextHandler(w, nil)
	if asJSON {
		h = slog.NewJSONHandler(w, nil)
	}
	log := slog.New(h)
	klog.SetSlogLogger(slog.New(calm.New(h, librarySaysAgain)).With("component", "client-go"))
	return log
}

// serve is the boot order: what an earlier agent left is undone, then the
// socket and /metrics open, then the node is probed and watched.
func serve(ctx context.Context, cfg agent.Config, log *slog.Logger) error {
	debug.SetMemoryLimit(memoryGoal)
	if os.Geteuid() != 0 {
		return errors.New("must run as root: it loads BPF programs and writes cgroup files")
	}
	a, err := agent.New(cfg, log)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.MetricsAddress)
	if err != nil {
		a.Close()
		return fmt.Errorf("listen for metrics: %w; choose another --metrics address", err)
	}
	defer l.Close()
	e := exporter.New(a, a.ClassicBounds(), exporter.WithTick(cfg.Tick), exporter.WithProtocol(a.Protocol()), exporter.WithLogger(log))
	log.Info("agent started", "component", "agent", "node", cfg.NodeName, "version", cfg.Version, "socket", cfg.Socket, "metrics", l.Addr().String(), "listen", cfg.Listen)
	server := agent.NewServer(a, log)
	return agent.Group(ctx,
		agent.Service{Name: "agent", Run: a.Run},
		agent.Service{Name: "grpc", Run: server.ServeUnix},
		agent.Service{Name: "grpc-tls", Run: server.ServeTLS},
		agent.Service{Name: "metrics", Run: func(ctx context.Context) error { return serveHTTP(ctx, l, e) }},
	)
}

// serveHTTP serves /metrics, /healthz and /readyz until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, e *exporter.Exporter) error {
	srv := &http.Server{Handler: e.Handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// doctor prints what this node can do without serving anything.
func doctor(ctx context.Context, cfg agent.Config, w io.Writer) error {
	caps, err := agent.Check(ctx, cfg)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "CAPABILITY\tOK\tDETAIL")
	for _, c := range caps {
		fmt.Fprintf(t, "%s\t%t\t%s\n", c.Name, c.OK, c.Detail)
	}
	return t.Flush()
}
