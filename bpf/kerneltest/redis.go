package kerneltest

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Redis starts a Redis server with its data in dir.
func Redis(t testing.TB, dir string, port uint16, cgroup string) *Database {
	t.Helper()
	owner := credential(t, "redis")
	data := filepath.Join(dir, "redis")
	ownedDir(t, data, owner)
	d := &Database{Port: port, Socket: filepath.Join(data, "s"), Cgroup: cgroup}
	start(t, d, owner, "redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--unixsocket", d.Socket,
		"--dir", data, "--save", "", "--appendonly", "no")
	return d
}
