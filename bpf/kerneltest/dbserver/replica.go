package dbserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// StartPostgresReplica starts a PostgreSQL server that streams from primary, out
// of a base backup of it, and waits until it serves queries. The primary's
// pg_hba.conf must let anybody replicate.
func StartPostgresReplica(ctx context.Context, o Options, primary *Server) (*Server, error) {
	// The directory's parent is made as a primary's is.
	if err := seed(ctx, o, "postgres", "/var/lib/postgresql/15/main", "0700"); err != nil {
		return nil, err
	}
	dir := filepath.Join("/", o.Root, o.Dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read data directory: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("empty data directory: %w", err)
		}
	}
	cmd, err := Command(ctx, o.Root, "postgres", "pg_basebackup", "-h", primary.Address, "-p", strconv.Itoa(primary.Port),
		"-U", "postgres", "-D", o.Dir, "-X", "stream", "-R", "-c", "fast")
	if err != nil {
		return nil, err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make base backup: %w: %s", err, out)
	}
	f, err := os.OpenFile(filepath.Join(dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("configure replica: %w", err)
	}
	_, err = fmt.Fprintf(f, "port = %d\nunix_socket_directories = '%s'\nwal_receiver_status_interval = 1s\nwal_retrieve_retry_interval = 1s\n", o.Port, o.Dir)
	if err1 := f.Close(); err == nil {
		err = err1
	}
	if err != nil {
		return nil, fmt.Errorf("configure replica: %w", err)
	}
	return start(ctx, o, "postgres", "postgres", append([]string{"-D", o.Dir}, o.Args...)...)
}
