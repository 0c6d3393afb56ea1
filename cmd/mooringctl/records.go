package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/cmd/mooringctl/screen"
)

func (c *client) recordsCommand() *cobra.Command {
	var kinds []string
	var follow bool
	cmd := &cobra.Command{
		Use:   "records [INSTANCE]",
		Short: "Show slow, failed and audited statements and sessions as they happen",
		Long: "records shows what is recorded from now on: until Ctrl-C with --follow, else for as long as --timeout.\n" +
			"A statement is shown without its literals.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &agentpb.RecordsRequest{Kinds: kinds}
			if len(args) == 1 {
				r.Instance = args[0]
			}
			ctx := cmd.Context()
			if !follow {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, c.timeout)
				defer cancel()
			}
			return c.call(ctx, func(ctx context.Context, a agentpb.AgentClient) error { return c.printRecords(ctx, a, r) })
		},
	}
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "kinds to show: slow, failed, read, write, ddl, privilege, statement, login, refused, logout (default: all)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	return cmd
}

// printRecords prints records until one side goes away. Names are what clients
// chose, also those that were refused: they steer no terminal and end no line.
func (c *client) printRecords(ctx context.Context, a agentpb.AgentClient, r *agentpb.RecordsRequest) error {
	stream, err := a.Records(ctx, r)
	if err != nil {
		return err
	}
	const row = "%-12s %-9s %-24s %-12s %-21s %10s %8s %-8s %s\n"
	if c.format != "json" {
		fmt.Fprintf(c.out, row, "TIME", "KIND", "INSTANCE", "USER", "CLIENT", "TOOK", "ROWS", "CODE", "STATEMENT")
	}
	for {
		rec, err := stream.Recv()
		switch {
		case ctx.Err() != nil, errors.Is(err, io.EOF), status.Code(err) == codes.DeadlineExceeded:
			// The agent's clock may end it a little before ours does.
			return nil
		case err != nil:
			return err
		}
		if c.format == "json" {
			if err := c.json(rec); err != nil {
				return err
			}
			continue
		}
		if n := rec.GetLost(); n > 0 {
			fmt.Fprintf(c.out, "%d records were missed\n", n)
		}
		fmt.Fprintf(c.out, row, rec.GetTime().AsTime().Local().Format("15:04:05.000"), screen.Clean(rec.GetKind()), screen.Clean(rec.GetInstance()),
			orDash(rec.GetUser()), orDash(rec.GetClient()), rec.GetDuration().AsDuration().Round(time.Microsecond).String(),
			fmt.Sprint(rec.GetRows()), orDash(rec.GetCode()), screen.Clean(cmp.Or(rec.GetStatement(), rec.GetOperation())))
	}
}

// orDash makes a text fit for a terminal, and an empty one visible.
func orDash(s string) string { return cmp.Or(screen.Clean(s), "-") }
