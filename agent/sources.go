package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/mooring-dev/mooring/agent/pods"
)

// sources sets up where instances are looked for.
func (a *Agent) sources() error {
	o := pods.Options{ProcRoot: a.cfg.ProcRoot, CgroupRoot: a.cfg.CgroupRoot}
	// Some hardened hosts hide process 1 even from root; then our own network
	// namespace is the host's as far as this agent can act in it.
	if _, err := os.Readlink(filepath.Join(a.cfg.ProcRoot, "1/ns/net")); err != nil {
		o.HostPID = os.Getpid()
	}
	a.source = pods.NewStandalone(o)
	if !a.cfg.Kubernetes {
		a.setProber(nil)
		return nil
	}
	client, err := pods.NewClient(a.cfg.Kubeconfig)
	if err != nil {
		return err
	}
	a.setProber(pods.NewSecrets(client.CoreV1()))
	k := pods.NewKubernetes(client, a.cfg.NodeName, o)
	api := pods.NewAPIServer(client.CoreV1().RESTClient())
	a.source, a.pods, a.api = both{kubernetes: k, standalone: a.source}, k, api
	a.background = append(a.background, Service{Name: "kubernetes", Run: k.Run}, Service{Name: "api-server", Run: api.Run})
	return nil
}

// apiServer is what is known of the API server; see pods.APIServer.
type apiServer interface {
	Reachability() pods.Reachability
}

// both looks among the node's pods and among its processes.
type both struct{ kubernetes, standalone pods.Source }

// Instances implements pods.Source. Until the API server has answered once,
// what is found on the node itself is reported, and what is declared of it.
func (b both) Instances(ctx context.Context) (pods.Result, error) {
	alone, err := b.standalone.Instances(ctx)
	if err != nil {
		return pods.Result{}, err
	}
	k8s, err := b.kubernetes.Instances(ctx)
	if errors.Is(err, pods.ErrNotSynced) {
		alone.Unresolved = append(alone.Unresolved, err.Error())
		return alone, nil
	}
	if err != nil {
		return pods.Result{}, err
	}
	return pods.Merge(k8s, alone), nil
}
