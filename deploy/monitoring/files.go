package monitoring

import (
	"fmt"
	"path"
	"strings"
)

// Where the rendered files go, below deploy.
const (
	recordingPath  = "monitoring/rules/recording.yaml"
	alertsPath     = "monitoring/rules/alerts.yaml"
	objectPath     = "components/monitoring/rules.yaml"
	dashboardsPath = "monitoring/dashboards"
	chartPath      = "helm/mooring/files"
)

// Files renders everything, by its path below deploy.
func Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	for p, groups := range map[string][]Group{recordingPath: recordings(), alertsPath: alerts(), chartPath + "/rules.yaml": Groups()} {
		b, err := ruleFile(groups)
		if err != nil {
			return nil, err
		}
		files[p] = b
	}
	object, err := ruleObject()
	if err != nil {
		return nil, err
	}
	files[objectPath] = object
	for _, d := range Dashboards() {
		b, err := d.JSON()
		if err != nil {
			return nil, err
		}
		for _, dir := range []string{dashboardsPath, chartPath + "/dashboards"} {
			files[path.Join(dir, d.UID+".json")] = b
		}
	}
	return files, nil
}

// AlertTable is the list of alerts in README.md.
func AlertTable() string {
	var b strings.Builder
	b.WriteString("| Alert | Severity | Held for | Says | Next step |\n|---|---|---|---|---|\n")
	for _, g := range alerts() {
		for _, r := range g.Rules {
			hold := r.For
			if hold == "" {
				hold = "-"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Alert, r.Labels["severity"], hold, r.Annotations["description"], r.Annotations["runbook"])
		}
	}
	return b.String()
}

// RecordingTable is the list of recorded series in README.md.
func RecordingTable() string {
	var b strings.Builder
	b.WriteString("| Recorded series | Every |\n|---|---|\n")
	for _, g := range recordings() {
		for _, r := range g.Rules {
			every := g.Interval
			if every == "" {
				every = "evaluation"
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", r.Record, every)
		}
	}
	return b.String()
}
