package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/mooring-dev/mooring/agent"
)

// uninstallCommand takes what agents left on this node off it.
func uninstallCommand(cfg *agent.Config, stderr io.Writer) *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Undo and remove everything that agents left on this node",
		Long: "uninstall undoes operations that are still open, gives the CPUs and memory nodes of pinned instances back, and removes\n" +
			"the agent's cgroups, socket and state directory. Stop the agent first. Sizes stay as they were asked for. It can be run again.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return err
			}
			if err := agent.Uninstall(cmd.Context(), *cfg, logger(stderr, false), cmd.OutOrStdout()); err != nil {
				return wrap(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "nothing of Mooring is left on this node")
			if stay {
				<-cmd.Context().Done()
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.StateDir, "state-dir", cfg.StateDir, "directory of the journal")
	f.StringVar(&cfg.Socket, "socket", cfg.Socket, "unix socket of the agent")
	f.StringVar(&cfg.ProcRoot, "proc-root", cfg.ProcRoot, "where the host's proc file system is")
	f.StringVar(&cfg.SysRoot, "sys-root", cfg.SysRoot, "where the host's sysfs is")
	f.StringVar(&cfg.CgroupRoot, "cgroup-root", cfg.CgroupRoot, "where the host's cgroup file system is")
	f.BoolVar(&stay, "stay", false, "when done, wait for SIGTERM: for a pod that is not to be started again")
	return cmd
}
