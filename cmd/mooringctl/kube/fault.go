package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mooring-dev/mooring/chaos"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// setter writes one parameter, given as text, into a fault.
type setter func(f *v1alpha1.Fault, value string) error

// builder makes one kind of fault.
type builder struct {
	begin func(*v1alpha1.Fault)
	set   map[string]setter
}

// builders has one for each kind the API knows, by the name of package chaos.
func builders() map[string]builder {
	return map[string]builder{
		"net-delay": {
			begin: func(f *v1alpha1.Fault) { f.NetworkDelay = &v1alpha1.NetworkDelay{} },
			set: map[string]setter{
				"delay": func(f *v1alpha1.Fault, v string) (err error) {
					f.NetworkDelay.Delay.Duration, err = time.ParseDuration(v)
					return err
				},
				"jitter": func(f *v1alpha1.Fault, v string) error {
					d, err := time.ParseDuration(v)
					jitter := v1alpha1.DurationOf(d)
					f.NetworkDelay.Jitter = &jitter
					return err
				},
			},
		},
		"net-loss": {
			begin: func(f *v1alpha1.Fault) { f.NetworkLoss = &v1alpha1.NetworkLoss{} },
			set: map[string]setter{"percent": func(f *v1alpha1.Fault, v string) (err error) {
				f.NetworkLoss.Percent, err = resource.ParseQuantity(v)
				return err
			}},
		},
		"io-error": {
			begin: func(f *v1alpha1.Fault) { f.IOError = &v1alpha1.IOError{} },
			set: map[string]setter{
				"operations": func(f *v1alpha1.Fault, v string) error {
					f.IOError.Operations = v1alpha1.IOOperations(strings.ToUpper(v[:1]) + v[1:])
					return nil
				},
				"percent": func(f *v1alpha1.Fault, v string) error {
					q, err := resource.ParseQuantity(v)
					f.IOError.Percent = &q
					return err
				},
			},
		},
		"freeze": {begin: func(f *v1alpha1.Fault) { f.Freeze = &v1alpha1.Freeze{} }},
	}
}

// kinds are those that both the API and package chaos know.
func kinds() []chaos.Kind {
	all := builders()
	return slices.DeleteFunc(chaos.Kinds(), func(k chaos.Kind) bool { return all[k.Name].begin == nil })
}

// faultOf makes a fault from its name and NAME=VALUE parameters.
func faultOf(name string, set []string) (v1alpha1.Fault, error) {
	var f v1alpha1.Fault
	i := slices.IndexFunc(kinds(), func(k chaos.Kind) bool { return k.Name == name })
	if i < 0 {
		var known []string
		for _, k := range kinds() {
			known = append(known, k.Name)
		}
		return f, fmt.Errorf("unknown fault %q: there are %s", name, strings.Join(known, ", "))
	}
	b := builders()[name]
	b.begin(&f)
	given := map[string]bool{}
	for _, s := range set {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" || value == "" {
			return f, fmt.Errorf("--set %q is not NAME=VALUE", s)
		}
		write := b.set[key]
		switch {
		case write == nil:
			return f, fmt.Errorf("--set %q: %s has no such parameter", s, name)
		case given[key]:
			return f, fmt.Errorf("--set names %q twice", key)
		}
		given[key] = true
		if err := write(&f, value); err != nil {
			return f, fmt.Errorf("--set %q: %w", s, err)
		}
	}
	for _, p := range kinds()[i].Params {
		if p.Required && !given[p.Name] {
			return f, fmt.Errorf("%s needs --set %s=%s: %s", name, p.Name, p.Example, p.Help)
		}
	}
	return f, nil
}

// faults lists the faults and their parameters for --help.
func faults() string {
	var b strings.Builder
	b.WriteString("Faults:\n")
	for _, k := range kinds() {
		fmt.Fprintf(&b, "  %-12s %s\n", k.Name, k.Help)
		for _, p := range k.Params {
			note := "required"
			if !p.Required {
				note = "default " + cmp.Or(p.Default, "none")
			}
			fmt.Fprintf(&b, "      --set %s=%s  %s (%s)\n", p.Name, p.Example, p.Help, note)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
