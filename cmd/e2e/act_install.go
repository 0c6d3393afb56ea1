package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
)

// overlay is what the test adds to what ships: where the images are, and one
// controller, for there is one node.
const overlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../deploy/overlays/self-signed]
images:
  - {name: mooring-agent, newName: mooring.local/mooring-agent, newTag: e2e}
  - {name: mooring-controller, newName: mooring.local/mooring-controller, newTag: e2e}
replicas:
  - {name: mooring-controller, count: 1}
patches:
  - target: {kind: DaemonSet, name: mooring-agent}
    patch: |
      # A request is a share of a CPU, and the guest's are about a fifteenth of a
      # server's.
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 400m}
      # There is no next node that an upgrade could spare.
      - {op: replace, path: /spec/minReadySeconds, value: 1}
      - {op: replace, path: /spec/template/spec/containers/0/startupProbe/periodSeconds, value: 2}
      - {op: replace, path: /spec/template/spec/containers/0/readinessProbe/periodSeconds, value: 2}
`

// withoutResources runs a controller on a cluster that has none of Mooring's
// resources yet, and with an API server that does not answer: it is to wait and
// to say what for.
func (s *stage) withoutResources(ctx context.Context) error {
	if err := s.Control.FreezeServer(ctx); err != nil {
		return err
	}
	c, err := s.startController(ctx)
	if err != nil {
		return errors.Join(err, s.Control.ThawServer())
	}
	defer c.end()
	gone := s.readiness(ctx, 20*time.Second, "API server")
	s.say("with an API server that does not answer, /readyz says %q", gone)
	s.figures.Equal("a controller waits for an API server that does not answer", truth(strings.Contains(gone, "API server")), "", 1)
	if err := s.Control.ThawServer(); err != nil {
		return err
	}
	missing := s.readiness(ctx, 60*time.Second, "ChaosExperiment")
	s.say("without the custom resources, /readyz says %q", missing)
	s.figures.Equal("a controller names the custom resources that are missing", truth(strings.Contains(missing, "ChaosExperiment")), "", 1)
	return nil
}

// controllerProcess is a controller outside of the cluster.
type controllerProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
}

const ownReady = "http://127.0.0.1:19752/readyz"

func (s *stage) startController(ctx context.Context) (*controllerProcess, error) {
	log, err := os.Create(filepath.Join(s.Dir, "controller-outside.log"))
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	c := &controllerProcess{done: make(chan struct{})}
	c.cmd = exec.CommandContext(ctx, filepath.Join(s.Build.Bin, "mooring-controller"), "--kubeconfig", s.Kubeconfig(),
		"--tls-dir", s.certs("controller"), "--metrics", "127.0.0.1:19752", "--namespace", "default", "--identity", "outside")
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start controller: %w", err)
	}
	go func() {
		_ = c.cmd.Wait() // it is killed
		close(c.done)
	}()
	return c, nil
}

func (c *controllerProcess) end() {
	_ = c.cmd.Process.Kill() // ended by itself already, at worst
	<-c.done
}

// readiness returns what the controller says of itself once it mentions words,
// else the last it said.
func (s *stage) readiness(ctx context.Context, limit time.Duration, words string) (said string) {
	_ = s.Eventually(ctx, limit, "readiness", func(ctx context.Context) error {
		text, err := page(ctx, ownReady)
		if err != nil {
			return err
		}
		said = text
		if !strings.Contains(text, words) {
			return errors.New(text)
		}
		return nil
	})
	return said
}

// page returns the body behind a URL, whatever its status.
func page(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(b)), err
}

// certs is the folder of one program's certificates.
func (s *stage) certs(program string) string {
	return filepath.Join(s.Dir, "deploy", "overlays", "self-signed", "certs", program)
}

// prepareInstall copies what ships and makes certificates, as an operator would.
func (s *stage) prepareInstall(ctx context.Context) error {
	if err := copyTree(filepath.Dir(s.Build.Dockerfile), filepath.Join(s.Dir, "deploy")); err != nil {
		return err
	}
	out, err := s.program(ctx, filepath.Join(s.Build.Bin, "mooringctl"), "certs", "--out", filepath.Dir(s.certs("agent")))
	if err != nil {
		return err
	}
	s.say("mooringctl certs: %s", strings.ReplaceAll(out, "\n", "; "))
	if err := os.MkdirAll(filepath.Join(s.Dir, "install"), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	return os.WriteFile(filepath.Join(s.Dir, "install", "kustomization.yaml"), []byte(overlay), 0o644)
}

// copyTree copies files and folders below from; it follows no links.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o644)
	})
}

// install puts Mooring on the cluster by one kubectl apply -k. The replicas are
// still becoming Ready meanwhile.
func (s *stage) install(ctx context.Context) error {
	var err error
	if s.before, err = s.traces(ctx); err != nil {
		return err
	}
	begun := time.Now()
	out, err := s.Kubectl(ctx, "apply", "-k", filepath.Join(s.Dir, "install"))
	if err != nil {
		return err
	}
	s.say("kubectl apply -k: %d objects in %.1f s", len(strings.Split(out, "\n")), time.Since(begun).Seconds())
	if err := s.installed(ctx, 3*time.Minute); err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	s.say("agent and controller are Ready %.1f s after kubectl apply", took)
	s.figures.AtMost("installed and Ready", took, "s", 120)
	s.scraped = s.prometheusRuns(ctx)
	return nil
}

// installed waits until agent and controller are Ready.
func (s *stage) installed(ctx context.Context, limit time.Duration) error {
	c, err := s.mooring()
	if err != nil {
		return err
	}
	return s.Eventually(ctx, limit, "agent and controller to be Ready", func(ctx context.Context) error {
		var ds appsv1.DaemonSet
		if err := c.Get(ctx, types.NamespacedName{Namespace: system, Name: "mooring-agent"}, &ds); err != nil {
			return err
		}
		var deploy appsv1.Deployment
		if err := c.Get(ctx, types.NamespacedName{Namespace: system, Name: "mooring-controller"}, &deploy); err != nil {
			return err
		}
		if ds.Status.ObservedGeneration < ds.Generation || ds.Status.NumberReady != 1 || ds.Status.UpdatedNumberScheduled != 1 || deploy.Status.ReadyReplicas != 1 {
			return fmt.Errorf("agents Ready: %d of 1, controllers Ready: %d of 1", ds.Status.NumberReady, deploy.Status.ReadyReplicas)
		}
		return nil
	})
}

// systemLogs is what Mooring's own pods say, as an error.
func (s *stage) systemLogs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var all []string
	for _, args := range [][]string{
		{"get", "pods", "-n", system, "-o", "wide"},
		{"get", "events", "-n", system, "--field-selector", "type=Warning"},
		{"logs", "-n", system, "-l", "app.kubernetes.io/part-of=mooring", "--prefix", "--tail", "40", "--all-containers"},
	} {
		out, err := s.Kubectl(ctx, args...)
		if err != nil {
			out = err.Error()
		}
		all = append(all, out)
	}
	return errors.New("\n" + strings.Join(all, "\n"))
}

func databasePods() []string {
	return []string{"orders-0", "orders-1", "orders-2", "ledger-0", "cache-0"}
}
