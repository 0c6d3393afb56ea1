package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

const (
	socket     = "/run/mooring/agent.sock"
	metricsURL = "http://127.0.0.1:9750/metrics"
)

// agentProcess is the agent as an operator runs it: a process of its own.
type agentProcess struct {
	bin     string
	cmd     *exec.Cmd
	logFile string
	done    chan error
}

// startAgent starts an agent and waits until it answers.
func startAgent(ctx context.Context, bin string) (*agentProcess, error) {
	a := &agentProcess{bin: bin, logFile: "/tmp/agent.log"}
	return a, a.start(ctx)
}

// start runs the binary; the log goes on in the same file.
func (a *agentProcess) start(ctx context.Context) error {
	log, err := os.OpenFile(a.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open agent log: %w", err)
	}
	defer log.Close()
	a.cmd = exec.Command(filepath.Join(a.bin, "mooring-agent"), "--state-dir", "/var/lib/mooring", "--discover", "2s")
	a.cmd.Stdout, a.cmd.Stderr = log, log
	if err := a.cmd.Start(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	a.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }(a.cmd, a.done)
	return a.wait(ctx)
}

// wait returns when the agent has published its first snapshot.
func (a *agentProcess) wait(ctx context.Context) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		_, err := a.status(ctx)
		if err == nil {
			return nil
		}
		select {
		case werr := <-a.done:
			a.done <- werr
			return fmt.Errorf("agent ended: %w\n%s", werr, a.log())
		case <-time.After(200 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("agent does not answer: %w\n%s", err, a.log())
		}
	}
}

func (a *agentProcess) pid() int { return a.cmd.Process.Pid }

// kill ends the agent as the out-of-memory killer would and waits for it.
func (a *agentProcess) kill() {
	if err := a.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		return
	}
	err := <-a.done
	a.done <- err
}

// log returns the end of what the agent wrote.
func (a *agentProcess) log() string {
	b, err := os.ReadFile(a.logFile)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

// ctl runs mooringctl and returns what it printed.
func (a *agentProcess) ctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(a.bin, "mooringctl"), append([]string{"--socket", socket}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("mooringctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// show runs mooringctl and prints the command with its output.
func (d *demo) show(ctx context.Context, args ...string) error {
	d.say("$ mooringctl %s", strings.Join(args, " "))
	out, err := d.agent.ctl(ctx, args...)
	for line := range strings.Lines(out) {
		fmt.Print("         ", line)
	}
	return err
}

// status is what the agent knows.
func (a *agentProcess) status(ctx context.Context) (*agentpb.StatusReply, error) {
	out, err := a.ctl(ctx, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	s := &agentpb.StatusReply{}
	return s, protojson.Unmarshal([]byte(out), s)
}

// instance is what the agent knows of one database.
func (a *agentProcess) instance(ctx context.Context, name string) (*agentpb.Instance, error) {
	s, err := a.status(ctx)
	if err != nil {
		return nil, err
	}
	for _, in := range s.GetInstances() {
		if in.GetName() == name {
			return in, nil
		}
	}
	return nil, fmt.Errorf("the agent does not list %q", name)
}

// fault is what the agent knows of one fault.
func (a *agentProcess) fault(ctx context.Context, uid string) (*agentpb.Fault, error) {
	s, err := a.status(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range s.GetFaults() {
		if f.GetUid() == uid {
			return f, nil
		}
	}
	return nil, fmt.Errorf("the agent does not list fault %q", uid)
}

// metric sums the series of /metrics that have this name and all of these
// label pairs, written as they stand there: `instance="/demo/orders"`.
func metric(ctx context.Context, name string, labels ...string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, metricsURL, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("scrape: %w", err)
	}
	var sum float64
	found := false
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(series, name+"{") {
			continue
		}
		if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("read %q: %w", line, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, errors.New("no series " + name + "{" + strings.Join(labels, ",") + "}")
	}
	return sum, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
