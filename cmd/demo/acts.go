package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	statements = "db_server_operation_duration_seconds_count"
	// settle is how long a counter of the kernel needs to show on /metrics.
	settle = 2500 * time.Millisecond
)

// label picks the series of one database.
func (db *database) label() string { return fmt.Sprintf("instance=%q", "/demo/"+db.name) }

func (d *demo) find(ctx context.Context) error {
	if err := d.show(ctx, "doctor"); err != nil {
		return err
	}
	if err := d.show(ctx, "instances"); err != nil {
		return err
	}
	found := 0
	for name, engine := range map[string]string{"orders": "postgresql", "ledger": "mariadb"} {
		in, err := d.agent.instance(ctx, name)
		if err != nil {
			return err
		}
		if in.GetEngine() == engine && in.GetShared() == "" {
			found++
		}
	}
	d.figures.Equal("databases found, each with its engine", float64(found), "", 2)
	return nil
}

// operations is how many statements /metrics has counted for db, logins apart.
func (d *demo) operations(ctx context.Context, db *database) float64 {
	time.Sleep(settle)
	all, err := metric(ctx, statements, db.label())
	if err != nil {
		return 0 // no statement yet
	}
	return all - d.operation(ctx, db, "auth")
}

// count compares /metrics with each database's own counters. The statement
// that reads such a counter the first time is the only difference allowed, and
// is named. PostgreSQL loses repeated BEGIN and END of the prepared protocol
// from pg_stat_statements, so transactions are held against pgbench's own
// count instead.
func (d *demo) count(ctx context.Context) error {
	const transactions = 100
	for _, mode := range []string{"simple", "extended", "prepared"} {
		before, txns := d.operations(ctx, d.orders), d.operation(ctx, d.orders, "txn")
		prepares := d.operation(ctx, d.orders, "prepare")
		if _, err := d.orders.Query(ctx, "SELECT pg_stat_statements_reset()"); err != nil {
			return err
		}
		if out, err := d.client(ctx, "pgbench", d.orders, "-n", "-M", mode, "-c", "2", "-t", strconv.Itoa(transactions/2)); err != nil {
			return fmt.Errorf("pgbench: %w: %s", err, out)
		}
		own, err := d.number(ctx, d.orders, "SELECT sum(calls) FROM pg_stat_statements WHERE query NOT IN ('BEGIN', 'END')")
		if err != nil {
			return err
		}
		all := d.operations(ctx, d.orders) - before
		txns = d.operation(ctx, d.orders, "txn") - txns
		prepares = d.operation(ctx, d.orders, "prepare") - prepares
		seen := all - txns - prepares
		d.say("pgbench -M %s: PostgreSQL counted %v, /metrics %v (1 more is our own reading), BEGIN and END %v, Parse alone %v", mode, own, seen, txns, prepares)
		d.figures.Equal("statements of pgbench -M "+mode+" beyond PostgreSQL's own count", seen-own-1, "", 0)
		d.figures.Equal("BEGIN and END of pgbench -M "+mode, txns, "", 2*transactions)
	}
	before := d.operations(ctx, d.ledger)
	const commands = "SELECT SUM(VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN " +
		"('COM_SELECT', 'COM_INSERT', 'COM_UPDATE', 'COM_DELETE', 'COM_BEGIN', 'COM_COMMIT')"
	first, err := d.number(ctx, d.ledger, commands)
	if err != nil {
		return err
	}
	if out, err := d.client(ctx, "sysbench", d.ledger, "--threads=2", "--events=100", "--time=0", "--db-ps-mode=disable", "--table-size=2000", "oltp_read_write", "run"); err != nil {
		return fmt.Errorf("sysbench: %w: %s", err, out)
	}
	last, err := d.number(ctx, d.ledger, commands)
	if err != nil {
		return err
	}
	delta := d.operations(ctx, d.ledger) - before
	d.say("sysbench: MariaDB counted %v, /metrics %v: 1 more is our own first reading", last-first, delta)
	d.figures.Equal("statements of sysbench read-write beyond MariaDB's own count", delta-(last-first)-1, "", 0)
	return d.show(ctx, "instances", "--long")
}

// operation is how many statements of one kind /metrics has counted for db.
func (d *demo) operation(ctx context.Context, db *database, name string) float64 {
	n, err := metric(ctx, statements, db.label(), fmt.Sprintf("db_operation_name=%q", name))
	if err != nil {
		return 0 // none yet
	}
	return n
}

func (d *demo) number(ctx context.Context, db *database, sql string) (float64, error) {
	out, err := db.Query(ctx, sql)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(out), 64)
}

func (d *demo) pin(ctx context.Context) error {
	l, err := d.bothUnderLoad(ctx, 10)
	if err != nil {
		return err
	}
	for node, db := range []*database{d.orders, d.ledger} {
		d.say("%s has %.0f %% of its memory on node %d", db.name, 100*db.onNode(node), node)
		if err := d.show(ctx, "pin", db.name, "--node", strconv.Itoa(node)); err != nil {
			return err
		}
		d.figures.Equal(db.name+" may use NUMA nodes", atof(db.file("cpuset.mems.effective")), "", float64(node))
		time.Sleep(settle)
		share := db.onNode(node)
		exported, err := metric(ctx, "mooring_instance_numa_local_ratio", db.label())
		if err != nil {
			return err
		}
		d.say("%s now has %.1f %% of its memory on node %d, /metrics says %.1f %%", db.name, 100*share, node, 100*exported)
		d.figures.AtLeast(db.name+" memory on its node, by memory.numa_stat", share, "", 0.95)
		d.figures.AtMost(db.name+" memory on its node, difference of /metrics", abs(exported-share), "", 0.05)
	}
	failed, err := l.wait(d)
	d.figures.Equal("statements that failed while both were pinned", failed, "", 0)
	return err
}

func (d *demo) resize(ctx context.Context) error {
	began := d.orders.started()
	l, err := d.bothUnderLoad(ctx, 12)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		cpu, memory string
		max         string
		bytes       float64
	}{
		{"1", "768Mi", "100000 100000", 768 << 20},
		{"500m", "384Mi", "50000 100000", 384 << 20},
	} {
		time.Sleep(2 * time.Second)
		if err := d.show(ctx, "resize", "orders", "--cpu", s.cpu, "--memory", s.memory); err != nil {
			return err
		}
		cpu, _, _ := strings.Cut(d.orders.file("cpu.max"), " ")
		want, _, _ := strings.Cut(s.max, " ")
		d.figures.Equal("orders cpu.max after --cpu "+s.cpu, atof(cpu)/100, "m", atof(want)/100)
		d.figures.Equal("orders memory.max after --memory "+s.memory, atof(d.orders.file("memory.max"))/(1<<20), "MiB", s.bytes/(1<<20))
	}
	failed, err := l.wait(d)
	if err != nil {
		return err
	}
	d.figures.Equal("statements that failed while orders was resized", failed, "", 0)
	d.figures.Equal("orders restarts while resized", restarts(began, d.orders.started()), "", 0)
	d.figures.Equal("orders processes killed for memory", d.orders.value("memory.events", "oom_kill"), "", 0)
	return nil
}

func restarts(before, after string) float64 {
	if before == after {
		return 0
	}
	return 1
}

func (d *demo) delayNetwork(ctx context.Context) error {
	calm := d.ledger.connect()
	l, err := d.bothUnderLoad(ctx, 8)
	if err != nil {
		return err
	}
	if err := d.show(ctx, "fault", "start", "net-delay", "ledger", "--duration", "10s", "--set", "delay=100ms", "--uid", "slow-ledger"); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	slow, neighbour := d.ledger.connect(), d.orders.connect()
	d.say("handshake with ledger %v before, %v now; with orders %v", calm, slow, neighbour)
	d.figures.AtLeast("ledger handshake during the delay", ms(slow), "ms", 100)
	d.figures.AtMost("orders handshake meanwhile", ms(neighbour), "ms", 50)
	failed, err := l.wait(d)
	if err != nil {
		return err
	}
	d.figures.Equal("statements that failed while ledger was delayed", failed, "", 0)
	time.Sleep(time.Until(deadline.Add(100 * time.Millisecond)))
	after := d.ledger.connect()
	d.figures.AtMost("ledger handshake 100 ms after the end", ms(after), "ms", 50)
	return d.ended(ctx, "slow-ledger", "deadline", d.ledger)
}

// ended checks what the agent says of a fault that is over, and that nothing
// of it is left on the interface of db.
func (d *demo) ended(ctx context.Context, uid, reason string, db *database) error {
	time.Sleep(settle)
	f, err := d.agent.fault(ctx, uid)
	if err != nil {
		return err
	}
	d.say("fault %s: %s, reason %q, %d hits", uid, f.GetPhase(), f.GetReason(), f.GetHits())
	d.figures.Equal("fault "+uid+" ended by "+reason, boolean(f.GetPhase() == "ended" && f.GetReason() == reason), "", 1)
	d.figures.Equal("qdiscs of ours left on "+db.link, float64(qdiscs(db)), "", 0)
	return nil
}

// qdiscs counts the disciplines on the host's end of the veth that are not
// there by default.
func qdiscs(db *database) int {
	out, err := exec.Command("tc", "qdisc", "show", "dev", db.link).Output()
	if err != nil {
		return -1
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "qdisc noqueue") {
			n++
		}
	}
	return n
}

// spill is a statement that needs temporary files in the data directory.
const spill = "SET work_mem = '64kB'; SELECT count(*) FROM (SELECT md5(g::text) AS m FROM generate_series(1, 8000) g ORDER BY 1) s"

func (d *demo) failWrites(ctx context.Context) error {
	if _, err := d.orders.Query(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if _, err := d.orders.Query(ctx, spill); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	if _, err := d.ledger.Query(ctx, "CREATE TABLE sbtest.entry (id INT) ENGINE=InnoDB"); err != nil {
		return err
	}
	began := d.orders.started()
	if err := d.show(ctx, "fault", "start", "io-error", "orders", "--duration", "5s", "--set", "operations=write", "--uid", "broken-orders"); err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Second)
	failed, written := 0, 0
	for time.Until(deadline) > 1500*time.Millisecond {
		if _, err := d.orders.Query(ctx, spill); err != nil {
			if failed == 0 {
				d.say("orders: %v", err)
			}
			if strings.Contains(err.Error(), "Input/output error") {
				failed++
			}
		}
		if _, err := d.ledger.Query(ctx, "INSERT INTO sbtest.entry VALUES (1); FLUSH TABLES sbtest.entry"); err == nil {
			written++
		} else {
			d.say("ledger: %v", err)
			written = -1000
		}
	}
	d.figures.AtLeast("statements of orders that failed with EIO", float64(failed), "", 1)
	d.figures.AtLeast("writes of ledger that went well on the same device", float64(written), "", 1)
	time.Sleep(time.Until(deadline.Add(100 * time.Millisecond)))
	_, err := d.orders.Query(ctx, spill)
	d.figures.Equal("orders writes again 100 ms after the end", boolean(err == nil), "", 1)
	d.figures.Equal("orders restarts by the fault", restarts(began, d.orders.started()), "", 0)
	if err := d.ended(ctx, "broken-orders", "deadline", d.orders); err != nil {
		return err
	}
	f, err := d.agent.fault(ctx, "broken-orders")
	if err != nil {
		return err
	}
	d.figures.AtLeast("calls the kernel made fail", float64(f.GetHits()), "", 1)
	return nil
}

// killInDelay kills the agent while it delays a network. The rule stays in the
// kernel, which stops applying it when the agent no longer renews its lease, and
// at the deadline in any case.
func (d *demo) killInDelay(ctx context.Context) error {
	if err := d.show(ctx, "fault", "start", "net-delay", "ledger", "--duration", "8s", "--set", "delay=100ms", "--uid", "orphan"); err != nil {
		return err
	}
	deadline := time.Now().Add(8 * time.Second)
	d.agent.kill()
	killed := time.Now()
	d.say("agent killed with SIGKILL")
	still, err := d.ledger.Connect(5 * time.Second)
	if err != nil {
		return err
	}
	d.figures.AtLeast("ledger handshake right after the kill", ms(still), "ms", 100)
	d.figures.AtLeast("qdiscs that outlived the agent", float64(qdiscs(d.ledger)), "", 1)
	for time.Now().Before(deadline) {
		if took, err := d.ledger.Connect(5 * time.Second); err == nil && took < 50*time.Millisecond {
			break
		}
	}
	d.figures.AtMost("delay gone after the kill, by its lease", time.Since(killed).Seconds(), "s", 3.5)
	time.Sleep(time.Until(deadline.Add(100 * time.Millisecond)))
	d.figures.AtMost("ledger handshake 100 ms after the deadline, no agent", ms(d.ledger.connect()), "ms", 50)
	if err := d.agent.start(ctx); err != nil {
		return err
	}
	d.say("agent started again")
	return d.ended(ctx, "orphan", "recovered", d.ledger)
}

func (d *demo) frozen() bool { return d.ledger.value("cgroup.events", "frozen") == 1 }

// thawed waits until ledger runs and returns how long after since that was.
func (d *demo) thawed(since time.Time) (time.Duration, error) {
	for limit := time.Now().Add(time.Minute); d.frozen(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			return 0, errors.New("ledger stays frozen")
		}
	}
	return time.Since(since), nil
}

// killInFreeze kills the agent twice while ledger is frozen, which the kernel
// cannot end: once the next agent undoes it, once there is none and the keeper
// does.
func (d *demo) killInFreeze(ctx context.Context) error {
	if err := d.show(ctx, "fault", "start", "freeze", "ledger", "--duration", "60s", "--uid", "frozen-1"); err != nil {
		return err
	}
	d.figures.Equal("ledger frozen", boolean(d.frozen()), "", 1)
	d.agent.kill()
	d.figures.Equal("ledger still frozen with the agent dead", boolean(d.frozen()), "", 1)
	started := time.Now()
	if err := d.agent.start(ctx); err != nil {
		return err
	}
	took, err := d.undoneAt(started)
	if err != nil {
		return err
	}
	d.say("the next agent thawed ledger %.2f s after its start", took.Seconds())
	d.figures.AtMost("ledger thawed after the agent's restart", took.Seconds(), "s", 2)
	if err := d.show(ctx, "fault", "start", "freeze", "ledger", "--duration", "5s", "--uid", "frozen-2"); err != nil {
		return err
	}
	f, err := d.agent.fault(ctx, "frozen-2")
	if err != nil {
		return err
	}
	deadline := f.GetDeadline().AsTime()
	d.agent.kill()
	late, err := d.thawed(deadline)
	if err != nil {
		return err
	}
	d.say("with no agent at all, the keeper thawed ledger %.2f s after its deadline", late.Seconds())
	d.figures.AtMost("ledger thawed after the deadline, no agent", late.Seconds(), "s", 1)
	if _, err := d.ledger.Query(ctx, "SELECT 1"); err != nil {
		return err
	}
	if err := d.agent.start(ctx); err != nil {
		return err
	}
	return d.show(ctx, "fault", "list")
}

// undoneAt finds in the agent's log when it undid what it found frozen.
func (d *demo) undoneAt(started time.Time) (time.Duration, error) {
	if d.frozen() {
		return 0, errors.New("ledger is still frozen after the agent's restart")
	}
	b, err := os.ReadFile(d.agent.logFile)
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`time=(\S+) .*msg="operation undone".*uid=frozen-1`).FindSubmatch(b)
	if m == nil {
		return 0, errors.New("the agent's log does not say that it undid the freeze")
	}
	at, err := time.Parse(time.RFC3339Nano, string(m[1]))
	return at.Sub(started), err
}

func (d *demo) footprint(context.Context) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.agent.pid()))
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return errors.New("no VmRSS in the agent's status")
	}
	d.figures.AtMost("agent resident memory", atof(string(m[1]))/1024, "MiB", 60)
	return nil
}

func atof(s string) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return -1
	}
	return v
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func abs(v float64) float64 { return max(v, -v) }

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
