package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
)

// leversWork pulls every lever that the story needs and checks that it does what
// it says, so that an act that fails has not failed for the testbed's sake.
func (s *stage) leversWork(ctx context.Context) error {
	for _, l := range []struct {
		name string
		pull func(context.Context) error
	}{
		{"the API server is frozen and thawed", s.freezeServer},
		{"the API server is killed and started", s.restartServer},
		{"the kubelet is stopped and started", s.restartKubelet},
		{"containerd is killed and started", s.restartContainerd},
		{"a container is killed and comes back", s.killContainer},
		{"files go to the guest and back", s.moveFiles},
		{"Prometheus scrapes", s.runPrometheus},
		{"kubectl and helm answer", s.runTools},
		{"new images reach the running node", s.Load},
	} {
		begun := time.Now()
		err := l.pull(ctx)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			s.say("%s: %v", l.name, err)
		}
		s.figures.Equal(l.name, truth(err == nil), "", 1)
		s.say("%s: %.1f s", l.name, time.Since(begun).Seconds())
	}
	return nil
}

func (s *stage) freezeServer(ctx context.Context) error {
	if err := s.Control.FreezeServer(ctx); err != nil {
		return err
	}
	one, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := s.Pod(one, "cache-0")
	if err == nil {
		err = errors.New("the frozen API server answered")
	} else {
		err = nil
	}
	if terr := s.Control.ThawServer(); terr != nil {
		return terr
	}
	if err == nil {
		_, err = s.Pod(ctx, "cache-0")
	}
	return err
}

func (s *stage) restartServer(ctx context.Context) error {
	ledger, err := s.Pod(ctx, "ledger-0")
	if err != nil {
		return err
	}
	if err := s.Control.StopServer(); err != nil {
		return err
	}
	if _, err := s.Pod(ctx, "cache-0"); err == nil {
		return errors.New("the stopped API server answered")
	}
	if _, err := s.MariaDBAt(ctx, ledger.Status.PodIP, "SELECT 1"); err != nil {
		return err
	}
	if err := s.Control.StartServer(ctx); err != nil {
		return err
	}
	return s.PodReady(ctx, testbed.Namespace, "cache-0", time.Minute)
}

func (s *stage) restartKubelet(ctx context.Context) error {
	if err := s.Node.StopService(ctx, node.Kubelet); err != nil {
		return err
	}
	if err := s.expectService(ctx, node.Kubelet, "stopped"); err != nil {
		return err
	}
	if err := s.Node.StartService(ctx, node.Kubelet); err != nil {
		return err
	}
	return s.expectService(ctx, node.Kubelet, "runs")
}

func (s *stage) restartContainerd(ctx context.Context) error {
	if err := s.Node.KillService(ctx, node.Containerd); err != nil {
		return err
	}
	if err := s.Node.StartService(ctx, node.Containerd); err != nil {
		return err
	}
	// The databases have lived on under their shims.
	_, err := s.Redis(ctx, "cache-0", "ping")
	return err
}

func (s *stage) expectService(ctx context.Context, name, want string) error {
	status, err := s.Node.Status(ctx)
	if err == nil && status.Services[name] != want {
		err = fmt.Errorf("%s is %s, not %s", name, status.Services[name], want)
	}
	return err
}

func (s *stage) killContainer(ctx context.Context) error {
	before, err := s.Pod(ctx, "cache-0")
	if err != nil {
		return err
	}
	if _, err := s.Node.Must(ctx, "kill -9 $(pidof redis-server)"); err != nil {
		return err
	}
	return s.Eventually(ctx, 2*time.Minute, "cache-0 to be restarted and Ready", func(ctx context.Context) error {
		after, err := s.Pod(ctx, "cache-0")
		if err != nil {
			return err
		}
		c := after.Status.ContainerStatuses[0]
		if c.RestartCount <= before.Status.ContainerStatuses[0].RestartCount || !c.Ready {
			return fmt.Errorf("it has %d restarts, ready %v", c.RestartCount, c.Ready)
		}
		return nil
	})
}

func (s *stage) moveFiles(ctx context.Context) error {
	const name, content = "/tmp/e2e", "back and forth\n"
	if err := s.Node.WriteFile(ctx, name, strings.NewReader(content)); err != nil {
		return err
	}
	b, err := s.Node.ReadFile(ctx, name)
	if err == nil && string(b) != content {
		err = fmt.Errorf("%q came back as %q", content, b)
	}
	return err
}

func (s *stage) runPrometheus(ctx context.Context) error {
	p, err := s.StartPrometheus(ctx, "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: self\n    static_configs: [{targets: ['"+testbed.PrometheusAddress+"']}]\n")
	if err != nil {
		return err
	}
	err = s.Eventually(ctx, 20*time.Second, "a scrape", func(ctx context.Context) error {
		v, err := p.Value(ctx, "up")
		if err == nil && v != 1 {
			err = fmt.Errorf("up is %v", v)
		}
		return err
	})
	return errors.Join(err, p.Stop(10*time.Second))
}

func (s *stage) runTools(ctx context.Context) error {
	out, err := s.Kubectl(ctx, "get", "node", node.Name, "-o", "name")
	if err == nil && strings.TrimSpace(out) != "node/"+node.Name {
		err = fmt.Errorf("kubectl said %q", out)
	}
	if err != nil {
		return err
	}
	_, err = s.Helm(ctx, "list", "-A")
	return err
}
