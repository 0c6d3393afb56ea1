package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
)

// operate uses the plug-in of kubectl as an operator would, and looks at what
// Mooring itself needs.
func (s *stage) operate(ctx context.Context) error {
	for _, c := range []struct {
		says string
		args []string
	}{
		{"orders", []string{"status", "-A"}},
		{"statements-fentry", []string{"doctor", node.Name}},
		{"would", []string{"chaos", "run", "-n", testbed.Namespace, "--policy", "orders", "--role", "replica", "--fault", "net-delay", "--set", "delay=100ms",
			"--duration", "5s", "--name", "planned", "--dry-run", "--watch"}},
	} {
		out, err := s.program(ctx, s.ctl(), c.args...)
		if err != nil {
			return err
		}
		s.show("kubectl mooring "+strings.Join(c.args, " "), out)
		s.figures.Equal("kubectl mooring "+c.args[0]+" answers", truth(strings.Contains(strings.ToLower(out), c.says)), "", 1)
	}
	if err := s.strangers(); err != nil {
		return err
	}
	for program, goal := range map[string]float64{"mooring-agent": 100, "mooring-controller": 50} {
		used, err := s.resident(ctx, "/"+program)
		if err != nil {
			return err
		}
		s.figures.AtMost(program+" resident memory", used, "MiB", goal)
	}
	return nil
}

var residentLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// resident is the resident memory in MiB of the only process that runs a program.
func (s *stage) resident(ctx context.Context, program string) (float64, error) {
	out, err := s.Node.Must(ctx, "for p in $(pgrep -f '^"+program+" --'); do cat /proc/$p/status; done")
	if err != nil {
		return 0, err
	}
	all := residentLine.FindAllStringSubmatch(out, -1)
	if len(all) != 1 {
		return 0, fmt.Errorf("%d processes run %s", len(all), program)
	}
	kib, err := strconv.ParseFloat(all[0][1], 64)
	return kib / 1024, err
}

// strangers tries to talk to the agent without being the controller.
func (s *stage) strangers() error {
	ca, err := os.ReadFile(filepath.Join(s.certs("agent"), "ca.crt"))
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return errors.New("ca.crt holds no certificate")
	}
	greet := func(who string) (bool, error) {
		c := &tls.Config{RootCAs: roots, ServerName: "mooring-agent", MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}}
		if who != "" {
			pair, err := tls.LoadX509KeyPair(filepath.Join(s.certs(who), "tls.crt"), filepath.Join(s.certs(who), "tls.key"))
			if err != nil {
				return false, fmt.Errorf("read certificate: %w", err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		conn, err := tls.Dial("tcp", node.IP+":9751", c)
		if err != nil {
			return false, nil
		}
		defer conn.Close()
		// With TLS 1.3 the server's verdict on a certificate comes with its first bytes.
		_, err = conn.Read(make([]byte, 1))
		return err == nil, nil
	}
	for _, c := range []struct {
		name, who string
		welcome   bool
	}{
		{"the agent listens to a controller", "controller", true},
		{"the agent refuses a peer with another certificate of the same authority", "agent", false},
		{"the agent refuses a peer without a certificate", "", false},
	} {
		ok, err := greet(c.who)
		if err != nil {
			return err
		}
		s.figures.Equal(c.name, truth(ok == c.welcome), "", 1)
	}
	return nil
}
