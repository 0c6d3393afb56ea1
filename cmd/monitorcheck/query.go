package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mooring-dev/mooring/cmd/internal/figure"
	"github.com/mooring-dev/mooring/deploy/monitoring"
)

// server is one Prometheus.
type server struct{ name, address string }

// prometheis starts one server that stores classic histograms and one that
// stores native ones.
func prometheis(dir, rules string, all *programs) ([]server, error) {
	control, err := cached("control")
	if err != nil {
		return nil, err
	}
	if rules, err = filepath.Abs(rules); err != nil {
		return nil, fmt.Errorf("find rules: %w", err)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 5s, evaluation_interval: 5s}
rule_files: ["%s/*.yaml"]
scrape_configs:
- job_name: mooring-agent
  honor_labels: true
  static_configs:
  - {targets: ["%s"], labels: {node: here}}
`, rules, agentAddress)
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	servers := []server{{"classic", "127.0.0.1:29761"}, {"native", "127.0.0.1:29762"}}
	for _, s := range servers {
		args := []string{"--config.file", path, "--storage.tsdb.path", filepath.Join(dir, s.name), "--web.listen-address", s.address, "--log.level=warn"}
		if s.name == "native" {
			args = append(args, "--enable-feature=native-histograms")
		}
		if err := all.start("prometheus-"+s.name, exec.Command(filepath.Join(control, "usr/bin/prometheus"), args...)); err != nil {
			return nil, err
		}
	}
	return servers, nil
}

// variables are what a person would have chosen: everything.
var variables = regexp.MustCompile(`\$(__rate_interval|node|namespace|instance|digest|cluster|agent)\b`)

func filled(expr string) string {
	return variables.ReplaceAllStringFunc(expr, func(v string) string {
		if v == "$__rate_interval" {
			return "1m"
		}
		return ".*"
	})
}

// askAll asks every query of every page and counts those without data.
func (s server) askAll(ctx context.Context, pages []monitoring.Dashboard, figures *figure.Set) error {
	queries, empty, excused := 0, 0, 0
	for _, d := range pages {
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				for _, q := range p.Queries {
					queries++
					n, err := s.ask(ctx, filled(q.Expr))
					if err != nil {
						return fmt.Errorf("%s: %s / %s: %w", s.name, d.Title, p.Title, err)
					}
					if n > 0 {
						continue
					}
					if why, ok := excuse(q.Expr); ok {
						excused++
						fmt.Printf("%-8s no data, expected: %s / %s / %q (%s)\n", s.name, d.Title, p.Title, q.Legend, why)
						continue
					}
					empty++
					fmt.Printf("%-8s NO DATA: %s / %s / %q\n         %s\n", s.name, d.Title, p.Title, q.Legend, filled(q.Expr))
				}
			}
		}
	}
	figures.Equal("queries without data, "+s.name+" histograms", float64(empty), "queries", 0)
	fmt.Printf("%s: %d queries, %d without data, %d of which are expected\n", s.name, queries, empty+excused, excused)
	return nil
}

// ask returns the number of series that an expression has now.
func (s server) ask(ctx context.Context, expr string) (int, error) {
	form := url.Values{"query": {expr}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/api/v1/query", strings.NewReader(form))
	if err != nil {
		return 0, fmt.Errorf("ask Prometheus: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask Prometheus: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, fmt.Errorf("read answer of Prometheus: %w", err)
	}
	if answer.Error != "" {
		return 0, fmt.Errorf("%s: %s", answer.Error, expr)
	}
	return len(answer.Data.Result), nil
}
