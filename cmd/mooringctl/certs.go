package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/mooring-dev/mooring/cmd/mooringctl/certs"
)

// day is how the flags count.
const day = 24 * time.Hour

// certsFlags are what `mooringctl certs` was asked for.
type certsFlags struct {
	dir, namespace, format string
	days, caDays           int
	renew, newCA, drop     bool
	options                certs.Options
}

func certsCommand(out io.Writer) *cobra.Command {
	var f certsFlags
	cmd := &cobra.Command{
		Use:   "certs --out DIR",
		Short: "Make the certificates of agents and controller",
		Long: "certs makes an authority, a certificate for the agents and one for the controller, below DIR. Keep\n" +
			"DIR/ca/ca.key off the cluster. With -o yaml it prints the two Secrets, also of a DIR made before.\n\n" +
			"Another authority takes three steps, with the Secrets applied and a minute's wait after each:\n" +
			"--new-ca has both sides trust it, --renew changes the certificates over, --drop-old-ca ends the old one.",
		Example: "  mooringctl certs --out certs\n" +
			"  mooringctl certs --out certs -o yaml | kubectl apply -f -\n" +
			"  mooringctl certs --out certs --renew -o yaml | kubectl apply -f -",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return f.run(out) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dir, "out", "", "directory of the certificates (required)")
	fs.IntVar(&f.days, "days", 365, "days the two certificates are valid")
	fs.IntVar(&f.caDays, "ca-days", 3650, "days a new authority is valid")
	fs.BoolVar(&f.renew, "renew", false, "make both certificates anew under the authority of DIR")
	fs.BoolVar(&f.newCA, "new-ca", false, "make a new authority, trusted beside the old one")
	fs.BoolVar(&f.drop, "drop-old-ca", false, "trust only the newest authority")
	fs.StringVar(&f.options.AgentName, "agent-name", "mooring-agent", "DNS name in the agents' certificate")
	fs.StringVar(&f.options.ControllerName, "controller-name", "mooring-controller", "DNS name in the controller's certificate")
	fs.StringVarP(&f.format, "output", "o", "table", "what is printed: table (the files) or yaml (the Secrets)")
	fs.StringVarP(&f.namespace, "namespace", "n", "mooring-system", "namespace of the Secrets")
	return cmd
}

func (f *certsFlags) run(out io.Writer) error {
	asked := 0
	for _, b := range []bool{f.renew, f.newCA, f.drop} {
		if b {
			asked++
		}
	}
	switch {
	case f.dir == "":
		return errors.New("certs: give a directory, such as --out certs")
	case f.days < 1 || f.caDays < 1:
		return errors.New("certs: --days and --ca-days must be at least 1")
	case f.format != "table" && f.format != "yaml":
		return fmt.Errorf("--output %q is neither table nor yaml", f.format)
	case asked > 1:
		return errors.New("certs: --renew, --new-ca and --drop-old-ca are one step each; take them one by one")
	}
	o := f.options
	o.Life, o.CALife, o.Now = time.Duration(f.days)*day, time.Duration(f.caDays)*day, time.Now()
	if err := f.make(o); err != nil {
		return &localError{fmt.Errorf("certs: %w", err)}
	}
	if f.format == "yaml" {
		return f.printSecrets(out)
	}
	fmt.Fprintf(out, "certificates are in %s, valid for %d days; keep %s off the cluster\n", f.dir, f.days, filepath.Join(f.dir, "ca", "ca.key"))
	return nil
}

func (f *certsFlags) make(o certs.Options) error {
	switch {
	case f.renew:
		return certs.Renew(f.dir, o)
	case f.newCA:
		return certs.NewCA(f.dir, o)
	case f.drop:
		return certs.DropOldCA(f.dir)
	}
	err := certs.Create(f.dir, o)
	if errors.Is(err, certs.ErrExists) {
		if f.format == "yaml" {
			return nil // printed as they are
		}
		return fmt.Errorf("%w; --renew replaces them", err)
	}
	return err
}

func (f *certsFlags) printSecrets(out io.Writer) error {
	secrets, err := certs.Secrets(f.dir, f.namespace)
	if err != nil {
		return &localError{fmt.Errorf("certs: %w", err)}
	}
	for _, s := range secrets {
		b, err := yaml.Marshal(s)
		if err != nil {
			return fmt.Errorf("encode secret %q: %w", s.Name, err)
		}
		if _, err := fmt.Fprintf(out, "---\n%s", b); err != nil {
			return fmt.Errorf("print secret %q: %w", s.Name, err)
		}
	}
	return nil
}

// localError is a failure on this machine, after the command line was
// understood.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }
