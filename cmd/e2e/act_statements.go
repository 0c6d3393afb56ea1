package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// settled is how long nothing more may be counted once a marker was: a tick of
// the agent's, and two scrapes.
const settled = 3 * time.Second

const prometheusConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
  - job_name: mooring-agent
    honor_labels: true
    static_configs: [{targets: ["172.31.0.11:9750"]}]
  - job_name: mooring-controller
    static_configs: [{targets: ["%s:9752"]}]
`

// startPrometheus starts a real Prometheus that scrapes agent and controller.
func (s *stage) startPrometheus(ctx context.Context) error {
	address, err := s.controllerIP(ctx)
	if err != nil {
		return err
	}
	if s.prometheus, err = s.StartPrometheus(ctx, fmt.Sprintf(prometheusConfig, address)); err != nil {
		return err
	}
	return s.Eventually(ctx, 60*time.Second, "Prometheus to have scraped agent and controller", func(ctx context.Context) error {
		up, err := s.promQL(ctx, "sum(up)")
		if err != nil {
			return err
		}
		if up != 2 {
			return fmt.Errorf("%v of 2 targets are up", up)
		}
		return nil
	})
}

// controllerIP is the address of the controller's only pod.
func (s *stage) controllerIP(ctx context.Context) (string, error) {
	out, err := s.Kubectl(ctx, "get", "pods", "-n", system, "-l", "app.kubernetes.io/name=mooring-controller",
		"-o", "jsonpath={range .items[?(@.status.phase==\"Running\")]}{.status.podIP} {end}")
	if err != nil {
		return "", err
	}
	f := strings.Fields(out)
	if len(f) == 0 {
		return "", errors.New("no controller runs")
	}
	return f[0], nil
}

// promQL asks Prometheus for one number; no series is 0.
func (s *stage) promQL(ctx context.Context, query string) (float64, error) {
	samples, err := s.prometheus.Query(ctx, query)
	if err != nil || len(samples) == 0 {
		return 0, err
	}
	return samples[0].Value, nil
}

// counted is how many statements of one kind Prometheus knows of a pod. A scrape
// that came to nothing takes nothing away.
func (s *stage) counted(ctx context.Context, pod, operations string) (float64, error) {
	return s.promQL(ctx, fmt.Sprintf(`sum(last_over_time(db_server_operation_duration_seconds_count{namespace="shop",pod=%q,db_operation_name=~%q}[1m]))`, pod, operations))
}

// reached runs a statement that nothing else runs, a DELETE, and waits until
// Prometheus has it, and so all that was run before it.
func (s *stage) reached(ctx context.Context, pod string, mark func() error) error {
	before, err := s.counted(ctx, pod, "delete")
	if err != nil {
		return err
	}
	if err := mark(); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if err := s.Eventually(ctx, 60*time.Second, "Prometheus to have the statements of "+pod, func(ctx context.Context) error {
		now, err := s.counted(ctx, pod, "delete")
		if err == nil && now <= before {
			err = fmt.Errorf("it has %v deletes, as before", now)
		}
		return err
	}); err != nil {
		return err
	}
	time.Sleep(settled)
	return nil
}

// pgbenchTables are pgbench's own with a hundredth of the accounts, as the 100,000
// of its -i take the emulated node half a minute. Most of its updates of accounts
// then find no row, which is a statement like any other.
const pgbenchTables = `
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches VALUES (1, 0);
INSERT INTO pgbench_tellers SELECT t, 1, 0 FROM generate_series(1, 10) t;
INSERT INTO pgbench_accounts SELECT a, 1, 0 FROM generate_series(1, 1000) a;`

// prometheusRuns starts Prometheus while other acts are played; the function
// returned waits until it has scraped everything.
func (s *stage) prometheusRuns(ctx context.Context) func() error {
	done := make(chan error, 1)
	go func() { done <- s.startPrometheus(ctx) }()
	return func() error { return <-done }
}

// compareStatements runs a load and holds what Prometheus scraped against the
// databases' own counters.
func (s *stage) compareStatements(ctx context.Context) error {
	if err := s.scraped(); err != nil {
		return err
	}
	mariadb := make(chan comparison, 1)
	go func() {
		own, ours, err := s.compareMariaDB(ctx)
		mariadb <- comparison{own, ours, err}
	}()
	own, ours, err := s.comparePostgreSQL(ctx)
	m := <-mariadb
	if err := errors.Join(err, m.err); err != nil {
		return err
	}
	// The reset is counted by neither alone: it clears itself away, and /metrics
	// has it; the reading of the sum is in /metrics only, for it counts itself at its end.
	s.say("pgbench: pg_stat_statements counted %v, Prometheus has %v (1 more is our own reading)", own, ours)
	s.figures.Equal("statements in Prometheus beyond pg_stat_statements", ours-own-1, "", 0)
	s.say("MariaDB counted %v inserts, Prometheus has %v", m.own, m.ours)
	s.figures.Equal("inserts in Prometheus beyond MariaDB's own count", m.ours-m.own, "", 0)
	// A scrape a second is much for an emulated node, and what follows is timed.
	return s.prometheus.Kill()
}

// comparison is what a database and Prometheus counted.
type comparison struct {
	own, ours float64
	err       error
}

// comparePostgreSQL runs pgbench and returns how many selects, inserts and updates
// pg_stat_statements and Prometheus counted.
func (s *stage) comparePostgreSQL(ctx context.Context) (own, ours float64, err error) {
	address, err := s.serverAddress(ctx, "orders-0")
	if err != nil {
		return 0, 0, err
	}
	host := strings.TrimSuffix(address, ":5432")
	if _, err := s.PostgreSQL(ctx, "orders-0", pgbenchTables); err != nil {
		return 0, 0, fmt.Errorf("fill orders: %w", err)
	}
	mark := func() error {
		_, err := s.PostgreSQL(ctx, "orders-0", "DELETE FROM pgbench_history WHERE false")
		return err
	}
	if err := s.reached(ctx, "orders-0", mark); err != nil {
		return 0, 0, err
	}
	const operations = "select|insert|update"
	before, err := s.counted(ctx, "orders-0", operations)
	if err != nil {
		return 0, 0, err
	}
	if _, err := s.PostgreSQL(ctx, "orders-0", "SELECT pg_stat_statements_reset()"); err != nil {
		return 0, 0, err
	}
	if out, err := s.Output(ctx, "pgbench", "-h", host, "-U", "postgres", "-n", "-M", "extended", "-c", "2", "-t", "50", "postgres"); err != nil {
		return 0, 0, fmt.Errorf("load orders: %w: %s", err, out)
	}
	text, err := s.PostgreSQL(ctx, "orders-0", "SELECT sum(calls) FROM pg_stat_statements WHERE query ~* '^(select|insert|update)'")
	if err != nil {
		return 0, 0, err
	}
	if err := s.reached(ctx, "orders-0", mark); err != nil {
		return 0, 0, err
	}
	after, err := s.counted(ctx, "orders-0", operations)
	if err != nil {
		return 0, 0, err
	}
	own, err = strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("read PostgreSQL's count %q: %w", text, err)
	}
	return own, after - before, nil
}

// compareMariaDB is the same of MariaDB's inserts, of which the kubelet's probes make none.
func (s *stage) compareMariaDB(ctx context.Context) (own, ours float64, err error) {
	if _, err := s.MariaDB(ctx, "ledger-0", "CREATE TABLE IF NOT EXISTS shop.entry (id INT) ENGINE=InnoDB"); err != nil {
		return 0, 0, err
	}
	const inserts = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='COM_INSERT'"
	count := func() (own, ours float64, err error) {
		if err := s.reached(ctx, "ledger-0", func() error {
			_, err := s.MariaDB(ctx, "ledger-0", "DELETE FROM shop.entry WHERE id < 0")
			return err
		}); err != nil {
			return 0, 0, err
		}
		text, err := s.MariaDB(ctx, "ledger-0", inserts)
		if err != nil {
			return 0, 0, err
		}
		if own, err = strconv.ParseFloat(text, 64); err != nil {
			return 0, 0, fmt.Errorf("read MariaDB's count %q: %w", text, err)
		}
		ours, err = s.counted(ctx, "ledger-0", "insert")
		return own, ours, err
	}
	own0, ours0, err := count()
	if err != nil {
		return 0, 0, err
	}
	if _, err := s.MariaDB(ctx, "ledger-0", strings.Repeat("INSERT INTO shop.entry VALUES (1);", 100)); err != nil {
		return 0, 0, err
	}
	own1, ours1, err := count()
	if err != nil {
		return 0, 0, err
	}
	return own1 - own0, ours1 - ours0, nil
}
