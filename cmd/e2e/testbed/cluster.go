package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Options say what to bring up.
type Options struct {
	// Cache must stay open until Down.
	Cache *Cache
	// Dir is an empty folder for this run, on the cache folder's file system.
	Dir   string
	Build Build
	// Kernel is the guest's, such as "6.1"; Memory its memory, such as "4G".
	Kernel, Memory string
	// Limit ends the virtual machine.
	Limit time.Duration
	// Say is told of each step, and must be safe for concurrent use.
	Say func(format string, args ...any)
}

// Phase is one step of coming up.
type Phase struct {
	Name string
	// Took is the time the step took itself; Done is when it was over, since Up began.
	Took, Done time.Duration
}

// Cluster is a running Kubernetes.
type Cluster struct {
	Options
	Control *ControlPlane
	// Node looks at the node from outside, past the API server.
	Node *node.Client
	// Machine is vmtest, which ends with the guest.
	Machine *Process
	// Config and Client speak to the API server as cluster-admin, Typed for what
	// is no object: logs, and the subresources of pods.
	Config *rest.Config
	Client client.Client
	Typed  kubernetes.Interface
	// Authority signs certificates that the cluster trusts.
	Authority *Authority

	launcher *Launcher
	clients  *overlay
	begun    time.Time
	mu       sync.Mutex
	phases   []Phase
	others   []*Process
	cancel   context.CancelCauseFunc
	watching sync.WaitGroup
	reached  atomic.Bool // the guest has answered
	halted   chan struct{}
}

// Up brings a cluster up, until the node is Ready. The context returned ends
// with ctx, and with a cause as soon as something of the cluster breaks. Down
// must be called even after an error.
func Up(ctx context.Context, o Options) (*Cluster, context.Context, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &Cluster{
		Options: o, launcher: NewLauncher(), begun: time.Now(), cancel: cancel,
		Node: node.NewClient(node.Address), halted: make(chan struct{}),
	}
	if err := c.prepare(); err != nil {
		return c, ctx, err
	}
	c.Control = &ControlPlane{
		cache: o.Cache, launcher: c.launcher, dir: filepath.Join(o.Dir, "control"), keys: filepath.Join(o.Dir, "keys"),
		ended: cancel, config: c.Config,
	}
	err := together(ctx, cancel,
		func(ctx context.Context) error { return c.Control.start(ctx, c.track()) },
		func(ctx context.Context) error { return c.startNode(ctx, c.track()) },
	)
	if err != nil {
		return c, ctx, err
	}
	return c, ctx, c.nodeReady(ctx)
}

// together runs the functions at the same time. The first error ends the
// others and is the one returned.
func together(ctx context.Context, cancel context.CancelCauseFunc, functions ...func(context.Context) error) error {
	var wait sync.WaitGroup
	for _, f := range functions {
		wait.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// prepare makes the network, the keys and the clients: all that takes no time.
func (c *Cluster) prepare() error {
	note := c.track()
	if err := makeNetwork(); err != nil {
		return err
	}
	for _, d := range []string{"control", "guest", "build"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o755); err != nil {
			return fmt.Errorf("make folder of the run: %w", err)
		}
	}
	var err error
	if c.Authority, err = writeCredentials(filepath.Join(c.Dir, "keys")); err != nil {
		return err
	}
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig()); err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	// No limit of our own: the test itself decides how often it asks.
	c.Config.QPS = -1
	// Nor a proxy: one of the machine's knows another network.
	c.Config.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	if c.Typed, err = kubernetes.NewForConfig(c.Config); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	b := c.builder()
	if c.clients, err = b.overlay("clients"); err != nil {
		return err
	}
	note("network and keys")
	return nil
}

// Kubeconfig is the file by which kubectl is cluster-admin, within the network
// namespace.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "keys", adminConfig) }

func (c *Cluster) builder() *builder {
	return &builder{cache: c.Cache, launcher: c.launcher, build: c.Build, dir: filepath.Join(c.Dir, "build")}
}

// track returns a function that records phases, each from the end of the one before.
func (c *Cluster) track() func(string) {
	last := time.Now()
	return func(name string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		now := time.Now()
		c.phases = append(c.phases, Phase{name, now.Sub(last), now.Sub(c.begun)})
		c.Say("%s: %.1f s", name, now.Sub(last).Seconds())
		last = now
	}
}

// Phases are the steps so far, in the order in which they ended.
func (c *Cluster) Phases() []Phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Phase(nil), c.phases...)
}

// startNode makes the disk, boots the guest and waits until its kubelet runs.
func (c *Cluster) startNode(ctx context.Context, note func(string)) error {
	disk, err := c.builder().make(ctx, note)
	if err != nil {
		return err
	}
	guest := filepath.Join(c.Dir, "guest")
	// A copy, for the guest caches what it reads here: nobody is to build
	// another over it.
	for from, to := range map[string]string{
		"/proc/self/exe": "e2e", filepath.Join(c.Dir, "keys", kubeletConfig): kubeletConfig, filepath.Join(c.Dir, "keys", authorityFile): authorityFile,
	} {
		if err := c.copyProgram(from, filepath.Join(guest, to)); err != nil {
			return err
		}
	}
	cmd := exec.Command(filepath.Join(c.Build.Bin, "vmtest"), "-kernel", c.Kernel, "-memory", c.Memory, "-disk", "0",
		"-image", disk, "-tap", tapName, "-timeout", c.Limit.String(), "-hang", hang.String(), "--", "./e2e", "node", guest)
	cmd.Dir = guest
	cmd.Env = append(os.Environ(), "TMPDIR="+c.Dir)
	log := filepath.Join(c.Dir, "node.log")
	if c.Machine, err = c.launcher.Start("the virtual machine", log, cmd, c.cancel); err != nil {
		return err
	}
	if err := poll(ctx, 4*time.Minute, "the guest's network", func(ctx context.Context) error {
		_, err := c.Node.Status(ctx)
		return err
	}); err != nil {
		return err
	}
	c.reached.Store(true)
	note("guest boot")
	c.watching.Go(func() { c.watch(ctx) })
	if err := poll(ctx, 4*time.Minute, "containerd and the kubelet", func(ctx context.Context) error {
		s, err := c.Node.Status(ctx)
		if err == nil && !s.Up() {
			err = fmt.Errorf("the node came as far as %v", s.Steps)
		}
		return err
	}); err != nil {
		return err
	}
	note("containerd and kubelet")
	return nil
}

func (c *Cluster) copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy to the guest's folder: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("copy to the guest's folder: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy to the guest's folder: %w", err)
	}
	return nil
}

// silence is how long the node may give no answer before the run is over. vmtest
// is quicker to say that the whole guest hangs, for it can also say where.
const (
	silence = 30 * time.Second
	hang    = 25 * time.Second
)

// watch asks the node for a sign of life each second.
func (c *Cluster) watch(ctx context.Context) {
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.halted:
			return
		case <-time.After(time.Second):
		}
		one, stop := context.WithTimeout(ctx, 5*time.Second)
		_, err := c.Node.Status(one)
		stop()
		if err == nil {
			last = time.Now()
		} else if time.Since(last) > silence {
			c.cancel(fmt.Errorf("the node gave no sign of life for %v: %w", silence, err))
			return
		}
	}
}

// scheme is what the client can encode without being told more.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	err := clientscheme.AddToScheme(s)
	return s, err
}

// Down ends everything and returns what went wrong at the end: among it, what
// the guest's kernel complained of during the whole run.
func (c *Cluster) Down() error {
	var errs []error
	if c.Machine != nil {
		c.Machine.Expect()
		close(c.halted)
		errs = append(errs, c.haltMachine())
	}
	c.mu.Lock()
	others := c.others
	c.mu.Unlock()
	for _, p := range others {
		errs = append(errs, p.Kill())
	}
	if c.Control != nil {
		for _, p := range c.Control.processes() {
			errs = append(errs, p.Kill())
		}
	}
	c.cancel(errors.New("the cluster is down"))
	c.watching.Wait()
	if c.clients != nil {
		errs = append(errs, c.clients.unmount())
	}
	return errors.Join(errs...)
}

// haltMachine lets the guest end in good order, so that vmtest judges it, and
// kills it if it does not. One that has ended already was reported before.
func (c *Cluster) haltMachine() error {
	select {
	case <-c.Machine.Done():
		return nil
	default:
	}
	if !c.reached.Load() {
		return c.Machine.Stop(10 * time.Second)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := c.Node.Halt(ctx); err != nil {
		return errors.Join(err, c.Machine.Stop(10*time.Second))
	}
	err := c.Machine.Wait(ctx)
	if ctx.Err() != nil {
		return errors.Join(errors.New("the guest did not end within a minute"), c.Machine.Stop(10*time.Second))
	}
	if err != nil {
		return fmt.Errorf("the virtual machine: %w\n%s", err, strings.TrimSpace(tail(c.Machine.Log, 8192)))
	}
	return nil
}

// ResidentMemory is the memory in bytes of the virtual machine and of the
// control plane.
func (c *Cluster) ResidentMemory() (machine, control int64) {
	for _, p := range c.Control.processes() {
		control += p.Memory()
	}
	return c.Machine.Memory(), control
}
