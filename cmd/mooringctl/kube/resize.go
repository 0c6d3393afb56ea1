package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// eachTimeout is the API's own default for one instance.
const eachTimeout = 2 * time.Minute

// resizeFlags are what `resize` was asked for.
type resizeFlags struct {
	file, name, policy, role, cluster, cpu, memory string
	pods                                           []string
	each, timeout                                  time.Duration
	watch, dry                                     bool
}

func (c *command) resizeCommand() *cobra.Command {
	var f resizeFlags
	cmd := &cobra.Command{
		Use:   "resize -f FILE | --policy POLICY [--cpu CPU] [--memory MEMORY]",
		Short: "Change the CPU and memory limits of running instances, one at a time",
		Long: "resize creates an InstanceResize, from a file or from flags, and with --watch prints what happens until it\n" +
			"is over: then the exit status is 0 only if every instance has the new size, verified and not restarted.",
		Example: "  " + c.name + " resize --policy orders --cpu 2 --memory 8Gi --watch\n" +
			"  " + c.name + " resize --policy orders --pods orders-1 --cpu 1500m --dry-run",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.resize(cmd.Context(), cmd.Flags(), f) },
	}
	fs := cmd.Flags()
	fs.StringVarP(&f.file, "file", "f", "", "file with an InstanceResize, - for standard input")
	fs.StringVar(&f.name, "name", "", "name of the resize (default: made up)")
	fs.StringVar(&f.policy, "policy", "", "DatabasePolicy whose instances are resized")
	fs.StringVar(&f.role, "role", "", "only instances of this role: primary or replica")
	fs.StringVar(&f.cluster, "cluster", "", "only instances of this database cluster")
	fs.StringSliceVar(&f.pods, "pods", nil, "only these pods")
	fs.StringVar(&f.cpu, "cpu", "", "CPU limit in cores, such as 2 or 1500m")
	fs.StringVar(&f.memory, "memory", "", "memory limit, such as 4Gi or 512Mi")
	fs.DurationVar(&f.each, "instance-timeout", eachTimeout, "how long one instance may take before it is taken back")
	fs.BoolVar(&f.dry, "dry-run", false, "check and plan everything and change nothing")
	fs.BoolVarP(&f.watch, "watch", "w", false, "print what happens until it is over")
	fs.DurationVar(&f.timeout, "timeout", 0, "with --watch: how long to wait for the end (default: as long as it takes)")
	return cmd
}

func (c *command) resize(ctx context.Context, fs *pflag.FlagSet, f resizeFlags) error {
	r, err := f.resize(fs)
	if err != nil {
		return err
	}
	s, err := c.open()
	if err != nil {
		return err
	}
	if err := c.place(s, r); err != nil {
		return err
	}
	c.writing = true
	once, cancel := c.within(ctx)
	defer cancel()
	if err := s.Create(once, r); err != nil {
		return c.explain("create instanceresizes", err)
	}
	fmt.Fprintf(c.out, "resize %s/%s created\n", r.Namespace, r.Name)
	// Following reads only.
	c.writing = false
	if !f.watch && !r.Spec.DryRun {
		return nil
	}
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	return c.followResize(ctx, s, r)
}

// resize is what the flags or the file ask for.
func (f resizeFlags) resize(fs *pflag.FlagSet) (*v1alpha1.InstanceResize, error) {
	r := &v1alpha1.InstanceResize{}
	if f.file != "" {
		if err := onlyWith(fs, "-f", "file", "dry-run", "watch", "timeout"); err != nil {
			return nil, err
		}
		if err := readFile(f.file, "InstanceResize", r, &r.TypeMeta); err != nil {
			return nil, err
		}
		r.Spec.DryRun = r.Spec.DryRun || f.dry
		return r, nil
	}
	switch {
	case f.policy == "":
		return nil, errors.New("resize: give -f FILE, or --policy and the new size")
	case f.cpu == "" && f.memory == "":
		return nil, errors.New("resize: give --cpu, --memory or both")
	}
	var size v1alpha1.ResizeResources
	for _, q := range []struct {
		flag, text string
		into       **resource.Quantity
	}{{"--cpu", f.cpu, &size.CPU}, {"--memory", f.memory, &size.Memory}} {
		if q.text == "" {
			continue
		}
		n, err := resource.ParseQuantity(q.text)
		if err != nil || n.Sign() <= 0 {
			return nil, fmt.Errorf("%s %q is not a size such as 1500m or 4Gi", q.flag, q.text)
		}
		*q.into = &n
	}
	r.Name = f.name
	if f.name == "" {
		r.GenerateName = f.policy + "-"
	}
	r.Spec = v1alpha1.InstanceResizeSpec{
		Target:    v1alpha1.ResizeTarget{Policy: f.policy, Role: v1alpha1.Role(f.role), Cluster: f.cluster, Pods: f.pods},
		Resources: size,
		Timeout:   v1alpha1.DurationOf(f.each),
		DryRun:    f.dry,
	}
	return r, nil
}

func (c *command) resizes(ctx context.Context, s *session) ([]v1alpha1.InstanceResize, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	var list v1alpha1.InstanceResizeList
	if err := s.List(ctx, &list, c.scope(s)); err != nil {
		return nil, c.explain("list instanceresizes", err)
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.InstanceResize) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list.Items, nil
}

func (c *command) printResizes(all []v1alpha1.InstanceResize) error {
	t := table(c.out, "NAMESPACE", "RESIZE", "POLICY", "CPU", "MEMORY", "PHASE", "DONE", "AGE", "MESSAGE")
	for i := range all {
		r := &all[i]
		row(t, r.Namespace, r.Name, r.Spec.Target.Policy, quantity(r.Spec.Resources.CPU), quantity(r.Spec.Resources.Memory),
			cmp.Or(r.Status.Phase, v1alpha1.ResizePending), r.Status.Progress, c.age(r.CreationTimestamp.Time), unmet(r.Status.Conditions))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func quantity(q *resource.Quantity) string {
	if q == nil {
		return ""
	}
	return q.String()
}

// resizeOver says whether nothing more will come of it.
func resizeOver(r *v1alpha1.InstanceResize) bool {
	switch cmp.Or(r.Status.Phase, v1alpha1.ResizePending) {
	case v1alpha1.ResizePending, v1alpha1.ResizeRunning:
		return false
	}
	return true
}

// followResize prints what becomes of r. It returns nil only if it was carried
// out on every target, or with a dry run could be.
func (c *command) followResize(ctx context.Context, s *session, r *v1alpha1.InstanceResize) error {
	p := c.reporter()
	var last *v1alpha1.InstanceResize
	err := c.follow(ctx, &follower{session: s, object: r, list: &v1alpha1.InstanceResizeList{}, seen: func(o client.Object) progress {
		now, ok := o.(*v1alpha1.InstanceResize)
		if !ok {
			return going
		}
		last = now.DeepCopy()
		p.resize(now)
		switch {
		case resizeOver(now):
			return over
		case now.Status.Phase == "" && len(now.Status.Conditions) == 0:
			return untouched
		}
		return going
	}})
	name := "resize " + r.Name
	if err != nil {
		return c.stopped(err, name, fmt.Sprintf("it stops after the instance at hand with `kubectl delete instanceresize %s -n %s`", r.Name, r.Namespace))
	}
	want := v1alpha1.ResizeDone
	if last.Spec.DryRun {
		want = v1alpha1.ResizeDryRun
	}
	if last.Status.Phase != want {
		return failed("%s ended as %s: %s", name, last.Status.Phase, unmet(last.Status.Conditions))
	}
	return nil
}

// resize prints what is new of x.
func (r *reporter) resize(x *v1alpha1.InstanceResize) {
	for _, t := range x.Status.Targets {
		what := fmt.Sprintf("%s on %s %s", t.Pod, t.Node, strings.ToLower(string(t.State)))
		if t.Method != "" {
			what += " by " + t.Method
		}
		if t.Message != "" {
			what += ": " + t.Message
		}
		r.tell("target "+t.Pod, what)
	}
	r.conditions(x.Status.Conditions)
	if x.Status.Phase != "" {
		r.tell("phase", strings.TrimSpace("phase "+string(x.Status.Phase)+" "+x.Status.Progress))
	}
}
