package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const (
	agentName      = "mooring-agent"
	controllerName = "mooring-controller"
	nameLabel      = "app.kubernetes.io/name"
	metricsPort    = "9750"
)

// podReader reads one page of a pod's HTTP server through the API server.
type podReader interface {
	Read(ctx context.Context, namespace, pod, port, path string) ([]byte, error)
}

// session is a connection to one cluster.
type session struct {
	client.WithWatch
	pods podReader
	// namespace is what -n or the context names.
	namespace string
}

// command is one run.
type command struct {
	name                string
	out, errOut         io.Writer
	kubeconfig, context string
	namespace, system   string
	allNamespaces       bool
	request             time.Duration
	connect             func(*command) (*session, error)
	retry               time.Duration
	now                 func() time.Time
	// writing says that the command at hand changes something.
	writing bool
}

// Command returns the tree, to be called by the given name ("kubectl mooring").
// Tables and progress go to out, notes to errOut. It does not connect before a
// command runs.
func Command(name, version string, out, errOut io.Writer) *cobra.Command {
	c := &command{name: name, out: out, errOut: errOut, connect: connect, retry: time.Second, now: time.Now}
	return c.root(version)
}

func (c *command) root(version string) *cobra.Command {
	cmd := &cobra.Command{
		Use:         "kubectl-mooring",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: c.name},
		Short:       "See and steer the databases of a cluster",
		Long: "Place, resize, break and watch the database pods of a cluster, through Mooring's custom resources.\n\n" +
			"Exit status: 0 done, 1 refused or failed, 2 the command or request is wrong.",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file (default: as kubectl finds it)")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig file (default: the current one)")
	f.StringVarP(&c.namespace, "namespace", "n", "", "namespace of the databases (default: the context's)")
	f.BoolVarP(&c.allNamespaces, "all-namespaces", "A", false, "list in all namespaces")
	f.StringVar(&c.system, "system-namespace", "mooring-system", "namespace in which Mooring runs")
	f.DurationVar(&c.request, "request-timeout", 30*time.Second, "how long one request to the API server may take")
	cmd.AddCommand(c.statusCommand(), c.instancesCommand(), c.chaosCommand(), c.resizeCommand(), c.doctorCommand())
	cmd.SetOut(c.out)
	cmd.SetErr(c.errOut)
	return cmd
}

// open connects. Nothing is asked of the API server yet.
func (c *command) open() (*session, error) {
	s, err := c.connect(c)
	if err != nil {
		return nil, &Failure{err: err, status: 1}
	}
	if c.namespace != "" {
		s.namespace = c.namespace
	}
	return s, nil
}

// scope is the namespace to list in, "" for all.
func (c *command) scope(s *session) client.ListOption {
	if c.allNamespaces {
		return client.InNamespace("")
	}
	return client.InNamespace(s.namespace)
}

// within bounds one exchange with the API server.
func (c *command) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.request)
}

// connect reads the kubeconfig as kubectl does.
func connect(c *command) (*session, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	cfg.UserAgent = "kubectl-mooring"
	cfg.WarningHandler = rest.NewWarningWriter(c.errOut, rest.WarningWriterOptions{Deduplicate: true})
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	// Unless it is told otherwise, the library complains after half a minute, in the
	// middle of what is being watched, that nobody reads its log.
	ctrllog.SetLogger(logr.Discard())
	cl, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	core, err := corev1client.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	return &session{WithWatch: cl, pods: proxy{core}, namespace: namespace}, nil
}

// newScheme knows Kubernetes' own kinds and Mooring's.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register kinds: %w", err)
	}
	return scheme, nil
}

// proxy reads pods through the API server's proxy.
type proxy struct{ core corev1client.PodsGetter }

func (p proxy) Read(ctx context.Context, namespace, pod, port, path string) ([]byte, error) {
	return p.core.Pods(namespace).ProxyGet("http", pod, port, path, nil).DoRaw(ctx)
}

// systemPods lists the pods of the agent or the controller.
func (c *command) systemPods(ctx context.Context, s *session, app string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := s.List(ctx, &list, client.InNamespace(c.system), client.MatchingLabels{nameLabel: app})
	return list.Items, err
}
