package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
)

// Sizes the databases start with; resize doubles the first and halves it again.
const (
	startMillicores = 500
	startMemory     = 384 << 20
	cgroupRoot      = "/sys/fs/cgroup"
)

// database is one server with its surroundings.
type database struct {
	*dbserver.Server
	name   string
	cgroup string // absolute directory
	link   string // the host's end of its veth
}

// setUp makes the cgroups, network namespaces and databases, then starts the
// agent.
func (d *demo) setUp(ctx context.Context) error {
	parent := filepath.Join(cgroupRoot, "demo")
	if err := os.Mkdir(parent, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+cpuset +cpu +io +memory +pids"), 0); err != nil {
		return fmt.Errorf("delegate controllers: %w", err)
	}
	var err error
	if d.orders, err = d.startDatabase(ctx, "orders", 1, 5432, dbserver.StartPostgres); err != nil {
		return err
	}
	if d.ledger, err = d.startDatabase(ctx, "ledger", 2, 3306, dbserver.StartMariaDB); err != nil {
		return err
	}
	if err := d.loadData(ctx); err != nil {
		return err
	}
	d.agent, err = startAgent(ctx, d.bin)
	if err != nil {
		return err
	}
	d.say("agent started, pid %d", d.agent.pid())
	return nil
}

// startDatabase gives a server what a pod would: a cgroup with limits and a
// network namespace joined to the host by a veth pair.
func (d *demo) startDatabase(ctx context.Context, name string, n, port int, start func(context.Context, dbserver.Options) (*dbserver.Server, error)) (*database, error) {
	db := &database{name: name, cgroup: filepath.Join(cgroupRoot, "demo", name), link: "veth-" + name}
	if err := os.Mkdir(db.cgroup, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	address := fmt.Sprintf("10.77.%d.2", n)
	script := fmt.Sprintf(`set -e
		ip netns add %[1]s
		ip link add %[2]s type veth peer name eth0 netns %[1]s
		ip addr add 10.77.%[3]d.1/24 dev %[2]s
		ip link set %[2]s up
		ip -n %[1]s addr add %[4]s/24 dev eth0
		ip -n %[1]s link set eth0 up
		ip -n %[1]s link set lo up`, name, db.link, n, address)
	if out, err := exec.CommandContext(ctx, "/bin/sh", "-c", script).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make network namespace: %w: %s", err, out)
	}
	var err error
	db.Server, err = start(ctx, dbserver.Options{
		Dir: filepath.Join("/scratch", name), Address: address, Port: port,
		Cgroup: db.cgroup, Netns: filepath.Join("/run/netns", name),
		// With "minimal", nothing but a writing statement writes to the log:
		// PostgreSQL panics when its log cannot be written.
		Args: map[string][]string{"orders": {"-c", "wal_level=minimal", "-c", "max_wal_senders=0"}}[name],
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(db.cgroup, "cpu.max"), fmt.Appendf(nil, "%d 100000", startMillicores*100), 0),
		os.WriteFile(filepath.Join(db.cgroup, "memory.max"), strconv.AppendInt(nil, startMemory, 10), 0),
	); err != nil {
		return nil, fmt.Errorf("set limits of %s: %w", name, err)
	}
	d.say("%s serves on %s:%d, pid %d, %dm CPU, %d MiB", name, address, port, db.PID, startMillicores, startMemory>>20)
	return db, nil
}

// loadData fills both databases and loads pg_stat_statements.
func (d *demo) loadData(ctx context.Context) error {
	if _, err := d.orders.Query(ctx, "CREATE EXTENSION pg_stat_statements"); err != nil {
		return err
	}
	if out, err := d.client(ctx, "pgbench", d.orders, "-i", "-q", "-s", "1"); err != nil {
		return fmt.Errorf("fill orders: %w: %s", err, out)
	}
	if _, err := d.ledger.Query(ctx, "CREATE DATABASE sbtest"); err != nil {
		return err
	}
	if out, err := d.client(ctx, "sysbench", d.ledger, "oltp_point_select", "--table-size=2000", "prepare"); err != nil {
		return fmt.Errorf("fill ledger: %w: %s", err, out)
	}
	return nil
}

// client runs a load program against db to its end.
func (d *demo) client(ctx context.Context, program string, db *database, args ...string) (string, error) {
	cmd, err := command(ctx, program, db, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func command(ctx context.Context, program string, db *database, args ...string) (*exec.Cmd, error) {
	port := strconv.Itoa(db.Port)
	switch program {
	case "pgbench":
		args = append(args, "-h", db.Address, "-p", port, "-U", "postgres", "postgres")
	case "sysbench":
		args = append([]string{"--db-driver=mysql", "--mysql-host=" + db.Address, "--mysql-port=" + port, "--mysql-user=root", "--tables=1"}, args...)
	}
	return dbserver.Command(ctx, "", "", program, args...)
}

// load is a program that puts a database under load until it is stopped.
type load struct {
	cmd *exec.Cmd
	out strings.Builder
}

// both is pgbench on orders and sysbench on ledger at the same time.
type both struct{ orders, ledger *load }

// bothUnderLoad puts both databases under load for so many seconds.
func (d *demo) bothUnderLoad(ctx context.Context, seconds int) (*both, error) {
	t := strconv.Itoa(seconds)
	orders, err := underLoad(ctx, "pgbench", d.orders, "-n", "-c", "2", "-T", t)
	if err != nil {
		return nil, err
	}
	ledger, err := underLoad(ctx, "sysbench", d.ledger, "--threads=2", "--time="+t, "--table-size=2000", "oltp_point_select", "run")
	return &both{orders, ledger}, err
}

var (
	pgbenchResult  = regexp.MustCompile(`(?m)^(number of transactions actually processed|number of failed transactions|latency average).*$`)
	pgbenchFailed  = regexp.MustCompile(`number of failed transactions: (\d+)`)
	sysbenchResult = regexp.MustCompile(`(?m)^ +(queries|avg|ignored errors): .*$`)
	sysbenchFailed = regexp.MustCompile(`ignored errors: +(\d+)`)
)

// wait lets both loads come to their end, prints what they say and returns how
// many statements and transactions failed.
func (b *both) wait(d *demo) (failed float64, err error) {
	for _, l := range []struct {
		name           string
		load           *load
		result, errors *regexp.Regexp
	}{{"pgbench", b.orders, pgbenchResult, pgbenchFailed}, {"sysbench", b.ledger, sysbenchResult, sysbenchFailed}} {
		out, err := l.load.wait()
		if err != nil {
			return 0, err
		}
		m := l.errors.FindStringSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("%s printed no count of failures: %s", l.name, out)
		}
		failed += atof(m[1])
		var lines []string
		for _, line := range l.result.FindAllString(out, -1) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		d.say("%s meanwhile: %s", l.name, strings.Join(lines, "; "))
	}
	return failed, nil
}

// underLoad starts a load on db.
func underLoad(ctx context.Context, program string, db *database, args ...string) (*load, error) {
	cmd, err := command(ctx, program, db, args...)
	if err != nil {
		return nil, err
	}
	l := &load{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &l.out, &l.out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	return l, nil
}

// wait returns what the load printed when it came to its end by itself.
func (l *load) wait() (string, error) {
	if err := l.cmd.Wait(); err != nil {
		return "", fmt.Errorf("load ended: %w: %s", err, l.out.String())
	}
	return l.out.String(), nil
}

// file reads a control file of the database's cgroup.
func (db *database) file(name string) string {
	b, err := os.ReadFile(filepath.Join(db.cgroup, name))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// value reads one key of a flat-keyed control file.
func (db *database) value(file, key string) float64 {
	for line := range strings.Lines(db.file(file)) {
		f := strings.Fields(line)
		if len(f) == 2 && f[0] == key {
			v, err := strconv.ParseFloat(f[1], 64)
			if err == nil {
				return v
			}
		}
	}
	return -1
}

// onNode is the share of the database's own memory, anonymous and shared, on a
// NUMA node, by the kernel's memory.numa_stat. Page cache does not follow a
// cpuset.
func (db *database) onNode(node int) float64 {
	var there, all float64
	for line := range strings.Lines(db.file("memory.numa_stat")) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "anon" && f[0] != "shmem" {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				continue
			}
			all += n
			if k == fmt.Sprintf("N%d", node) {
				there += n
			}
		}
	}
	return there / all
}

// started is when the server's first process began, in clock ticks since boot.
func (db *database) started() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", db.PID))
	if err != nil {
		return err.Error()
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if f := strings.Fields(rest); len(f) > 19 {
		return f[19]
	}
	return "?"
}

// connect is the median time of five TCP handshakes from the host.
func (db *database) connect() time.Duration {
	var all []time.Duration
	for range 5 {
		took, err := db.Connect(5 * time.Second)
		if err != nil {
			took = 5 * time.Second
		}
		all = append(all, took)
	}
	return median(all)
}

// close ends everything; the machine is thrown away afterwards.
func (d *demo) close() {
	if d.agent != nil {
		d.agent.kill()
	}
	for _, db := range []*database{d.orders, d.ledger} {
		if db == nil {
			continue
		}
		if err := db.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
	}
}
