package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// system is where Mooring itself runs.
const system = "mooring-system"

// mooring returns a client that knows Mooring's own resources.
func (s *stage) mooring() (client.Client, error) {
	if s.resources != nil {
		return s.resources, nil
	}
	log.SetLogger(logr.Discard())
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("make scheme: %w", err)
	}
	var err error
	s.resources, err = client.New(s.Config, client.Options{Scheme: scheme})
	return s.resources, err
}

// program runs a program of this machine with the cluster's kubeconfig.
func (s *stage) program(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.Kubeconfig())
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s %s: %w: %s", path.Base(name), strings.Join(args, " "), err, text)
	}
	return text, nil
}

// isTrue is nil when the object's condition is true.
func isTrue(conditions []metav1.Condition, kind string) error {
	for _, c := range conditions {
		if c.Type != kind {
			continue
		}
		if c.Status == metav1.ConditionTrue {
			return nil
		}
		return fmt.Errorf("condition %s is %s: %s: %s", kind, c.Status, c.Reason, c.Message)
	}
	return fmt.Errorf("there is no condition %s yet", kind)
}

// condition returns one condition, empty where there is none.
func condition(conditions []metav1.Condition, kind string) metav1.Condition {
	if i := slices.IndexFunc(conditions, func(c metav1.Condition) bool { return c.Type == kind }); i >= 0 {
		return conditions[i]
	}
	return metav1.Condition{}
}

// cgroupOf is the directory in the guest of the cgroup of a pod's only container.
func (s *stage) cgroupOf(ctx context.Context, pod string) (string, error) {
	p, err := s.Pod(ctx, pod)
	if err != nil {
		return "", err
	}
	return cgroupDir(p)
}

func cgroupDir(p *corev1.Pod) (string, error) {
	if len(p.Status.ContainerStatuses) != 1 {
		return "", fmt.Errorf("pod %s has %d containers", p.Name, len(p.Status.ContainerStatuses))
	}
	_, id, _ := strings.Cut(p.Status.ContainerStatuses[0].ContainerID, "://")
	level := map[corev1.PodQOSClass]string{corev1.PodQOSBurstable: "burstable", corev1.PodQOSBestEffort: "besteffort"}[p.Status.QOSClass]
	return path.Join("/sys/fs/cgroup/kubepods", level, "pod"+string(p.UID), id), nil
}

// control reads control files of a pod's container in the guest.
func (s *stage) control(ctx context.Context, pod string, files ...string) ([]string, error) {
	dir, err := s.cgroupOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		b, err := s.Node.ReadFile(ctx, path.Join(dir, f))
		if err != nil {
			return nil, err
		}
		out = append(out, strings.TrimSpace(string(b)))
	}
	return out, nil
}

// restarts is how often a pod's container was restarted.
func (s *stage) restarts(ctx context.Context, pod string) (int32, error) {
	p, err := s.Pod(ctx, pod)
	if err != nil {
		return 0, err
	}
	if len(p.Status.ContainerStatuses) != 1 {
		return 0, fmt.Errorf("pod %s has %d containers", pod, len(p.Status.ContainerStatuses))
	}
	return p.Status.ContainerStatuses[0].RestartCount, nil
}

// port is where the server of a pod listens.
func port(pod string) string {
	switch {
	case strings.HasPrefix(pod, "orders"):
		return "5432"
	case strings.HasPrefix(pod, "ledger"):
		return "3306"
	}
	return "6379"
}

// handshake times one TCP connection to a pod's server, from outside.
func handshake(address string) (time.Duration, error) {
	begun := time.Now()
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	return took, c.Close()
}

// serverAddress is where the server of a pod can be reached.
func (s *stage) serverAddress(ctx context.Context, pod string) (string, error) {
	p, err := s.Pod(ctx, pod)
	if err != nil {
		return "", err
	}
	if p.Status.PodIP == "" {
		return "", fmt.Errorf("pod %s has no address", pod)
	}
	return net.JoinHostPort(p.Status.PodIP, port(pod)), nil
}

// quickest is the shortest of five handshakes with a server, in milliseconds.
func quickest(address string) (float64, error) {
	best := time.Hour
	for range 5 {
		took, err := handshake(address)
		if err != nil {
			return 0, err
		}
		best = min(best, took)
	}
	return milliseconds(best), nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// experiment returns the state of an experiment.
func (s *stage) experiment(ctx context.Context, name string) (*v1alpha1.ChaosExperiment, error) {
	c, err := s.mooring()
	if err != nil {
		return nil, err
	}
	e := &v1alpha1.ChaosExperiment{}
	return e, c.Get(ctx, types.NamespacedName{Namespace: testbed.Namespace, Name: name}, e)
}

// over is whether an experiment has come to an end.
func over(p v1alpha1.ExperimentPhase) bool {
	return slices.Contains([]v1alpha1.ExperimentPhase{
		v1alpha1.ExperimentRecovered, v1alpha1.ExperimentAborted, v1alpha1.ExperimentRefused, v1alpha1.ExperimentFailed,
	}, p)
}

// ended waits until an experiment is over.
func (s *stage) ended(ctx context.Context, name string, limit time.Duration) (*v1alpha1.ChaosExperiment, error) {
	var last *v1alpha1.ChaosExperiment
	err := s.Eventually(ctx, limit, "experiment "+name+" to be over", func(ctx context.Context) error {
		e, err := s.experiment(ctx, name)
		if err != nil {
			return err
		}
		last = e
		if !over(e.Status.Phase) {
			return fmt.Errorf("it is %q: %v", e.Status.Phase, e.Status.Conditions)
		}
		return nil
	})
	return last, err
}
