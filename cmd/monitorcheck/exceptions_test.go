package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/deploy/monitoring"
)

func expressions() []string {
	var all []string
	for _, d := range monitoring.Dashboards() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					all = append(all, q.Expr)
				}
			}
		}
	}
	return all
}

func TestEveryExceptionIsOfSomeQuery(t *testing.T) {
	text := strings.Join(expressions(), "\n")
	for _, e := range exceptions() {
		require.Contains(t, text, e[0], "this exception excuses nothing")
		require.NotEmpty(t, e[1])
	}
}

func TestFilledLeavesNoVariable(t *testing.T) {
	for _, expr := range expressions() {
		require.NotContains(t, filled(expr), "$", expr)
	}
	require.Equal(t, `rate(a{instance=~".*"}[1m])`, filled(`rate(a{instance=~"$instance"}[$__rate_interval])`))
}
