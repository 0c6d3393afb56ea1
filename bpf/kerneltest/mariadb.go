package kerneltest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// MariaDBUser is who may log in to a MariaDB server of this package; the
// password is the same word.
const MariaDBUser = "sbtest"

// MariaDB starts a MariaDB server with its data in dir. It has a database
// sbtest, and MariaDBUser may do everything.
func MariaDB(t testing.TB, dir string, port uint16, cgroup string) *Database {
	t.Helper()
	owner := credential(t, "mysql")
	data := filepath.Join(dir, "mariadb")
	ownedDir(t, data, owner)
	run(t, owner, "mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal",
		"--skip-test-db", "--datadir="+data, "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0",
		"--innodb-flush-method=nosync")
	d := &Database{Port: port, Socket: filepath.Join(data, "s"), Cgroup: cgroup}
	start(t, d, owner, "mariadbd", "--no-defaults", "--datadir="+data, "--socket="+d.Socket,
		"--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", port), "--innodb-flush-log-at-trx-commit=0",
		"--innodb-flush-method=nosync", "--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M",
		"--performance-schema=off", "--skip-name-resolve", "--pid-file="+filepath.Join(data, "pid"))
	d.MariaDB(t, "CREATE DATABASE sbtest; CREATE USER sbtest@'127.0.0.1' IDENTIFIED BY 'sbtest'; "+
		"GRANT ALL ON *.* TO sbtest@'127.0.0.1'", "--user=root", "--socket="+d.Socket)
	return d
}

// MariaDB runs statements by the command line client and returns what they
// print. Without arguments it connects over TCP as MariaDBUser.
func (d *Database) MariaDB(t testing.TB, statements string, connect ...string) string {
	t.Helper()
	if len(connect) == 0 {
		connect = []string{"--user=" + MariaDBUser, "--password=" + MariaDBUser, "--host=127.0.0.1", fmt.Sprintf("--port=%d", d.Port)}
	}
	require.NotEmpty(t, statements)
	return Run(t, "mariadb", append([]string{"--no-defaults", "--batch", "--skip-column-names", "--execute=" + statements}, connect...)...)
}
