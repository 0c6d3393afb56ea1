package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/active"
	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/state"
)

// What active probes find flows one way, from here into the snapshot: nothing in
// this package reads it again (TestNothingActsUponActiveProbes).

// logins finds the login of a target: in a secret for a pod, else in the file.
type logins struct {
	secrets *pods.Secrets
	file    active.File
}

// Login implements active.Secrets.
func (l logins) Login(ctx context.Context, t active.Target) (*active.Login, error) {
	if t.Namespace == "" {
		return l.file.Login(ctx, t)
	}
	if l.secrets == nil {
		return nil, errors.New("this agent does not look at Kubernetes: start it with --kubernetes")
	}
	data, err := l.secrets.Get(ctx, t.Namespace, t.Spec.Secret)
	if err != nil {
		return nil, err
	}
	return active.LoginOf(data, t.Spec.TLS)
}

// setProber sets up active probes; secrets is nil without Kubernetes.
func (a *Agent) setProber(secrets *pods.Secrets) {
	a.prober = active.New(logins{secrets, active.File{Path: a.cfg.ProbeLogins}}, active.Dialer(a.cfg.ProcRoot))
	if err := a.restoreRefusals(); err != nil {
		a.log.Warn("refused logins not known from before: each secret has its attempts again", "component", "active", "err", err)
	}
	a.background = append(a.background, Service{Name: "active", Run: a.prober.Run})
}

// refusedFile is where it is kept which logins were refused.
const refusedFile = "refused-logins.json"

// restoreRefusals tells the prober which logins were refused before, and has it
// keep what comes.
func (a *Agent) restoreRefusals() error {
	path := filepath.Join(a.cfg.StateDir, refusedFile)
	data, readErr := os.ReadFile(path)
	if errors.Is(readErr, os.ErrNotExist) {
		readErr = nil
	}
	return errors.Join(readErr, a.prober.Restore(data, func(data []byte) {
		if err := writeDurably(path, data); err != nil {
			a.log.Warn("refused logins not kept for the next agent", "component", "active", "err", err)
		}
	}))
}

// probeTargets tells the prober which instances may be asked.
func (a *Agent) probeTargets(instances []state.Instance) error {
	if a.prober == nil {
		return nil
	}
	targets, err := a.mayBeAsked(instances)
	a.prober.Set(targets)
	return err
}

// mayBeAsked returns the instances whose policy says so, and those outside
// Kubernetes that the file of logins names. The prober says which of them are of
// an engine that it cannot ask.
func (a *Agent) mayBeAsked(instances []state.Instance) ([]active.Target, error) {
	var alone map[string]state.ProbeSpec
	var err error
	if a.cfg.ProbeLogins != "" {
		if alone, err = (active.File{Path: a.cfg.ProbeLogins}).Specs(); err != nil {
			err = fmt.Errorf("active probes: %w", err)
		}
	}
	var targets []active.Target
	for i := range instances {
		in := &instances[i]
		t := active.Target{ID: in.ID, Engine: in.Engine, PID: in.MainPID, PIDs: in.PIDs, Ports: in.Ports}
		switch {
		case in.Declared != nil:
			t.Namespace, t.Spec = in.Namespace, in.Declared.Probe
		case in.Source == "standalone":
			t.Spec = alone[in.ID]
		}
		if t.Spec.Secret != "" {
			targets = append(targets, t)
		}
	}
	return targets, err
}

// readActive puts into the snapshot what active probes found.
func (a *Agent) readActive(next *state.Snapshot) error {
	if a.prober == nil {
		return nil
	}
	found := a.prober.Results()
	stopped := map[string]bool{}
	for i := range next.Instances {
		in := &next.Instances[i]
		in.Active = found[in.ID]
		if in.Active == nil || in.Active.Stopped == "" {
			continue
		}
		stopped[in.ID] = true
		if !a.stopped[in.ID] {
			a.log.Error("active probe stopped", "component", "active", "instance", in.ID, "err", in.Active.Stopped)
		}
	}
	a.stopped = stopped
	return nil
}

// activeToPB returns nil for nil.
func activeToPB(s *state.Active) *agentpb.Active {
	if s == nil {
		return nil
	}
	r := &agentpb.Active{Up: s.Up, Role: s.Role, ReadOnly: s.ReadOnly, LagBytes: s.LagBytes, Stopped: s.Stopped, Note: s.Note}
	if s.Lag != nil {
		r.Lag = durationpb.New(*s.Lag)
	}
	if s.HeartbeatAge != nil {
		r.HeartbeatAge = durationpb.New(*s.HeartbeatAge)
	}
	for _, p := range s.Probes {
		r.Probes = append(r.Probes, &agentpb.ActiveProbe{
			Kind: p.Kind, Ended: timeToPB(p.Ended), Took: durationpb.New(p.Took), Error: p.Err, Failures: maps.Clone(p.Failures),
		})
	}
	return r
}

// probeSpecOf reads how an instance may be asked; what this version does not
// know is refused.
func probeSpecOf(p *agentpb.ActiveProbeSpec) (state.ProbeSpec, error) {
	if p == nil {
		return state.ProbeSpec{}, nil
	}
	if p.Read.CheckValid() != nil || p.WritePeriod != nil && p.WritePeriod.CheckValid() != nil {
		return state.ProbeSpec{}, errors.New("a period cannot be")
	}
	s := state.ProbeSpec{
		Secret: p.GetSecret(), Read: p.GetRead().AsDuration(), Write: p.GetWrite(), WritePeriod: p.GetWritePeriod().AsDuration(),
		Database: p.GetDatabase(), TLS: p.GetTls(),
	}
	return s, active.CheckSpec(s)
}
