package node

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed files
var files embed.FS

// Ready is the line Run prints once the kubelet serves.
const Ready = "node: kubelet serves"

// Names of the node's services.
const (
	Containerd = "containerd"
	Kubelet    = "kubelet"
)

// guest is the node while it lives.
type guest struct {
	credentials string
	mu          sync.Mutex
	steps       []Step
	services    map[string]*service
	ended       chan error
	halt        chan struct{}
}

// Run makes this machine a node and returns when the host says so, which is no
// error, or when one of the node's services ends by itself. credentials is the
// folder with ca.crt and kubelet.conf. It must run as root in a guest.
func Run(ctx context.Context, credentials string) error {
	if os.Getenv("VMTEST") != "1" {
		return errors.New("this turns a machine into a node: it runs in the guest that e2e starts and nowhere else")
	}
	if err := os.Setenv("PATH", filepath.Join(StateDir, "bin")+":"+os.Getenv("PATH")); err != nil {
		return fmt.Errorf("set PATH: %w", err)
	}
	g := &guest{credentials: credentials, ended: make(chan error, 4), halt: make(chan struct{}, 1)}
	g.services = map[string]*service{
		Containerd: newService(Containerd, g.ended, listens("unix", "/run/containerd/containerd.sock"), "containerd", "--config", "/etc/containerd/config.toml"),
		Kubelet: newService(Kubelet, g.ended, healthy("http://127.0.0.1:10248/healthz"), "kubelet", "--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.conf",
			"--hostname-override="+Name, "--node-ip="+IP, "--root-dir=/var/lib/kubelet", "--cert-dir=/run/kubelet-pki", "--v=1"),
	}
	defer g.stopServices()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"network", g.network},
		{"server", g.serve},
		{"mounts", g.mounts},
		{"configuration", g.configure},
		{"warm cpu.max", g.warm},
		{"cgroup of the node's services", g.group},
		{Containerd, g.startContainerd},
		{Kubelet, g.startKubelet},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		g.done(step.name)
	}
	fmt.Println(Ready)
	select {
	case err := <-g.ended:
		return err
	case <-g.halt:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// done notes that a step is over.
func (g *guest) done(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steps = append(g.steps, Step{name, boottime()})
	fmt.Printf("node: %6.1fs %s\n", boottime().Seconds(), name)
}

// boottime reads the clock that goes on in a suspended machine.
func boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func (g *guest) network(ctx context.Context) error {
	for _, line := range []string{
		"modprobe -a veth bridge",
		"ip addr add " + IP + "/24 dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + Gateway,
	} {
		if err := sh(ctx, line); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(Name)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	return writeAll(map[string]string{
		"/proc/sys/net/ipv4/ip_forward": "1",
		"/etc/hostname":                 Name + "\n",
		"/etc/hosts":                    "127.0.0.1 localhost\n" + IP + " " + Name + "\n",
		// Empty: a look-up is to fail at once instead of waiting for nobody.
		"/etc/resolv.conf": "",
	})
}

// mounts puts what grows on the disk, under the names every node has.
func (g *guest) mounts(context.Context) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	for _, m := range []struct{ from, to string }{
		{"containerd", "/var/lib/containerd"}, {"kubelet", "/var/lib/kubelet"}, {"pods", "/var/log/pods"}, {"log", "/var/log/node"},
	} {
		from := filepath.Join(StateDir, m.from)
		if err := errors.Join(os.MkdirAll(from, 0o755), os.MkdirAll(m.to, 0o755)); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(from, m.to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", from, m.to, err)
		}
		if err := unix.Mount("", m.to, "", unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("share %s: %w", m.to, err)
		}
	}
	return nil
}

// configuration says which of our files goes where.
func configuration() map[string]string {
	return map[string]string{
		"containerd.toml": "/etc/containerd/config.toml",
		"kubelet.yaml":    "/etc/kubernetes/kubelet.yaml",
		"cni.conflist":    "/etc/cni/net.d/10-pods.conflist",
	}
}

func (g *guest) configure(context.Context) error {
	out := map[string]string{}
	for from, to := range configuration() {
		b, err := files.ReadFile("files/" + from)
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		out[to] = string(b)
	}
	for _, name := range []string{"ca.crt", "kubelet.conf"} {
		b, err := os.ReadFile(filepath.Join(g.credentials, name))
		if err != nil {
			return fmt.Errorf("read credentials: %w", err)
		}
		out["/etc/kubernetes/"+name] = string(b)
	}
	return writeAll(out)
}

// warm writes a first cpu.max and keeps it. The kernel patches its own text
// when the first group gets a quota (cfs_bandwidth_used in kernel/sched/fair.c),
// and is to do so while the machine is idle.
func (g *guest) warm(context.Context) error {
	dir := "/sys/fs/cgroup/warm"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	return writeAll(map[string]string{filepath.Join(dir, "cpu.max"): "50000 100000"})
}

// group gives the services a cgroup beside the pods', as systemd does. Left in the
// root group each of their threads would weigh as much as all pods together.
func (g *guest) group(context.Context) error {
	dir := "/sys/fs/cgroup/system"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, s := range g.services {
		s.group = dir
	}
	return nil
}

func (g *guest) startContainerd(context.Context) error { return g.services[Containerd].start() }

func (g *guest) startKubelet(context.Context) error { return g.services[Kubelet].start() }

// listens says whether somebody accepts connections.
func listens(network, address string) func() bool {
	return func() bool {
		c, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
}

// healthy says whether a page answers with 200.
func healthy(address string) func() bool {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	return func() bool {
		r, err := client.Get(address)
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	}
}

func (g *guest) stopServices() {
	for _, name := range []string{Kubelet, Containerd} {
		if err := g.services[name].stop(); err != nil {
			fmt.Println("node:", err)
		}
	}
}

// sh runs one command line of plain words.
func sh(ctx context.Context, line string) error {
	f := strings.Fields(line)
	if out, err := exec.CommandContext(ctx, f[0], f[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func writeAll(content map[string]string) error {
	for name, text := range content {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure: %w", err)
		}
	}
	return nil
}
