package pods

import (
	"path"
	"slices"
	"strings"

	"github.com/mooring-dev/mooring/agent/state"
)

// engine is one row of the table of known database engines.
type engine struct {
	name state.Engine
	// executables are the base names of /proc/PID/exe, links resolved.
	executables []string
	// declared are executables that mean another engine by themselves, so another
	// row has them in executables, and are accepted when a pod says that it is
	// this one.
	declared []string
	// notServer tells by its arguments that a process with that executable is
	// something else, such as a monitor; nil where there is no such thing.
	notServer func(args []string) bool
}

// engines is the table of known engines.
func engines() []engine {
	postgres := []string{"postgres", "postmaster"}
	redis := []string{"redis-server", "redis-check-rdb"}
	return []engine{
		{name: state.PostgreSQL, executables: postgres},
		{name: state.OpenGauss, executables: []string{"gaussdb"}},
		{name: state.KingbaseES, executables: []string{"kingbase"}},
		{name: state.TDSQLPG, declared: postgres},
		// MariaDB's mysqld has been a link to mariadbd since 10.5, and the link of
		// the executable is the file behind it. A mysqld that is a file is MySQL,
		// or a MariaDB before 10.5, or one of MySQL's other descendants, which only
		// a declaration can tell.
		{name: state.MySQL, executables: []string{"mysqld"}},
		{name: state.MariaDB, executables: []string{"mariadbd"}, declared: []string{"mysqld"}},
		{name: state.Percona, declared: []string{"mysqld"}},
		{name: state.TiDB, executables: []string{"tidb-server"}},
		{name: state.OceanBase, executables: []string{"observer"}},
		{name: state.GoldenDB, declared: []string{"mysqld"}},
		{name: state.TDSQL, declared: []string{"mysqld"}},
		// Redis ships one program under several names; Debian makes
		// redis-check-rdb the file and redis-server a link to it, and does so with
		// Valkey's.
		{name: state.Redis, executables: redis, notServer: isSentinel},
		{name: state.Valkey, executables: []string{"valkey-server", "valkey-check-rdb"}, declared: redis, notServer: isSentinel},
		{name: state.MongoDB, executables: []string{"mongod"}},
		{name: state.FerretDB, executables: []string{"ferretdb"}},
	}
}

// runs reports whether a server with that executable is one of this engine,
// given that somebody declared it to be.
func (e engine) runs(executable string) bool {
	return slices.Contains(e.executables, executable) || slices.Contains(e.declared, executable)
}

// engineNamed returns the row of an engine.
func engineNamed(name state.Engine) (engine, bool) {
	for _, e := range engines() {
		if e.name == name {
			return e, true
		}
	}
	return engine{}, false
}

// Engines lists the engines this release knows.
func Engines() []state.Engine {
	var names []state.Engine
	for _, e := range engines() {
		names = append(names, e.name)
	}
	return names
}

// engineNames lists the engines for messages.
func engineNames() string {
	var names []string
	for _, e := range Engines() {
		names = append(names, string(e))
	}
	return strings.Join(names, ", ")
}

// isSentinel tells a Sentinel of Redis or Valkey, which watches servers and keeps no data,
// from a server. It runs the same program and marks itself in its title.
func isSentinel(args []string) bool {
	if len(args) == 0 {
		return false
	}
	program, _, _ := strings.Cut(args[0], " ")
	return slices.Contains([]string{"redis-sentinel", "valkey-sentinel"}, path.Base(program)) ||
		strings.Contains(args[0], "[sentinel]") || slices.Contains(args, "--sentinel")
}

// executableName returns the base name of the target of /proc/PID/exe. The
// kernel appends " (deleted)" once the file is gone, as after an upgrade.
func executableName(link string) string {
	return path.Base(strings.TrimSuffix(link, " (deleted)"))
}
