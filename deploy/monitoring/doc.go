// Package monitoring is the one source of what Mooring ships for Prometheus and
// Grafana: recording rules, alerts and dashboards. Files renders all of it, and
// `make generate` writes it out: the plain rule files and dashboards beside this
// package, the PrometheusRule of components/monitoring, and the chart's copies.
//
// Every expression works on classic histograms and on native ones: where one form
// is not stored its half of an "or" is empty. See sumRate, countRate and quantile.
//
// A rule has its promtool cases in cases_test.go, a panel is run by
// cmd/monitorcheck against a real agent, and every metric that either names must be
// in the exporter's table.
package monitoring
