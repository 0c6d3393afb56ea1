package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

const (
	// tryEvery is the pace at which what is missing is looked for.
	tryEvery = 2 * time.Second
	// sayEvery is how often the log says so.
	sayEvery = 30 * time.Second
)

// needed are the kinds of custom resources that must be there.
func needed() []string { return []string{"DatabasePolicy", "InstanceResize", "ChaosExperiment"} }

// awaitKinds waits until the API server serves our custom resources. It returns
// false when ctx ended before.
func (c *Controller) awaitKinds(ctx context.Context) bool {
	// A look-up that hangs must not keep the log from saying so.
	config := *c.opts.Config
	config.Timeout = 10 * time.Second
	return c.retry(ctx, "find the custom resources", func() error {
		d, err := discovery.NewDiscoveryClientForConfig(&config)
		if err != nil {
			return err
		}
		list, err := d.ServerResourcesForGroupVersion(v1alpha1.GroupVersion().String())
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if missing := missingKinds(list); len(missing) > 0 {
			return fmt.Errorf("the API server does not serve %s of %s: install them with `kubectl apply -k` of Mooring's deploy directory", strings.Join(missing, ", "), v1alpha1.GroupVersion())
		}
		return nil
	})
}

func missingKinds(list *metav1.APIResourceList) []string {
	served := map[string]bool{}
	if list != nil {
		for _, r := range list.APIResources {
			served[r.Kind] = true
		}
	}
	var missing []string
	for _, k := range needed() {
		if !served[k] {
			missing = append(missing, k)
		}
	}
	return missing
}

// retry calls do until it succeeds. What is in the way shows at /readyz, and in
// the log at once and then from time to time. It returns false when ctx ended.
func (c *Controller) retry(ctx context.Context, step string, do func() error) bool {
	var said time.Time
	for ctx.Err() == nil {
		err := do()
		if err == nil {
			return true
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return false
		}
		c.wait(fmt.Sprintf("%s: %s", step, err))
		if time.Since(said) >= sayEvery {
			said = time.Now()
			c.log.Warn("waiting", "component", "controller", "step", step, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(tryEvery):
		}
	}
	return false
}
