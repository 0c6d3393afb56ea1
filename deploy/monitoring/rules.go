package monitoring

import (
	"fmt"
	"time"

	"sigs.k8s.io/yaml"
)

// Rule is one recording rule or alert, as Prometheus reads it.
type Rule struct {
	Record      string            `json:"record,omitempty"`
	Alert       string            `json:"alert,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Group is a list of rules that are evaluated in turn, at one moment.
type Group struct {
	Name     string `json:"name"`
	Interval string `json:"interval,omitempty"`
	Rules    []Rule `json:"rules"`
}

// Severities: page somebody now, or look at it today.
const (
	critical = "critical"
	warning  = "warning"
)

// alert makes an alert. The runbook line names the next step.
func alert(name, severity string, hold time.Duration, expr, summary, description, runbook string) Rule {
	r := Rule{
		Alert: name, Expr: expr, Labels: map[string]string{"severity": severity},
		Annotations: map[string]string{"summary": summary, "description": description, "runbook": runbook},
	}
	if hold > 0 {
		r.For = fmt.Sprintf("%dm", int(hold/time.Minute))
	}
	return r
}

func record(name, expr string) Rule { return Rule{Record: name, Expr: expr} }

// Groups is every rule: first what is recorded, then the alerts.
func Groups() []Group { return append(recordings(), alerts()...) }

// alerts are those on databases, resources, active probes and on Mooring itself.
func alerts() []Group {
	return []Group{
		{Name: "mooring-statements", Rules: statementAlerts()},
		{Name: "mooring-resources", Rules: resourceAlerts()},
		{Name: "mooring-replication", Rules: replicationAlerts()},
		{Name: "mooring-probe", Rules: probeAlerts()},
		{Name: "mooring", Rules: agentAlerts()},
	}
}

// ruleFile renders groups as a plain rule file of Prometheus.
func ruleFile(groups []Group) ([]byte, error) {
	b, err := yaml.Marshal(map[string]any{"groups": groups})
	if err != nil {
		return nil, fmt.Errorf("write rules: %w", err)
	}
	return b, nil
}

// ruleObject renders all groups as the object of the Prometheus operator.
func ruleObject() ([]byte, error) {
	b, err := yaml.Marshal(map[string]any{
		"apiVersion": "monitoring.coreos.com/v1",
		"kind":       "PrometheusRule",
		"metadata": map[string]any{
			"name": "mooring", "namespace": "mooring-system",
			"labels": map[string]string{"app.kubernetes.io/part-of": "mooring"},
		},
		"spec": map[string]any{"groups": Groups()},
	})
	if err != nil {
		return nil, fmt.Errorf("write PrometheusRule: %w", err)
	}
	return b, nil
}
