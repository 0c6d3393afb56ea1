package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	"github.com/mooring-dev/mooring/controller/fleet"
)

const (
	// workers is how many keys have their turn at once: one that waits for a slow
	// agent must not keep the leases of others from being renewed.
	workers = 16
	// firstRetry and lastRetry bound the wait after a turn that failed.
	firstRetry = 20 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Options are what a Controller is made with.
type Options struct {
	// Config says how to reach the API server. It is copied.
	Config *rest.Config
	// Namespace is where the controller, its Lease and the agents are.
	Namespace string
	// Identity names this controller in the Lease.
	Identity string
	// LeaderElect is false for a controller that is known to be alone.
	LeaderElect bool
	// AgentSelector finds the agents' pods by label.
	AgentSelector string
	// AgentPort is where agents serve the controller.
	AgentPort int
	// AgentName is the DNS name that an agent's certificate must carry.
	AgentName string
	// TLSDir holds tls.crt, tls.key and ca.crt.
	TLSDir string
	Log    *slog.Logger
}

// Controller runs the loop.
type Controller struct {
	opts     Options
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *metrics
	fleet    *fleet.Fleet
	queue    workqueue.TypedRateLimitingInterface[key]
	r        *reconciler
	source   *source
	// waits says what the controller still waits for; empty when it is ready.
	waits atomic.Pointer[string]
	// reader lists from the synced cache; nil before that.
	reader atomic.Pointer[client.Reader]
}

// New checks o and returns a Controller that has not contacted anything yet.
func New(o Options) (*Controller, error) {
	selector, err := labels.Parse(o.AgentSelector)
	if err != nil {
		return nil, fmt.Errorf("agent selector %q: %w", o.AgentSelector, err)
	}
	var errs []error
	for _, f := range []struct{ name, value string }{{"namespace", o.Namespace}, {"identity", o.Identity}, {"agent selector", o.AgentSelector}, {"agent name", o.AgentName}, {"TLS directory", o.TLSDir}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("the %s is empty", f.name))
		}
	}
	if o.AgentPort < 1 || o.AgentPort > 65535 {
		errs = append(errs, fmt.Errorf("agent port %d is not a TCP port", o.AgentPort))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	o.Config = rest.CopyConfig(o.Config)
	o.Config.QPS, o.Config.Burst = 50, 100
	c := &Controller{opts: o, log: o.Log, registry: prometheus.NewRegistry()}
	c.wait("the API server")
	c.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[key](firstRetry, lastRetry))
	c.metrics = newMetrics(c.registry)
	c.fleet = fleet.New(fleet.Options{TLSDir: o.TLSDir, ServerName: o.AgentName, OnChange: func(node string) { c.source.agent(node) }, Log: o.Log})
	c.r = &reconciler{
		endpoints: c.fleet.Set, agents: c.fleet, metrics: c.metrics, log: o.Log, now: time.Now, renewed: map[string]time.Time{},
		place: agentPlace{namespace: o.Namespace, selector: selector, port: o.AgentPort},
	}
	c.source = &source{r: c.r, add: c.queue}
	c.registry.MustRegister(newGauges(c.cached, c.queue.Len, c.fleet.Count))
	return c, nil
}

func (c *Controller) wait(what string) { c.waits.Store(&what) }

// Waits says what the controller still waits for before it can work; empty when
// it can.
func (c *Controller) Waits() string { return *c.waits.Load() }

func (c *Controller) cached() client.Reader {
	if r := c.reader.Load(); r != nil {
		return *r
	}
	return nil
}

// Run serves l and runs the loop until ctx ends. It waits for what is not there
// yet, so that an error means a mistake in the settings or a port that is taken.
func (c *Controller) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.queue.ShutDown()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := c.serveHTTP(ctx, l); err != nil {
			cancel(fmt.Errorf("serve metrics: %w", err))
		}
	})
	defer cancel(nil)
	if !c.awaitKinds(ctx) {
		return ended(ctx)
	}
	cl, err := c.newCluster()
	if err != nil {
		return err
	}
	if !c.subscribe(ctx, cl) {
		return ended(ctx)
	}
	wg.Go(func() {
		if err := cl.Start(ctx); err != nil {
			cancel(fmt.Errorf("watch the API server: %w", err))
		}
	})
	if !c.awaitCache(ctx, cl) {
		return ended(ctx)
	}
	c.wait("")
	c.log.Info("controller ready", "component", "controller", "identity", c.opts.Identity, "namespace", c.opts.Namespace)
	if err := c.elect(ctx); err != nil {
		return err
	}
	return ended(ctx)
}

// ended is why a context ended, nil when it was asked to.
func ended(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// newCluster makes the cache and the client.
func (c *Controller) newCluster() (cluster.Cluster, error) {
	cl, err := cluster.New(c.opts.Config, func(o *cluster.Options) {
		o.Scheme, o.Cache = newScheme(), cacheOptions()
	})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	c.r.kube, c.r.live, c.r.events = cl.GetClient(), cl.GetAPIReader(), cl.GetEventRecorder("mooring-controller")
	return cl, nil
}

// subscribe sets up the cache, which asks the API server which resources there
// are, until it succeeds.
func (c *Controller) subscribe(ctx context.Context, cl cluster.Cluster) bool {
	indexed := false
	return c.retry(ctx, "set up the cache", func() error {
		if !indexed {
			if err := cl.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, byNode, nodeOf); err != nil {
				return err
			}
			indexed = true
		}
		return c.source.register(ctx, cl.GetCache())
	})
}

// awaitCache waits for the first whole list of everything. Nothing is decided
// before that: a cache that lacks pods would look like pods that are gone.
func (c *Controller) awaitCache(ctx context.Context, cl cluster.Cluster) bool {
	c.wait("the first lists from the API server")
	for ctx.Err() == nil {
		some, cancel := context.WithTimeout(ctx, sayEvery)
		synced := cl.GetCache().WaitForCacheSync(some)
		cancel()
		if synced {
			reader := client.Reader(cl.GetClient())
			c.reader.Store(&reader)
			return true
		}
		if ctx.Err() == nil {
			c.log.Warn("still waiting for the first lists from the API server: is it slow, are the controller's rights missing, or is there an object that cannot be read?", "component", "controller")
		}
	}
	return false
}

// lead works under an epoch until ctx ends, and returns when nothing of it is
// under way any more.
func (c *Controller) lead(ctx context.Context, epoch uint64) {
	c.log.Info("leading", "component", "controller", "epoch", epoch)
	c.metrics.leader.Set(1)
	c.metrics.epoch.Set(float64(epoch))
	c.source.leading.Store(true)
	c.r.termBegins()
	c.fleet.SetEpoch(epoch)
	if err := c.r.findAgents(ctx); err != nil {
		c.log.Error("agents could not be listed", "component", "controller", "err", err)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { c.work(ctx) })
	}
	if err := c.source.everything(ctx); err != nil {
		c.log.Error("what there is could not be listed", "component", "controller", "err", err)
	}
	<-ctx.Done()
	c.source.leading.Store(false)
	// Workers wait in the queue: a key of no kind wakes each of them.
	for i := range workers {
		c.queue.Add(key{name: fmt.Sprint(i)})
	}
	wg.Wait()
	c.fleet.SetEpoch(0)
	c.metrics.leader.Set(0)
	c.metrics.epoch.Set(0)
	c.log.Info("not leading any more", "component", "controller")
}

// work gives keys their turn until ctx ends.
func (c *Controller) work(ctx context.Context) {
	for ctx.Err() == nil {
		k, down := c.queue.Get()
		if down {
			return
		}
		if ctx.Err() == nil && k.kind != "" {
			c.turn(ctx, k)
		} else {
			c.queue.Forget(k)
		}
		c.queue.Done(k)
	}
}

// turn gives one key its turn and says when it has the next.
func (c *Controller) turn(ctx context.Context, k key) {
	begun := time.Now()
	after, err := c.r.reconcile(ctx, k)
	if apierrors.IsConflict(err) {
		// The object changed since it was read; its event is on the way.
		c.metrics.turn(k.kind, time.Since(begun), nil)
		c.queue.AddRateLimited(k)
		return
	}
	c.metrics.turn(k.kind, time.Since(begun), err)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("turn failed, it is repeated", "component", "controller", "kind", string(k.kind), "name", k.object().String(), "err", err)
		}
		c.queue.AddRateLimited(k)
		return
	}
	c.queue.Forget(k)
	if after > 0 {
		c.queue.AddAfter(k, after)
	}
}
