// Command mooring-controller carries out the custom resources of mooring.dev in
// a Kubernetes cluster, by way of the agents on its nodes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/mooring-dev/mooring/cmd/internal/calm"
	"github.com/mooring-dev/mooring/controller"
)

// version is set by the linker.
var version = "dev"

// memoryGoal is what the garbage collector works towards. It is not a limit: a
// large cluster's pods may need more.
const memoryGoal = 40 << 20

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit status: 0 done, 1 something failed, 2 wrong usage.
func run(args []string, stdout, stderr io.Writer) int {
	cmd := root(stderr)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "mooring-controller:", err)
	var failed *runError
	if errors.As(err, &failed) {
		return 1
	}
	fmt.Fprintln(stderr, "run `mooring-controller --help` for the flags")
	return 2
}

// runError is a failure after the flags were understood.
type runError struct{ err error }

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// settings are the flags.
type settings struct {
	controller.Options
	kubeconfig string
	metrics    string
	logJSON    bool
}

func root(stderr io.Writer) *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "mooring-controller",
		Short: "Carry out DatabasePolicies, InstanceResizes and ChaosExperiments",
		Long: "mooring-controller reads the custom resources of mooring.dev and has the nodes' agents carry them out.\n" +
			"It runs in a cluster, in two copies of which one leads. Without the custom resources or without the\n" +
			"API server it waits and says so at /readyz.",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return start(cmd.Context(), s, logger(stderr, s.logJSON))
		},
	}
	host, err := os.Hostname()
	if err != nil {
		host = "mooring-controller"
	}
	f := cmd.Flags()
	f.StringVar(&s.Namespace, "namespace", "mooring-system", "namespace of the controller, its Lease and the agents")
	f.StringVar(&s.Identity, "identity", host, "name of this controller in the Lease; must be its own")
	f.BoolVar(&s.LeaderElect, "leader-elect", true, "run for leader; turn off only where no other controller can be")
	f.StringVar(&s.AgentSelector, "agent-selector", "app.kubernetes.io/name=mooring-agent", "label selector of the agents' pods")
	f.IntVar(&s.AgentPort, "agent-port", 9751, "TCP port on which agents serve the controller")
	f.StringVar(&s.AgentName, "agent-name", "mooring-agent", "DNS name that an agent's certificate must carry")
	f.StringVar(&s.TLSDir, "tls-dir", "/etc/mooring/tls", "directory of tls.crt, tls.key and ca.crt; read again when they change")
	f.StringVar(&s.metrics, "metrics", ":9752", "TCP address of /metrics, /healthz and /readyz")
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "file to reach the API server with (default: in-cluster)")
	f.BoolVar(&s.logJSON, "log-json", false, "log JSON lines")
	return cmd
}

// start runs a controller until ctx ends.
func start(ctx context.Context, s settings, log *slog.Logger) error {
	debug.SetMemoryLimit(memoryGoal)
	// Its heap is small and changes seldom: collecting twice as often costs
	// nothing that could be measured and keeps it smaller.
	debug.SetGCPercent(50)
	config, err := kubeConfig(s.kubeconfig)
	if err != nil {
		return &runError{err}
	}
	s.Config, s.Log = config, log
	c, err := controller.New(s.Options)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.metrics)
	if err != nil {
		return &runError{fmt.Errorf("listen for metrics: %w; choose another --metrics address", err)}
	}
	defer l.Close()
	log.Info("controller started", "component", "controller", "version", version, "identity", s.Identity, "metrics", l.Addr().String())
	if err := c.Run(ctx, l); err != nil {
		return &runError{err}
	}
	return nil
}

func kubeConfig(path string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if path == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", path)
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w; outside of a cluster give --kubeconfig", err)
	}
	config.UserAgent = "mooring-controller/" + version
	return config, nil
}

// librarySaysAgain is how often client-go may repeat a message.
const librarySaysAgain = 30 * time.Second

// logger makes the log and has the libraries write to it as well.
func logger(w io.Writer, asJSON bool) *slog.Logger {
	var h slog.Handler = slog.NewTextHandler(w, nil)
	if asJSON {
		h = slog.NewJSONHandler(w, nil)
	}
	log := slog.New(h)
	klog.SetSlogLogger(slog.New(calm.New(h, librarySaysAgain)).With("component", "client-go"))
	ctrllog.SetLogger(logr.FromSlogHandler(log.With("component", "controller-runtime").Handler()))
	return log
}
