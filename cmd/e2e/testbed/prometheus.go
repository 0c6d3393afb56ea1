package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
)

// PrometheusAddress is where Prometheus listens, for the test as for pods.
const PrometheusAddress = node.Gateway + ":9090"

// Prometheus is a running one.
type Prometheus struct{ *Process }

// StartPrometheus starts Prometheus with the given configuration file's text
// and waits until it serves. Rule files are named by absolute path. What it
// gathers is lost when it is stopped.
func (c *Cluster) StartPrometheus(ctx context.Context, config string) (*Prometheus, error) {
	dir, err := os.MkdirTemp(c.Dir, "prometheus-")
	if err != nil {
		return nil, fmt.Errorf("make folder for Prometheus: %w", err)
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("configure Prometheus: %w", err)
	}
	if _, err := c.Promtool(ctx, "check", "config", file); err != nil {
		return nil, err
	}
	p, err := c.start("prometheus", exec.Command(c.Cache.Control("usr/bin/prometheus"), "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+PrometheusAddress))
	if err != nil {
		return nil, err
	}
	if err := poll(ctx, 30*time.Second, "Prometheus to be ready", func(ctx context.Context) error {
		return get(ctx, "http://"+PrometheusAddress+"/-/ready")
	}); err != nil {
		return nil, errors.Join(err, p.Kill())
	}
	return &Prometheus{p}, nil
}

// Sample is one time series' value at one moment.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query evaluates an expression now. An expression that matches nothing gives no
// samples and no error.
func (p *Prometheus) Query(ctx context.Context, expression string) ([]Sample, error) {
	b, err := fetch(ctx, "http://"+PrometheusAddress+"/api/v1/query?query="+url.QueryEscape(expression))
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", expression, err)
	}
	return decodeSamples(b)
}

// decodeSamples reads an instant vector as the HTTP API returns it.
func decodeSamples(b []byte) ([]Sample, error) {
	var answer struct {
		Data struct {
			ResultType string `json:"resultType"`
			Result     []struct {
				Metric map[string]string `json:"metric"`
				Value  [2]any            `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("decode Prometheus' answer: %w", err)
	}
	if answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("decode Prometheus' answer: it is a %q, not a vector", answer.Data.ResultType)
	}
	var list []Sample
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("decode Prometheus' answer: %w", err)
		}
		list = append(list, Sample{r.Metric, v})
	}
	return list, nil
}

// Value evaluates an expression that gives one sample; NaN says that it gives
// none or several.
func (p *Prometheus) Value(ctx context.Context, expression string) (float64, error) {
	samples, err := p.Query(ctx, expression)
	if err != nil || len(samples) != 1 {
		return math.NaN(), err
	}
	return samples[0].Value, nil
}

// Promtool runs promtool to its end and returns its output.
func (c *Cluster) Promtool(ctx context.Context, args ...string) (string, error) {
	return c.launcher.Run(exec.CommandContext(ctx, c.Cache.Control("usr/bin/promtool"), args...))
}

// get asks for a page and takes any status but 200 for an error.
func get(ctx context.Context, address string) error {
	_, err := fetch(ctx, address)
	return err
}

// fetch gets a page within this network namespace, and never by a proxy.
func fetch(ctx context.Context, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %.1024s", address, response.Status, b)
	}
	return b, nil
}
