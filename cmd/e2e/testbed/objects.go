package testbed

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
)

//go:embed manifests
var manifests embed.FS

// Namespace is where the databases are.
const Namespace = "shop"

// nodeReady waits for the node and makes the client, which needs the API server.
func (c *Cluster) nodeReady(ctx context.Context) error {
	note := c.track()
	// The client's own log would complain, with a stack, that nobody chose one.
	log.SetLogger(logr.Discard())
	s, err := scheme()
	if err != nil {
		return fmt.Errorf("make scheme: %w", err)
	}
	if c.Client, err = client.New(c.Config, client.Options{Scheme: s}); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if err := poll(ctx, 3*time.Minute, "the node to be Ready", func(ctx context.Context) error {
		var n corev1.Node
		if err := c.Client.Get(ctx, types.NamespacedName{Name: node.Name}, &n); err != nil {
			return err
		}
		for _, condition := range n.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", n.Status.Conditions)
	}); err != nil {
		return err
	}
	note("node Ready")
	return nil
}

// Objects decodes the documents of a YAML stream.
func Objects(stream []byte) ([]*unstructured.Unstructured, error) {
	var list []*unstructured.Unstructured
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(stream), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(o)
		switch {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, fmt.Errorf("decode manifest %d: %w", len(list)+1, err)
		case len(o.Object) > 0:
			list = append(list, o)
		}
	}
}

// Apply creates the objects of a YAML stream, or changes those that are there
// to it, in order.
func (c *Cluster) Apply(ctx context.Context, stream []byte) error {
	objects, err := Objects(stream)
	if err != nil {
		return err
	}
	for _, o := range objects {
		err := c.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("e2e"), client.ForceOwnership)
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// Delete deletes the objects of a YAML stream, the last first. Those that are
// not there are passed over.
func (c *Cluster) Delete(ctx context.Context, stream []byte) error {
	objects, err := Objects(stream)
	if err != nil {
		return err
	}
	for i := len(objects) - 1; i >= 0; i-- {
		if err := client.IgnoreNotFound(c.Client.Delete(ctx, objects[i])); err != nil {
			return fmt.Errorf("delete %s %s: %w", objects[i].GetKind(), objects[i].GetName(), err)
		}
	}
	return nil
}

// replica is what manifests/replica.yaml needs to know.
type replica struct{ Name, Primary string }

// DeployDatabases applies the databases and waits until the primaries are Ready
// and the replicas run. The function returned waits until the replicas are Ready,
// too, and is to be called once.
func (c *Cluster) DeployDatabases(ctx context.Context) (replicated func() error, err error) {
	note := c.track()
	stream, err := manifests.ReadFile("manifests/shop.yaml")
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := c.Apply(ctx, stream); err != nil {
		return nil, err
	}
	var primary corev1.Pod
	if err := poll(ctx, 2*time.Minute, "the primary's address", func(ctx context.Context) error {
		if err := c.Client.Get(ctx, types.NamespacedName{Namespace: Namespace, Name: "orders-0"}, &primary); err != nil {
			return err
		}
		if primary.Status.PodIP == "" {
			return fmt.Errorf("pod orders-0 is %s and has no address", primary.Status.Phase)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	note("pod orders-0 has an address")
	replicas := []string{"orders-1", "orders-2"}
	for _, name := range replicas {
		stream, err := replicaManifest(replica{name, primary.Status.PodIP})
		if err != nil {
			return nil, err
		}
		if err := c.Apply(ctx, stream); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"orders-0", "ledger-0", "cache-0", "neighbour"} {
		if err := c.PodReady(ctx, Namespace, name, 4*time.Minute); err != nil {
			return nil, err
		}
	}
	note("primaries Ready")
	for _, name := range replicas {
		if err := c.podRuns(ctx, Namespace, name, time.Minute); err != nil {
			return nil, err
		}
	}
	done := make(chan error, 1)
	go func() {
		for _, name := range replicas {
			if err := c.PodReady(ctx, Namespace, name, 4*time.Minute); err != nil {
				done <- err
				return
			}
		}
		note("replicas Ready")
		done <- nil
	}()
	return func() error { return <-done }, nil
}

func replicaManifest(r replica) ([]byte, error) {
	t, err := template.ParseFS(manifests, "manifests/replica.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse replica manifest: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("fill replica manifest: %w", err)
	}
	return b.Bytes(), nil
}

// PodReady waits until a pod is Ready, and says what it is instead if it is not.
func (c *Cluster) PodReady(ctx context.Context, namespace, name string, limit time.Duration) error {
	return poll(ctx, limit, "pod "+name+" to be Ready", func(ctx context.Context) error {
		var p corev1.Pod
		if err := c.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &p); err != nil {
			return err
		}
		for _, condition := range p.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("it is %s", describe(&p))
	})
}

// podRuns waits until a pod's containers run, Ready or not.
func (c *Cluster) podRuns(ctx context.Context, namespace, name string, limit time.Duration) error {
	return poll(ctx, limit, "pod "+name+" to run", func(ctx context.Context) error {
		var p corev1.Pod
		if err := c.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &p); err != nil {
			return err
		}
		if p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("it is %s", describe(&p))
		}
		return nil
	})
}

// describe says in a few words how far a pod is.
func describe(p *corev1.Pod) string {
	words := []string{string(p.Status.Phase), p.Status.Reason, p.Status.Message}
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			words = append(words, string(c.Type)+": "+c.Message)
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		words = append(words, fmt.Sprintf("container %s: ready %v, %d restarts", c.Name, c.Ready, c.RestartCount))
		if w := c.State.Waiting; w != nil {
			words = append(words, w.Reason, w.Message)
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			words = append(words, fmt.Sprintf("ended before with %d: %s %s", t.ExitCode, t.Reason, t.Message))
		}
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), "; ")
}

// Pod returns a pod of the databases' namespace.
func (c *Cluster) Pod(ctx context.Context, name string) (*corev1.Pod, error) {
	var p corev1.Pod
	if err := c.Client.Get(ctx, types.NamespacedName{Namespace: Namespace, Name: name}, &p); err != nil {
		return nil, fmt.Errorf("get pod %s: %w", name, err)
	}
	return &p, nil
}
