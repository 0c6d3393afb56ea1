package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mooring-dev/mooring/agent/active"
	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/digest"
	"github.com/mooring-dev/mooring/agent/journal"
	"github.com/mooring-dev/mooring/agent/pods"
	"github.com/mooring-dev/mooring/agent/record"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
	"github.com/mooring-dev/mooring/bpf"
	"github.com/mooring-dev/mooring/numa"
)

// Agent is one node's agent. Use New, then Run.
type Agent struct {
	cfg Config
	log *slog.Logger

	bootID  string
	cgroups *cgroup.FS
	journal *journal.Journal
	source  pods.Source
	// pods follows what is declared of pods, and api watches the API server;
	// both are nil without Kubernetes.
	pods podSource
	api  apiServer
	// background are the services the sources need, such as an informer.
	background []Service

	snapshot atomic.Pointer[state.Snapshot]
	ticked   *broadcast
	// looks asks for a tick out of turn; the channel sent is closed after it.
	looks chan chan struct{}

	// settings serialises placement and size, and guards settled.
	settings sync.Mutex
	settle   *change.Executor
	// settled says that nothing is placed or sized any more, as the agent ends.
	settled bool
	// unsettled says of interrupted settings what keeps them from being undone.
	unsettledMu sync.Mutex
	unsettled   map[string]string

	// boot is the clock of deadlines and leases, CLOCK_BOOTTIME.
	boot  func() time.Duration
	fence *fence

	// faultMu guards faults and serialises their beginning and end.
	faultMu sync.Mutex
	faults  map[string]*fault
	// withdrawn are uids that were withdrawn before they were known here.
	withdrawn []string
	// closing says that no fault begins any more. Guarded by faultMu.
	closing bool
	breaker *change.Executor
	net     *netHandler
	io      *ioHandler

	// prober asks databases that may be asked; see active.go.
	prober *active.Prober
	// stopped are the instances whose probes were told of as stopped. Only the
	// loop's goroutine uses it.
	stopped map[string]bool

	statements *bpf.Statements
	// digests is nil while statements is.
	digests *digest.Table
	// records is never nil; sink is where they go, nil for nowhere.
	records *record.Recorder
	sink    io.Closer
	// heard is how reading the kernel's events fares.
	heard *heard
	// sinkWatch and sessionsLost are what readRecords saw before. Only the loop's
	// goroutine uses them.
	sinkWatch    sinkWatch
	sessionsLost uint64
	probe        state.Probe

	desired desired
	holder  holder

	capabilities []state.Capability
	damage       string
	// recoverErr is what New could not undo at first, for Uninstall.
	recoverErr error
	collector  collector
	// trends are the instances' last hours.
	trends *trend.Book
}

// New opens what the agent needs and undoes what an earlier agent on this node
// left unfinished. It does not probe and starts nothing; Run does.
func New(cfg Config, log *slog.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	fs, err := cgroup.New(cfg.CgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("open cgroup file system: %w", err)
	}
	boot, err := os.ReadFile(filepath.Join(cfg.ProcRoot, "sys/kernel/random/boot_id"))
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	sink, err := record.Open(cfg.Records, os.Stdout)
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(cfg.StateDir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	a := &Agent{
		cfg:       cfg,
		log:       log,
		bootID:    strings.TrimSpace(string(boot)),
		cgroups:   fs,
		journal:   j,
		records:   record.New(cfg.NodeName, sink),
		ticked:    newBroadcast(),
		looks:     make(chan chan struct{}),
		faults:    map[string]*fault{},
		unsettled: map[string]string{},
		boot:      bpf.BootTime,
		sink:      sink,
		heard:     &heard{log: log},
		fence:     openFence(cfg.StateDir, bpf.BootTime),
		net:       &netHandler{},
		io:        &ioHandler{},
		damage:    j.Damage(),
		probe:     state.Probe{Mode: "off", Detail: "not started"},
		trends:    trend.NewBook(),
	}
	a.holder.held = map[string]*held{}
	a.holder.place = func(ctx context.Context, in *state.InstanceStatus, node *int) (*Outcome, error) {
		return a.Place(ctx, in.ID, numa.SingleNode, node, PlaceOptions{PodUID: in.PodUID})
	}
	handlers := map[change.Class]change.Handler{
		change.File:   &cgroup.Files{},
		change.Freeze: &cgroup.Files{},
		change.Net:    a.net,
		change.IO:     a.io,
	}
	a.settle = change.NewExecutor(handlers, j)
	a.breaker = change.NewExecutor(handlers, j)
	if a.damage != "" {
		log.Error("journal was damaged", "component", "journal", "err", a.damage)
	}
	if d := a.fence.Damage(); d != "" {
		log.Error("record of epochs damaged", "component", "agent", "err", d)
	}
	if a.recoverErr = a.recover(); a.recoverErr != nil {
		log.Error("recovery is incomplete", "component", "agent", "err", a.recoverErr)
	}
	if err := a.sources(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	a.loadPolicy()
	return a, nil
}

// Run probes the node, then ticks until ctx ends. Before it returns it ends
// every active fault, so that a stopped agent leaves nothing behind.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Close()
	a.probeNode(ctx)
	// Loading BPF has read all of the kernel's type information; that memory
	// would otherwise stay resident for good.
	debug.FreeOSMemory()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range a.background {
		wg.Go(func() {
			if err := s.Run(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("source ended", "component", s.Name, "err", err)
			}
		})
	}
	wg.Go(func() { a.renewLeases(ctx, a.net.Renew) })
	wg.Go(func() { a.renewLeases(ctx, a.io.Renew) })
	wg.Go(func() { a.followDesired(ctx) })
	wg.Go(func() { a.readEvents(ctx) })
	wg.Go(func() {
		if err := a.records.Run(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("records end", "component", "records", "err", err)
		}
	})
	a.loop(ctx)
	// Before anything else is waited for: moving a database's memory may take
	// longer than this process is given to end.
	a.stopFaults()
	wg.Wait()
	return nil
}

// loop ticks until ctx ends.
func (a *Agent) loop(ctx context.Context) {
	t := time.NewTicker(a.cfg.Tick)
	defer t.Stop()
	for a.tick(ctx); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			a.tick(ctx)
		case done := <-a.looks:
			a.tick(ctx)
			close(done)
		}
	}
}

// Look has the loop take a fresh snapshot and waits for it, at most for one
// second: whoever changed something shall find it in the next status.
func (a *Agent) Look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	done := make(chan struct{})
	select {
	case a.looks <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// stopFaults refuses new faults and ends those that are active.
func (a *Agent) stopFaults() {
	a.faultMu.Lock()
	a.closing = true
	a.faultMu.Unlock()
	a.endAll("agent stopped")
}

// Close ends active faults, waits for what is being applied, refuses what comes
// after and releases what New and Run opened. Run calls it; it is for a caller
// that never got to Run.
func (a *Agent) Close() {
	a.stopFaults()
	a.settings.Lock()
	a.settled = true
	a.settings.Unlock()
	if a.statements != nil {
		if err := a.statements.Close(); err != nil {
			a.log.Warn("statement probe not closed", "component", "agent", "err", err)
		}
	}
	if a.sink != nil {
		if err := a.sink.Close(); err != nil {
			a.log.Warn("records not closed", "component", "agent", "err", err)
		}
	}
	for _, c := range []interface{ Close() error }{&a.collector.usage, a.net, a.io, a.journal} {
		if err := c.Close(); err != nil {
			a.log.Warn("not closed", "component", "agent", "err", err)
		}
	}
}

// Snapshot returns the newest snapshot, nil before the first tick. It never
// blocks; the result is read only.
func (a *Agent) Snapshot() *state.Snapshot { return a.snapshot.Load() }

// Protocol is the version of the protocol spoken with callers.
func (a *Agent) Protocol() int { return agentpb.Version }

// ClassicBounds are the upper bounds of state.Operation.Classic.
func (a *Agent) ClassicBounds() []time.Duration { return bpf.ClassicBounds() }

// Service is something that runs until its context ends.
type Service struct {
	Name string
	Run  func(context.Context) error
}

// Group runs services until the first one ends or ctx does, then ends all and
// returns the first error.
func Group(ctx context.Context, services ...Service) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(services))
	for _, s := range services {
		go func() {
			err := s.Run(ctx)
			if err != nil {
				err = fmt.Errorf("%s: %w", s.Name, err)
			}
			errs <- err
		}()
	}
	var first error
	for range services {
		err := <-errs
		cancel()
		if first == nil {
			first = err
		}
	}
	return first
}

// broadcast wakes everybody who waits, once per tick.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{})} }

// Wait returns a channel that is closed at the next Wake.
func (b *broadcast) Wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

// Wake closes the channel handed out so far.
func (b *broadcast) Wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}
