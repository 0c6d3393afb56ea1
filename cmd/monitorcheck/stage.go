package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
	"github.com/mooring-dev/mooring/cmd/internal/figure"
	"github.com/mooring-dev/mooring/deploy/monitoring"
)

const (
	agentAddress = "127.0.0.1:29760"
	redisPort    = "26379"
)

// check brings everything up, waits, and asks every query of both servers.
func check(ctx context.Context, dir string, o options, figures *figure.Set) (err error) {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := tree(dir)
	if err != nil {
		return err
	}
	pg, err := dbserver.StartPostgres(ctx, dbserver.Options{Root: root, Dir: "/srv/pg", Address: "127.0.0.1", Port: 25442})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	my, err := dbserver.StartMariaDB(ctx, dbserver.Options{Root: root, Dir: "/srv/my", Address: "127.0.0.1", Port: 23316})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, my.Stop()) }()
	all := &programs{dir: dir}
	defer all.stop()
	redis, err := dbserver.Command(context.WithoutCancel(ctx), root, "redis", "redis-server", "--port", redisPort, "--bind", "127.0.0.1", "--save", "", "--dir", "/tmp")
	if err != nil {
		return err
	}
	if err := all.start("redis", redis); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	agent := exec.Command(filepath.Join(filepath.Dir(self), "mooring-agent"), "--probe", o.probe,
		"--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "agent.sock"), "--metrics", agentAddress)
	if err := all.start("agent", agent); err != nil {
		return err
	}
	servers, err := prometheis(dir, o.rules, all)
	if err != nil {
		return err
	}
	loaded, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- load(loaded, pg, my) }()
	select {
	case <-ctx.Done():
	case err = <-ended:
	case <-time.After(o.warm):
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		for _, s := range servers {
			err = errors.Join(err, s.askAll(ctx, monitoring.Dashboards(), figures))
		}
	}
	stop()
	return errors.Join(err, all.died())
}

// load is what keeps the databases busy: reads and writes, transactions, errors.
func load(ctx context.Context, pg, my *dbserver.Server) error {
	bench := []string{"-h", pg.Address, "-p", strconv.Itoa(pg.Port), "-U", "postgres", "postgres"}
	fill, err := dbserver.Command(ctx, pg.Root, "", "pgbench", append([]string{"-i", "-q", "-s", "1"}, bench...)...)
	if err != nil {
		return err
	}
	if out, err := fill.CombinedOutput(); err != nil {
		return fmt.Errorf("fill: %w: %s", err, out)
	}
	// Each run begins with logins.
	for ctx.Err() == nil {
		run, err := dbserver.Command(ctx, pg.Root, "", "pgbench", append([]string{"-n", "-c", "2", "-T", "2", "-R", "50"}, bench...)...)
		if err != nil {
			return err
		}
		if out, err := run.CombinedOutput(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("pgbench: %w: %s", err, out)
		}
		// The last statement of each fails on purpose.
		if _, err := pg.Query(ctx, "BEGIN; SELECT count(*) FROM pgbench_accounts; ROLLBACK; SELECT 1/0"); err == nil {
			return errors.New("PostgreSQL divided by zero")
		}
		if _, err := my.Query(ctx, "BEGIN; SELECT SLEEP(0.02); COMMIT; SELECT * FROM nothing.there"); err == nil {
			return errors.New("MariaDB read a table that is not there")
		}
		cli, err := dbserver.Command(ctx, pg.Root, "", "redis-cli", "-p", redisPort, "-r", "50", "SET", "key", "value")
		if err != nil {
			return err
		}
		if out, err := cli.CombinedOutput(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("redis-cli: %w: %s", err, out)
		}
	}
	return nil
}

// programs are those that were started here; they are stopped by their pid.
type programs struct {
	dir  string
	runs []*program
}

type program struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

func (p *programs) start(name string, cmd *exec.Cmd) error {
	log, err := os.Create(filepath.Join(p.dir, name+".log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	r := &program{name, cmd, log, make(chan struct{})}
	p.runs = append(p.runs, r)
	go func() {
		defer close(r.done)
		_ = cmd.Wait() // why it ended is in its log
	}()
	return nil
}

// died says which of them ended before they were told to.
func (p *programs) died() error {
	var errs []error
	for _, r := range p.runs {
		select {
		case <-r.done:
			errs = append(errs, fmt.Errorf("%s ended: %s", r.name, r.tail()))
		default:
		}
	}
	return errors.Join(errs...)
}

func (r *program) tail() string {
	b, err := os.ReadFile(r.log.Name())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2048):]))
}

func (p *programs) stop() {
	for i := len(p.runs) - 1; i >= 0; i-- {
		r := p.runs[i]
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err == nil {
			select {
			case <-r.done:
			case <-time.After(20 * time.Second):
				if err := r.cmd.Process.Kill(); err == nil {
					<-r.done
				}
			}
		}
		r.log.Close()
	}
}
