package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// job tells the guest what to do. It travels as a file of the initramfs.
type job struct {
	Arguments   []string
	Environment []string
	Directory   string
	Modules     []string // files of the initramfs, in load order
	Shares      []share  // in mount order
	Scratch     bool     // a disk is there, to be mounted at /scratch
	Image       bool     // a disk is there, to be mounted at /state
	Network     bool     // an interface is there, for the program to configure
}

// share is a folder of the host that the guest sees over 9p. The guest's
// writes go to a tmpfs above it, unless it is writable.
type share struct {
	Tag      string
	Path     string // in the guest
	Writable bool
	host     string
}

func encodeJob(j job) ([]byte, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("encode job: %w", err)
	}
	return b, nil
}

func decodeJob(b []byte) (job, error) {
	var j job
	if err := json.Unmarshal(b, &j); err != nil {
		return job{}, fmt.Errorf("decode job: %w", err)
	}
	if len(j.Arguments) == 0 || j.Directory == "" {
		return job{}, errors.New("decode job: no program or no directory")
	}
	return j, nil
}

// hostView is what a plan needs to know of the caller.
type hostView struct {
	directory   string   // working directory
	environment []string // of the caller
	rootfs      string   // the guest's Debian tree
	kernel      kernel
}

// planJob decides what the guest runs and which folders it sees.
func planJob(o options, h hostView) (job, error) {
	program, shared, err := findProgram(o.arguments[0], h)
	if err != nil {
		return job{}, err
	}
	arguments := append([]string{program}, o.arguments[1:]...)
	j := job{
		Arguments:   arguments,
		Environment: guestEnvironment(h.environment),
		Directory:   "/",
		Scratch:     o.disk > 0,
		Image:       o.image != "",
		Network:     o.tap != "",
	}
	if isTestBinary(program) {
		j.Arguments = verboseTest(arguments)
	}
	paths := map[string]bool{} // guest path: writable
	if root := moduleRoot(h.directory); root != "/" {
		paths[root] = false
		j.Directory = h.directory
	}
	if shared != "" && !inside(shared, paths) {
		paths[shared] = false
	}
	for _, dir := range writableFolders(o, arguments) {
		if dir, err = filepath.Abs(dir); err != nil {
			return job{}, fmt.Errorf("find folder for output: %w", err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return job{}, fmt.Errorf("make folder for output: %w", err)
		}
		paths[dir] = true
	}
	if j.Shares, err = shares(paths, h); err != nil {
		return job{}, err
	}
	return j, nil
}

// shares lists the guest's root, its modules, and the given paths, outer ones
// before those within them.
func shares(paths map[string]bool, h hostView) ([]share, error) {
	list := []share{
		{Tag: "root", Path: "/", host: h.rootfs},
		{Tag: "modules", Path: "/lib/modules/" + h.kernel.release, host: h.kernel.modules},
	}
	ordered := make([]string, 0, len(paths))
	for p := range paths {
		ordered = append(ordered, p)
	}
	slices.Sort(ordered)
	for i, p := range ordered {
		if slices.Contains([]string{"/", "/bin", "/etc", "/lib", "/sbin", "/tmp", "/usr", "/usr/bin", "/usr/sbin", "/var"}, p) {
			return nil, fmt.Errorf("folder %s cannot be shared: it would hide the guest's own", p)
		}
		list = append(list, share{Tag: fmt.Sprintf("share%d", i), Path: p, Writable: paths[p], host: p})
	}
	return list, nil
}

// findProgram says where the program is in the guest and, if it comes from the
// host, which folder has to be shared for it. The guest's own programs win: a
// name like /usr/bin/psql means the guest's.
func findProgram(name string, h hostView) (program, shared string, err error) {
	if !strings.Contains(name, "/") {
		return name, "", nil // looked up in the guest's PATH
	}
	program = name
	if !filepath.IsAbs(name) {
		program = filepath.Join(h.directory, name)
	} else if _, err := os.Lstat(filepath.Join(h.rootfs, name)); err == nil {
		return program, "", nil
	}
	info, err := os.Stat(program)
	if err != nil {
		return "", "", fmt.Errorf("find program, neither in the guest's tree nor here: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", "", fmt.Errorf("program %q is not a file", program)
	}
	return program, filepath.Dir(program), nil
}

// moduleRoot is the closest folder upward of dir with a go.mod, or dir itself.
func moduleRoot(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

func inside(dir string, roots map[string]bool) bool {
	for r := range roots {
		if dir == r || strings.HasPrefix(dir, r+"/") {
			return true
		}
	}
	return false
}

// writableFolders lists the folders whose content must reach the host: those
// asked for, and those go test reads its coverage from.
func writableFolders(o options, arguments []string) []string {
	var dirs []string
	for _, d := range []string{o.out, o.coverDir} {
		if d != "" {
			dirs = append(dirs, d)
		}
	}
	for _, a := range arguments[1:] {
		if d, ok := strings.CutPrefix(a, "-test.gocoverdir="); ok {
			dirs = append(dirs, d)
		}
		if f, ok := strings.CutPrefix(a, "-test.coverprofile="); ok && filepath.IsAbs(f) {
			dirs = append(dirs, filepath.Dir(f))
		}
	}
	return dirs
}

func isTestBinary(program string) bool { return strings.HasSuffix(program, ".test") }

// verboseTest makes a test binary name the tests it skips, which it does only
// when verbose. With a package list go test hides that output of a passing run.
// The flag goes first, for a test binary may have arguments that are no flags.
func verboseTest(arguments []string) []string {
	verbose := []string{arguments[0], "-test.v=true"}
	for _, a := range arguments[1:] {
		if a == "-test.v" || strings.HasPrefix(a, "-test.v=") && a != "-test.v=false" {
			return arguments
		}
		if a != "-test.v=false" {
			verbose = append(verbose, a)
		}
	}
	return verbose
}

// guestEnvironment passes on what is meant for Go programs and for Mooring's
// tests. The rest describes this machine, or is nobody else's business.
func guestEnvironment(environment []string) []string {
	list := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", "VMTEST=1",
	}
	for _, e := range environment {
		name, _, _ := strings.Cut(e, "=")
		if slices.Contains([]string{"GOCOVERDIR", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK"}, name) ||
			strings.HasPrefix(name, "MOORING_") && name != "MOORING_CACHE" {
			list = append(list, e)
		}
	}
	return list
}
