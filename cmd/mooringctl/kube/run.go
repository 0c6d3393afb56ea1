package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// runFlags are what `chaos run` was asked for.
type runFlags struct {
	file, name, policy, role, cluster, fault, count string
	pods, set                                       []string
	duration, timeout                               time.Duration
	watch, dry, resume, keepGoing                   bool
}

func (c *command) chaosRunCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run -f FILE | --policy POLICY --fault FAULT --duration D [--set NAME=VALUE]...",
		Short: "Run an experiment",
		Long: "run creates a ChaosExperiment, from a file or from flags, and with --watch prints what happens until it\n" +
			"is over: then the exit status is 0 only if the experiment recovered with nothing left behind.\n\n" + faults(),
		Example: "  " + c.name + " chaos run --policy orders --role replica --fault net-delay --set delay=300ms --duration 20s --watch\n" +
			"  " + c.name + " chaos run -f experiment.yaml --dry-run",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.chaosRun(cmd.Context(), cmd.Flags(), f) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.file, "file", "f", "", "file with a ChaosExperiment, - for standard input")
	fs.StringVar(&f.name, "name", "", "name of the experiment (default: made up)")
	fs.StringVar(&f.policy, "policy", "", "DatabasePolicy whose instances are broken")
	fs.StringVar(&f.role, "role", "", "only instances of this role: primary or replica")
	fs.StringVar(&f.cluster, "cluster", "", "only instances of this database cluster")
	fs.StringSliceVar(&f.pods, "pods", nil, "only these pods")
	fs.StringVar(&f.count, "count", "", "how many of them, as a number or a percentage (default: 1)")
	fs.StringVar(&f.fault, "fault", "", "what happens to them")
	fs.StringArrayVar(&f.set, "set", nil, "a parameter of the fault, NAME=VALUE; may be repeated")
	fs.DurationVar(&f.duration, "duration", 0, "how long the fault lasts, such as 20s")
	fs.BoolVar(&f.resume, "resume", false, "start the fault again for the time left when its agent is restarted")
	fs.BoolVar(&f.keepGoing, "continue", false, "go on to the deadline when the controller is gone")
	fs.BoolVar(&f.dry, "dry-run", false, "check and plan everything and break nothing")
	fs.BoolVarP(&f.watch, "watch", "w", false, "print what happens until it is over")
	fs.DurationVar(&f.timeout, "timeout", 0, "with --watch: how long to wait for the end (default: as long as it takes)")
	return cmd
}

func (c *command) chaosRun(ctx context.Context, fs *pflag.FlagSet, f runFlags) error {
	x, err := f.experiment(fs)
	if err != nil {
		return err
	}
	s, err := c.open()
	if err != nil {
		return err
	}
	if err := c.place(s, x); err != nil {
		return err
	}
	c.writing = true
	once, cancel := c.within(ctx)
	defer cancel()
	if err := s.Create(once, x); err != nil {
		return c.explain("create chaosexperiments", err)
	}
	fmt.Fprintf(c.out, "experiment %s/%s created\n", x.Namespace, x.Name)
	// Following reads only.
	c.writing = false
	if !f.watch && !x.Spec.DryRun {
		return nil
	}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	want := v1alpha1.ExperimentRecovered
	if x.Spec.DryRun {
		want = v1alpha1.ExperimentDryRun
	}
	return c.followExperiment(ctx, s, x, want)
}

// experiment is what the flags or the file ask for.
func (f runFlags) experiment(fs *pflag.FlagSet) (*v1alpha1.ChaosExperiment, error) {
	x := &v1alpha1.ChaosExperiment{}
	if f.file != "" {
		if err := onlyWith(fs, "-f", "file", "dry-run", "watch", "timeout"); err != nil {
			return nil, err
		}
		if err := readFile(f.file, "ChaosExperiment", x, &x.TypeMeta); err != nil {
			return nil, err
		}
		x.Spec.DryRun = x.Spec.DryRun || f.dry
		return x, nil
	}
	switch {
	case f.policy == "":
		return nil, errors.New("chaos run: give -f FILE, or --policy, --fault and --duration")
	case f.fault == "":
		return nil, errors.New("chaos run: say what is to happen: --fault, such as --fault net-delay")
	case !fs.Changed("duration"):
		return nil, errors.New("chaos run: an experiment needs an end: give --duration, such as --duration 20s")
	case f.duration <= 0:
		return nil, fmt.Errorf("chaos run: --duration %v must be more than zero", f.duration)
	}
	fault, err := faultOf(f.fault, f.set)
	if err != nil {
		return nil, err
	}
	x.Name = f.name
	if f.name == "" {
		x.GenerateName = f.fault + "-"
	}
	x.Spec = v1alpha1.ChaosExperimentSpec{
		Target:   v1alpha1.ChaosTarget{Policy: f.policy, Role: v1alpha1.Role(f.role), Cluster: f.cluster, Pods: f.pods},
		Fault:    fault,
		Duration: metav1.Duration{Duration: f.duration},
		DryRun:   f.dry,
	}
	if f.count != "" {
		n := intstr.Parse(f.count)
		x.Spec.Target.Count = &n
	}
	if f.resume {
		x.Spec.OnAgentRestart = v1alpha1.Resume
	}
	if f.keepGoing {
		x.Spec.OnControlLoss = v1alpha1.ContinueUntilDeadline
	}
	return x, nil
}

// place gives an object from a file or from flags its namespace.
func (c *command) place(s *session, o client.Object) error {
	if in := o.GetNamespace(); in != "" && c.namespace != "" && in != c.namespace {
		return wrong("the file says namespace %q and --namespace %q: leave one out", in, c.namespace)
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(s.namespace)
	}
	return nil
}

// onlyWith refuses flags that say what a file says.
func onlyWith(fs *pflag.FlagSet, with string, allowed ...string) error {
	var extra []string
	fs.Visit(func(f *pflag.Flag) {
		for _, a := range append(allowed, "kubeconfig", "context", "namespace", "system-namespace", "request-timeout") {
			if f.Name == a {
				return
			}
		}
		extra = append(extra, "--"+f.Name)
	})
	if len(extra) > 0 {
		return fmt.Errorf("with %s the file says everything: leave out %s", with, strings.Join(extra, ", "))
	}
	return nil
}

// readFile reads one object of one kind, strictly.
func readFile(path, kind string, into any, meta *metav1.TypeMeta) error {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(os.Stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return wrong("read object: %w", err)
	}
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(data, &head); err != nil {
		return wrong("read %s: %w", path, err)
	}
	if head.Kind != kind || head.APIVersion != v1alpha1.GroupVersion().String() {
		return wrong("%s holds a %q of %q, not one %s of %s", path, head.Kind, head.APIVersion, kind, v1alpha1.GroupVersion())
	}
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		return wrong("read %s: %w", path, err)
	}
	*meta = head
	return nil
}
