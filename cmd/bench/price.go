package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/sqltext"
	"github.com/mooring-dev/mooring/bpf"
	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
	"github.com/mooring-dev/mooring/cmd/internal/figure"
)

// price runs pgbench -S in pairs, with the probe on and off in alternating
// order, and records the median of the pairs' ratios of throughput.
func price(ctx context.Context, pg *dbserver.Server, pairs, seconds int, figures *figure.Set) error {
	if out, err := pgbench(ctx, pg, "-i", "-q", "-s", "5"); err != nil {
		return fmt.Errorf("fill: %w: %s", err, out)
	}
	mode, err := bestMode(ctx)
	if err != nil {
		return err
	}
	if _, err := throughput(ctx, pg, seconds, ""); err != nil { // warms the caches
		return err
	}
	var ratios []float64
	for i := range pairs {
		var tps [2]float64 // off, on
		for _, on := range [][2]int{{0, 1}, {1, 0}}[i%2] {
			m := bpf.Mode("")
			if on == 1 {
				m = mode
			}
			if tps[on], err = throughput(ctx, pg, seconds, m); err != nil {
				return err
			}
		}
		ratios = append(ratios, tps[1]/tps[0])
		fmt.Printf("pair %2d: off %8.0f tps  on %8.0f tps  ratio %.4f\n", i+1, tps[0], tps[1], tps[1]/tps[0])
	}
	slices.Sort(ratios)
	median := ratios[len(ratios)/2]
	figures.Measured(figure.Figure{
		Name: "pgbench -S throughput with the probe and digests (" + string(mode) + "), as a ratio of without", Value: median,
		Goal: ">= 0.99", OK: median >= 0.99, N: len(ratios), Spread: ratios[len(ratios)*3/4] - ratios[len(ratios)/4],
	})
	return nil
}

// bestMode is the probe the agent would use here.
func bestMode(ctx context.Context) (bpf.Mode, error) {
	var errs []error
	for _, m := range []bpf.Mode{bpf.ModeFentry, bpf.ModeTracepoint} {
		s, err := bpf.OpenStatements(m)
		if err == nil {
			err = errors.Join(s.Verify(ctx), s.Close())
		}
		if err == nil {
			return m, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", m, err))
	}
	return "", errors.Join(errs...)
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// throughput runs pgbench -S once; with a mode, under the probe, and then also
// checks that the probe saw the run.
func throughput(ctx context.Context, pg *dbserver.Server, seconds int, mode bpf.Mode) (float64, error) {
	var probe *bpf.Statements
	if mode != "" {
		var err error
		if probe, err = bpf.OpenStatements(mode); err != nil {
			return 0, err
		}
		defer probe.Close()
		w := bpf.Watched{ID: "pg", Protocol: bpf.ProtocolPostgres, PIDs: []int{pg.PID}, Ports: []uint16{uint16(pg.Port)}}
		if err := probe.Set([]bpf.Watched{w}); err != nil {
			return 0, err
		}
		stop := readDigests(ctx, probe)
		defer stop()
	}
	out, err := pgbench(ctx, pg, "-n", "-S", "-c", "4", "-j", "1", "-T", strconv.Itoa(seconds))
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w: %s", err, out)
	}
	m := tpsLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("pgbench printed no throughput: %s", out)
	}
	tps, err := strconv.ParseFloat(m[1], 64)
	if err != nil || probe == nil {
		return tps, err
	}
	ops, err := probe.Read("pg")
	if err != nil {
		return 0, err
	}
	var seen uint64
	for _, o := range ops {
		seen += o.Count
	}
	if float64(seen) < tps*float64(seconds)*0.9 {
		return 0, fmt.Errorf("the probe saw %d statements of about %.0f", seen, tps*float64(seconds))
	}
	return tps, nil
}

// readDigests numbers the texts that the probe tells of as an agent does, until
// the function returned is called.
func readDigests(ctx context.Context, probe *bpf.Statements) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- probe.ReadEvents(ctx, &numberer{probe: probe, numbers: map[uint64]uint32{}}) }()
	return func() {
		cancel()
		<-ended
	}
}

// numberer gives each shape of statement a number.
type numberer struct {
	probe   *bpf.Statements
	numbers map[uint64]uint32
}

// Text implements bpf.EventHandler. A text that cannot be mapped stays unsampled,
// which costs no less.
func (n *numberer) Text(t *bpf.Text) {
	key := sqltext.Key(sqltext.PostgreSQL, t.Text)
	number, ok := n.numbers[key]
	if !ok {
		number = bpf.FirstDigest + uint32(len(n.numbers))
		n.numbers[key] = number
	}
	_ = n.probe.MapText(t.ID, t.Hash, number)
}

// Record implements bpf.EventHandler.
func (n *numberer) Record(*bpf.Record) {}

// Session implements bpf.EventHandler.
func (n *numberer) Session(*bpf.Session) {}

func pgbench(ctx context.Context, pg *dbserver.Server, args ...string) (string, error) {
	cmd, err := dbserver.Command(ctx, pg.Root, "", "pgbench", append(args, "-h", pg.Address, "-p", strconv.Itoa(pg.Port), "-U", "postgres", "postgres")...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// footprint starts the real agent beside two idle databases and reads what it
// used in a while.
func footprint(ctx context.Context, dir string, while time.Duration, figures *figure.Set) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	var log strings.Builder
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(self), "mooring-agent"),
		"--state-dir", filepath.Join(dir, "state"), "--socket", filepath.Join(dir, "agent.sock"), "--metrics", "127.0.0.1:29750")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		if cmd.Process.Signal(os.Interrupt) == nil {
			<-ended
		}
	}()
	// The agent probes the node and reads everything for the first time; that
	// is not idling.
	if err := sleep(ctx, ended, 15*time.Second); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	before, _, err := used(cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := sleep(ctx, ended, while); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	after, rss, err := used(cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("agent over %v with two idle databases: %v of CPU, %.1f MiB resident\n", while, after-before, rss)
	figures.AtMost("agent CPU when idle", 100*float64(after-before)/float64(while), "% of a core", 1)
	figures.AtMost("agent resident memory", rss, "MiB", 100)
	return nil
}

// sleep waits, or says that the agent ended meanwhile.
func sleep(ctx context.Context, ended <-chan error, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-ended:
		return fmt.Errorf("agent ended: %w", err)
	case <-time.After(d):
		return nil
	}
}

// used returns a process's CPU time and resident MiB.
func used(pid int) (time.Duration, float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 22 {
		return 0, 0, fmt.Errorf("stat of %d has %d fields", pid, len(f))
	}
	var n [3]int64
	for i, field := range []int{11, 12, 21} { // utime, stime, rss: proc(5), counted behind the command name
		if n[i], err = strconv.ParseInt(f[field], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("read stat of %d: %w", pid, err)
		}
	}
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(n[0]+n[1]) * tick, float64(n[2]) * float64(os.Getpagesize()) / (1 << 20), nil
}
