package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// options is what the command line and the environment ask for.
type options struct {
	kernel    string        // a version, a release or a folder
	memory    byteSize      // of the guest, split evenly over its nodes
	disk      byteSize      // of /scratch; 0 for none
	image     string        // an ext4 disk image to mount at /state, or empty
	tap       string        // an interface of this machine to join the guest to, or empty
	timeout   time.Duration // for the whole run
	hang      time.Duration // without a heartbeat, once the guest is up
	boot      time.Duration // without a first heartbeat
	cmdline   string        // appended to the kernel's
	out       string        // a folder of the host the guest may write to
	accel     string        // tcg or kvm
	cache     string        // the folder setup.sh fills
	coverDir  string        // GOCOVERDIR of the caller
	verbose   bool
	arguments []string // the program and its arguments
}

// parseOptions reads the command line. Each flag takes its default from the
// environment variable VMTEST_<FLAG>, for go test -exec passes no flags on.
// It returns flag.ErrHelp after printing the usage to w.
func parseOptions(arguments []string, getenv func(string) string, w io.Writer) (options, error) {
	o := options{accel: getenv("VMTEST_ACCEL"), coverDir: getenv("GOCOVERDIR"), memory: 3 * gib, disk: 2 * gib}
	f := flag.NewFlagSet("vmtest", flag.ContinueOnError)
	f.SetOutput(w)
	f.Usage = func() {
		fmt.Fprintln(w, "usage: vmtest [flags] [--] program [argument ...]\n"+
			"Each flag takes its default from the environment: VMTEST_KERNEL for -kernel, and so on.")
		f.PrintDefaults()
	}
	f.StringVar(&o.kernel, "kernel", "6.1", "kernel: 5.10, 6.1, 6.12, a release, or a folder with boot/ and lib/modules/")
	f.Var(&o.memory, "memory", "memory of the guest, in M or G")
	f.Var(&o.disk, "disk", "size of the ext4 disk at /scratch, in M or G; 0 for none")
	f.StringVar(&o.image, "image", "", "disk image with an ext4 on it, for /state; the guest's writes do not reach it")
	f.StringVar(&o.tap, "tap", "", "existing tap interface to join the guest's network interface to, which the program configures")
	f.DurationVar(&o.timeout, "timeout", 20*time.Minute, "time limit for the whole run")
	f.DurationVar(&o.hang, "hang", time.Minute, "kill a guest that gave no sign of life for so long")
	f.DurationVar(&o.boot, "boot", 3*time.Minute, "kill a guest that did not come up in so long")
	f.StringVar(&o.cmdline, "cmdline", "", "parameters to append to the kernel's command line")
	f.StringVar(&o.out, "out", "", "folder the guest may write to, under the same path")
	f.BoolVar(&o.verbose, "v", false, "report each stage and the QEMU command")
	if err := setFromEnvironment(f, getenv); err != nil {
		return options{}, err
	}
	if err := f.Parse(arguments); err != nil {
		return options{}, err
	}
	o.arguments = f.Args()
	o.cache = cacheFolder(getenv)
	if o.accel == "" {
		o.accel = "tcg"
	}
	return o, o.check()
}

func setFromEnvironment(f *flag.FlagSet, getenv func(string) string) error {
	var errs []error
	f.VisitAll(func(v *flag.Flag) {
		name := "VMTEST_" + strings.ToUpper(v.Name)
		value := getenv(name)
		if value == "" {
			return
		}
		if err := f.Set(v.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s=%q: %w", name, value, err))
		}
	})
	return errors.Join(errs...)
}

func (o *options) check() error {
	switch {
	case len(o.arguments) == 0:
		return errors.New("no program to run: usage: vmtest [flags] [--] program [argument ...]")
	case o.accel != "tcg" && o.accel != "kvm":
		return fmt.Errorf("environment variable VMTEST_ACCEL=%q: must be tcg or kvm", o.accel)
	case o.memory < 512*mib:
		return fmt.Errorf("-memory %s: the guest needs 512M at least", &o.memory)
	case o.disk != 0 && o.disk < 16*mib:
		return fmt.Errorf("-disk %s: must be 0, or 16M at least", &o.disk)
	case o.tap != "" && !validInterface(o.tap):
		return fmt.Errorf("-tap %q is not the name of a network interface", o.tap)
	case o.timeout <= 0 || o.hang <= 0 || o.boot <= 0:
		return errors.New("-timeout, -hang and -boot must be above zero")
	}
	return nil
}

// validInterface follows dev_valid_name (net/core/dev.c), and refuses a comma
// too, for that separates QEMU's options.
func validInterface(name string) bool {
	return len(name) < 16 && name != "." && name != ".." && !strings.ContainsAny(name, "/:, \t\n")
}

// cacheFolder is where setup.sh puts its trees; the rule is the same there.
func cacheFolder(getenv func(string) string) string {
	if d := getenv("MOORING_CACHE"); d != "" {
		return d
	}
	if d := getenv("XDG_CACHE_HOME"); d != "" {
		return filepath.Join(d, "mooring")
	}
	return filepath.Join(getenv("HOME"), ".cache", "mooring")
}

// byteSize is a size in bytes, written with a suffix M or G.
type byteSize int64

func (b *byteSize) String() string {
	switch v := int64(*b); {
	case v%gib == 0 && v != 0:
		return strconv.FormatInt(v/gib, 10) + "G"
	case v%mib == 0 && v != 0:
		return strconv.FormatInt(v/mib, 10) + "M"
	default:
		return strconv.FormatInt(v, 10)
	}
}

// Set reads a size. A bare number other than 0 is refused: its unit would be a guess.
func (b *byteSize) Set(s string) error {
	if s == "0" {
		*b = 0
		return nil
	}
	unit := int64(mib)
	number, ok := strings.CutSuffix(s, "M")
	if !ok {
		number, ok = strings.CutSuffix(s, "G")
		unit = gib
	}
	if !ok {
		return fmt.Errorf("size %q has no suffix M or G", s)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit {
		return fmt.Errorf("size %q is not a number of M or G", s)
	}
	*b = byteSize(n * unit)
	return nil
}
