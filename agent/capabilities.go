package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/digest"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

// probeTimeout bounds each probe; one that does not answer counts as missing.
const probeTimeout = 30 * time.Second

// Check fires the same probes as Run and returns what this node can do. It
// opens no journal and leaves nothing attached.
func Check(ctx context.Context, cfg Config) ([]state.Capability, error) {
	fs, err := cgroup.New(cfg.CgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("open cgroup file system: %w", err)
	}
	a := &Agent{cfg: cfg, cgroups: fs, log: slog.New(slog.DiscardHandler)}
	a.probeNode(ctx)
	if a.statements != nil {
		err = a.statements.Close()
	}
	return a.capabilities, errors.Join(err, a.collector.usage.Close())
}

// probeNode fires every probe once and keeps the statement probe it settled on.
func (a *Agent) probeNode(ctx context.Context) {
	a.capabilities = append(a.capabilities, a.openStatements(ctx)...)
	a.capabilities = append(a.capabilities, a.collector.usage.openLatency(&a.cfg)...)
	for _, p := range []struct {
		name string
		fire func() (string, error)
	}{
		{"resize", a.cgroups.ProbeLimits},
		{"pin", a.cgroups.ProbeCpuset},
		{"freeze", a.cgroups.ProbeFreeze},
	} {
		detail, err := p.fire()
		c := state.Capability{Name: p.name, OK: err == nil, Detail: detail}
		if err != nil {
			c.Detail = err.Error()
		}
		a.capabilities = append(a.capabilities, c)
	}
	for _, fire := range []func(context.Context) bpf.Feature{bpf.ProbeIOFaults, bpf.ProbeNetFaults} {
		pctx, cancel := context.WithTimeout(ctx, probeTimeout)
		f := fire(pctx)
		cancel()
		a.capabilities = append(a.capabilities, state.Capability{Name: f.Name, OK: f.OK, Detail: f.Detail})
	}
	for _, c := range a.capabilities {
		a.log.Info("capability probed", "component", "agent", "name", c.Name, "ok", c.OK, "detail", c.Detail)
	}
}

// openStatements attaches the best statement probe that fires, and reports on
// every way that was tried.
func (a *Agent) openStatements(ctx context.Context) []state.Capability {
	modes := []bpf.Mode{bpf.ModeFentry, bpf.ModeTracepoint}
	switch a.cfg.Probe {
	case "off":
		a.probe = state.Probe{Mode: "off", Detail: "switched off by --probe=off"}
		return []state.Capability{{Name: "statements", Detail: a.probe.Detail}}
	case "fentry", "tracepoint":
		modes = []bpf.Mode{bpf.Mode(a.cfg.Probe)}
	}
	var caps []state.Capability
	var tried []error
	for _, m := range modes {
		name := "statements-" + string(m)
		if a.statements != nil {
			break // a better one is at work; the others are not attached beside it
		}
		s, err := openVerified(ctx, m)
		if err != nil {
			tried = append(tried, fmt.Errorf("%s: %w", m, err))
			caps = append(caps, state.Capability{Name: name, Detail: err.Error()})
			continue
		}
		a.statements, a.digests = s, digest.New(kernelDigests{s})
		a.probe = state.Probe{Mode: string(m), Detail: "attached and seen to fire"}
		if len(tried) > 0 {
			a.probe.Detail += "; " + oneLine(errors.Join(tried...))
		}
		caps = append(caps, state.Capability{Name: name, OK: true, Detail: "attached and seen to fire"})
	}
	if a.statements == nil {
		a.probe = state.Probe{Mode: "off", Detail: oneLine(errors.Join(tried...))}
	}
	return caps
}

// openVerified attaches a statement probe and keeps it only if it fires.
func openVerified(ctx context.Context, m bpf.Mode) (*bpf.Statements, error) {
	s, err := bpf.OpenStatements(m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := s.Verify(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("attached but did not fire: %w", err), s.Close())
	}
	return s, nil
}
