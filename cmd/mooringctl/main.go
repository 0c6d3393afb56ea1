// Command mooringctl asks the agent of this node, over its unix socket, what
// it sees and tells it what to do. Called as kubectl-mooring it is kubectl's
// plug-in for a whole cluster. It also makes certificates.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/cmd/mooringctl/kube"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(start(os.Args, os.Stdout, os.Stderr)) }

// start runs the tree that the program's name asks for and returns the exit
// status.
func start(argv []string, stdout, stderr io.Writer) int {
	// On Windows a name ends in .exe, and kubectl finds both spellings.
	base := filepath.Base(argv[0])
	if strings.HasPrefix(base, "kubectl-mooring") || strings.HasPrefix(base, "kubectl_mooring") {
		return execute(kube.Command("kubectl mooring", version, stdout, stderr), "kubectl mooring", argv[1:], stderr)
	}
	return run(argv[1:], stdout, stderr)
}

// run returns the exit status: 0 done, 1 the agent refused or failed, 2 the
// command line or the request is wrong.
func run(args []string, stdout, stderr io.Writer) int {
	c := &client{out: stdout}
	cmd := c.root()
	cmd.AddCommand(certsCommand(stdout), kubeCommand(stdout, stderr))
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	return execute(cmd, "mooringctl", args, stderr)
}

// kubeCommand is kubectl's plug-in under the program's own name. Flags are its
// own, too.
func kubeCommand(stdout, stderr io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:                "kube",
		Short:              "See and steer the databases of a cluster (also: kubectl mooring)",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			k := kube.Command("mooringctl kube", version, stdout, stderr)
			k.SetArgs(args)
			return k.ExecuteContext(cmd.Context())
		},
	}
}

// execute runs a command line and prints its error.
func execute(cmd *cobra.Command, name string, args []string, stderr io.Writer) int {
	cmd.SetArgs(args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := cmd.ExecuteContext(ctx)
	var failed *agentError
	var local *localError
	var cluster *kube.Failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &failed):
		fmt.Fprintf(stderr, "%s: %v\n", name, failed)
		if failed.code == codes.InvalidArgument {
			return 2
		}
		return 1
	case errors.As(err, &local):
		fmt.Fprintf(stderr, "%s: %v\n", name, local)
		return 1
	case errors.As(err, &cluster):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return cluster.ExitStatus()
	}
	fmt.Fprintf(stderr, "%s: %v\nrun `%s --help` for usage\n", name, err, name)
	return 2
}

// agentError is an error that came from the agent or from reaching it.
type agentError struct {
	code codes.Code
	text string
}

func (e *agentError) Error() string { return e.text }

// client is one invocation.
type client struct {
	out     io.Writer
	socket  string
	format  string
	timeout time.Duration
}

func (c *client) root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mooringctl",
		Short: "See and steer the database instances of this node",
		Long: "mooringctl talks to the Mooring agent of this node. INSTANCE is an instance's id, or its name\n" +
			"where only one instance has it; `mooringctl instances` lists both.\n\n" +
			"Exit status: 0 done, 1 the agent refused or failed, 2 the command or request is wrong.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.format != "table" && c.format != "json" {
				return fmt.Errorf("--output %q is neither table nor json", c.format)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&c.socket, "socket", "/run/mooring/agent.sock", "the agent's unix socket")
	f.StringVarP(&c.format, "output", "o", "table", "output format: table or json")
	f.DurationVar(&c.timeout, "timeout", 2*time.Minute, "how long to wait for the agent")
	cmd.AddCommand(c.statusCommand(), c.instancesCommand(), c.pinCommand(), c.resizeCommand(), c.faultCommand(), c.doctorCommand(),
		c.topCommand(), c.explainCommand(), c.recordsCommand())
	return cmd
}

// call connects, runs f and turns its error into one that a person can read.
func (c *client) call(ctx context.Context, f func(context.Context, agentpb.AgentClient) error) error {
	if _, err := os.Stat(c.socket); err != nil {
		return &agentError{codes.Unavailable, fmt.Sprintf("no agent at %s (%v); is mooring-agent running, and is --socket right?", c.socket, errors.Unwrap(err))}
	}
	conn, err := grpc.NewClient("unix:"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("open %s: %w", c.socket, err)
	}
	defer conn.Close()
	err = f(ctx, agentpb.NewAgentClient(conn))
	if s, ok := status.FromError(err); ok && err != nil {
		text := s.Message()
		switch s.Code() {
		case codes.Unavailable:
			text = fmt.Sprintf("the agent at %s does not answer: %s", c.socket, text)
		case codes.DeadlineExceeded:
			text = fmt.Sprintf("the agent did not finish within %v and goes on by itself; look with `mooringctl status`", c.timeout)
		}
		return &agentError{s.Code(), text}
	}
	return err
}

// once is call for a single request, within the timeout.
func (c *client) once(ctx context.Context, f func(context.Context, agentpb.AgentClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.call(ctx, f)
}

// json prints m for programs; enumerations and zero values are spelled out, so
// that a field is always there.
func (c *client) json(m proto.Message) error {
	b, err := protojson.MarshalOptions{Multiline: true, Indent: "  ", EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	_, err = fmt.Fprintln(c.out, string(b))
	return err
}
