// Command mysqlserver is a MySQL-protocol server that is written in Go, for the
// tests: it reads ahead, and by read and write. Its data is in memory, in the
// database test; anybody may log in as root.
package main

import (
	"flag"
	"fmt"
	"os"

	sqle "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	"github.com/dolthub/go-mysql-server/sql"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3306", "`address` and port to listen on")
	flag.Parse()
	if err := run(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "mysqlserver:", err)
		os.Exit(1)
	}
}

func run(listen string) error {
	db := memory.NewDatabase("test")
	db.EnablePrimaryKeyIndexes()
	provider := memory.NewDBProvider(db)
	s, err := server.NewServer(server.Config{Protocol: "tcp", Address: listen},
		sqle.NewDefault(provider), sql.NewContext, memory.NewSessionBuilder(provider), nil)
	if err != nil {
		return fmt.Errorf("make server: %w", err)
	}
	if err := s.Start(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
