// Command ferretdb is FerretDB with its SQLite back end, for the tests: a server
// of the MongoDB protocol. Its own command wants to be built in its own tree.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "`address` and port to listen on")
	data := flag.String("data", "", "`folder` for the SQLite files")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *listen, *data); err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	f, err := ferretdb.New(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{TCP: listen}, Handler: "sqlite", SQLiteURL: "file:" + data + "/",
	})
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	if err := f.Run(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
