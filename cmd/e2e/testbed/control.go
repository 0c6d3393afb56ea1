package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// etcdURL is where etcd listens.
const etcdURL = "http://127.0.0.1:2379"

// ControlPlane is the part of Kubernetes that runs on this machine.
type ControlPlane struct {
	cache    *Cache
	launcher *Launcher
	dir      string // for data and logs
	keys     string
	ended    func(error)
	config   *rest.Config

	Etcd, Server, Manager, Scheduler *Process
}

// start brings everything up, each as soon as what it needs is there.
func (c *ControlPlane) start(ctx context.Context, note func(string)) error {
	var err error
	if c.Etcd, err = c.launch("etcd", c.cache.Control("usr/bin/etcd"),
		"--name=e2e", "--data-dir="+filepath.Join(c.dir, "etcd"), "--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=e2e=http://127.0.0.1:2380"); err != nil {
		return err
	}
	if err := poll(ctx, 30*time.Second, "etcd to be healthy", func(ctx context.Context) error { return get(ctx, etcdURL+"/health") }); err != nil {
		return err
	}
	note("etcd")
	if err := c.StartServer(ctx); err != nil {
		return err
	}
	note("API server")
	// With the 20 calls a second that are the default, taking a namespace away lasts
	// 7 s: it is two calls for each kind there is.
	if c.Manager, err = c.launch("kube-controller-manager", c.cache.Kube("kube-controller-manager"),
		"--kubeconfig="+c.key(managerConfig), "--service-account-private-key-file="+c.key(serviceKeyFile),
		"--root-ca-file="+c.key(authorityFile), "--use-service-account-credentials=true", "--leader-elect=false",
		"--bind-address=127.0.0.1", "--cert-dir="+c.dir, "--profiling=false", "--kube-api-qps=500", "--kube-api-burst=1000"); err != nil {
		return err
	}
	if c.Scheduler, err = c.launch("kube-scheduler", c.cache.Kube("kube-scheduler"),
		"--kubeconfig="+c.key(schedulerConfig), "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+c.dir, "--profiling=false"); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if err := poll(ctx, 2*time.Minute, "the default service account", func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	}); err != nil {
		return err
	}
	note("controller manager")
	return nil
}

func (c *ControlPlane) key(name string) string { return filepath.Join(c.keys, name) }

func (c *ControlPlane) launch(name, program string, args ...string) (*Process, error) {
	cmd := exec.Command(program, args...)
	// One node's worth of objects: less memory matters more than collecting less often.
	cmd.Env = append(os.Environ(), "GOGC=50")
	return c.launcher.Start(name, filepath.Join(c.dir, name+".log"), cmd, c.ended)
}

// StartServer starts the API server and waits until it is ready.
func (c *ControlPlane) StartServer(ctx context.Context) error {
	var err error
	c.Server, err = c.launch("kube-apiserver", c.cache.Kube("kube-apiserver"),
		"--etcd-servers="+etcdURL, "--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address="+node.Gateway,
		"--tls-cert-file="+c.key(serverPair+".crt"), "--tls-private-key-file="+c.key(serverPair+".key"), "--client-ca-file="+c.key(authorityFile),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+c.key(serviceKeyFile),
		"--service-account-key-file="+c.key(serviceKeyFile), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-cluster-ip-range=10.96.0.0/16", "--kubelet-client-certificate="+c.key(serverClientPair+".crt"),
		"--kubelet-client-key="+c.key(serverClientPair+".key"), "--kubelet-preferred-address-types=InternalIP",
		// To endpoints and not to service addresses: nobody translates those here,
		// and a webhook is to be reached.
		"--enable-aggregator-routing=true", "--allow-privileged=true", "--cert-dir="+c.dir, "--profiling=false")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	return poll(ctx, time.Minute, "the API server to be ready", func(ctx context.Context) error {
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// StopServer ends the API server; everything else of the cluster goes on.
// At once and not by SIGTERM: it would first wait a minute for its watchers.
func (c *ControlPlane) StopServer() error { return c.Server.Kill() }

// FreezeServer stops the API server in the middle of what it does: connections
// stay open and nobody answers, as with a server that is lost in a partition.
func (c *ControlPlane) FreezeServer(ctx context.Context) error { return c.Server.Freeze(ctx) }

// ThawServer ends FreezeServer.
func (c *ControlPlane) ThawServer() error { return c.Server.Thaw() }

// processes are those that were started, in the order to end them: an API
// server whose etcd is gone would not end.
func (c *ControlPlane) processes() []*Process {
	var list []*Process
	for _, p := range []*Process{c.Server, c.Manager, c.Scheduler, c.Etcd} {
		if p != nil {
			list = append(list, p)
		}
	}
	return list
}

// Eventually asks until the answer is no error, ten times a second. Its own error
// names what was waited for and the last answer.
func (c *Cluster) Eventually(ctx context.Context, limit time.Duration, what string, ask func(context.Context) error) error {
	return poll(ctx, limit, what, ask)
}

// poll asks until the answer is no error. Its own error names what was waited
// for and the last answer.
func poll(ctx context.Context, limit time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	for {
		one, stop := context.WithTimeout(ctx, 5*time.Second)
		err := ask(one)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
