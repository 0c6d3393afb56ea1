package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/digest"
	"github.com/mooring-dev/mooring/agent/state"
)

// Config is what an Agent needs to know. Default fills all of it.
type Config struct {
	// NodeName is the name this node goes by in metrics and in Kubernetes.
	NodeName string
	// StateDir holds the journal and the keepers' markers. It must survive a
	// restart of the agent.
	StateDir string
	// Socket is the path of the unix socket on which gRPC is served.
	Socket string
	// Listen is the TCP address on which controllers are served over mutual
	// TLS; none when empty.
	Listen string
	// TLSDir holds tls.crt, tls.key and ca.crt for Listen.
	TLSDir string
	// ControllerName is the DNS name that a controller's certificate must carry.
	ControllerName string
	// MetricsAddress is the TCP address of /metrics.
	MetricsAddress string
	// Kubernetes also looks for instances among this node's pods.
	Kubernetes bool
	// Kubeconfig is the file to reach the API server with; in-cluster
	// configuration when empty.
	Kubeconfig string
	// Probe is "auto", "fentry", "tracepoint" or "off".
	Probe string
	// ProbeLogins is the file of the logins for active probes of instances outside
	// Kubernetes; none are probed when empty. See active.File.
	ProbeLogins string
	// ProcRoot, SysRoot and CgroupRoot are where the kernel's file systems are.
	ProcRoot, SysRoot, CgroupRoot string
	// Tick is how often counters are read, Discover how often instances are
	// looked for.
	Tick, Discover time.Duration
	// Records is where records go: "stdout", the absolute path of a file, or
	// empty for those who subscribe alone.
	Records string
	// Statements is how statements are watched where no policy says it.
	Statements state.StatementsPolicy
	// Audit names classes to add to Statements.Audit, see state.AuditClasses.
	Audit []string
	// Version is the agent's own.
	Version string
}

// Default returns the configuration of an agent on a plain host.
func Default() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return Config{
		NodeName:       host,
		StateDir:       "/var/lib/mooring",
		Socket:         "/run/mooring/agent.sock",
		MetricsAddress: "127.0.0.1:9750",
		TLSDir:         "/etc/mooring/tls",
		ControllerName: "mooring-controller",
		Probe:          "auto",
		ProcRoot:       "/proc",
		SysRoot:        "/sys",
		CgroupRoot:     "/sys/fs/cgroup",
		Tick:           time.Second,
		Discover:       5 * time.Second,
		Statements:     state.StatementsPolicy{Set: true, Top: digest.DefaultTop, Slow: 100 * time.Millisecond},
		Version:        "dev",
	}
}

// Validate returns everything that is wrong with c, joined.
func (c Config) Validate() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("node name is empty: set --node"))
	}
	for _, p := range []struct{ flag, path string }{
		{"--state-dir", c.StateDir}, {"--socket", c.Socket}, {"--tls-dir", c.TLSDir},
		{"--proc-root", c.ProcRoot}, {"--sys-root", c.SysRoot}, {"--cgroup-root", c.CgroupRoot},
	} {
		if !filepath.IsAbs(p.path) {
			errs = append(errs, fmt.Errorf("%s %q is not an absolute path", p.flag, p.path))
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); c.Listen != "" && err != nil {
		errs = append(errs, fmt.Errorf("--listen %q is not host:port or :port", c.Listen))
	}
	if c.ControllerName == "" {
		errs = append(errs, errors.New("--controller-name is empty: without it any certificate of the same authority would do"))
	}
	if modes := []string{"auto", "fentry", "tracepoint", "off"}; !slices.Contains(modes, c.Probe) {
		errs = append(errs, fmt.Errorf("--probe %q is none of %v", c.Probe, modes))
	}
	if c.ProbeLogins != "" && !filepath.IsAbs(c.ProbeLogins) {
		errs = append(errs, fmt.Errorf("--probe-logins %q is not an absolute path", c.ProbeLogins))
	}
	if c.Records != "" && c.Records != "stdout" && !filepath.IsAbs(c.Records) {
		errs = append(errs, fmt.Errorf("--records %q is neither stdout nor an absolute path", c.Records))
	}
	if err := checkStatements(c.Statements); err != nil {
		errs = append(errs, fmt.Errorf("--slow-threshold or --digests: %w", err))
	}
	if _, err := auditOf(c.Audit); err != nil {
		errs = append(errs, fmt.Errorf("--audit: %w", err))
	}
	if c.Tick < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("--tick %v is shorter than 100ms", c.Tick))
	}
	if c.Discover < c.Tick {
		errs = append(errs, fmt.Errorf("--discover %v is shorter than --tick %v", c.Discover, c.Tick))
	}
	return errors.Join(errs...)
}
