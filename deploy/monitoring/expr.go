package monitoring

import (
	"fmt"
	"strings"
)

// Labels that tell instances apart, everywhere. node is not the exporter's: the
// scrape adds it. Without Kubernetes namespace, pod and container are empty, so
// that the instance's id alone would join servers of different machines.
const (
	byInstance = "node, namespace, pod, container, instance"
	bySystem   = byInstance + ", db_system_name"
	byDigest   = bySystem + ", digest"
	// byAgent tells agents apart: instance is the address of the scrape here.
	byAgent = "node, instance"
	// agentJob is the job that README.md says agents are to be scraped in.
	agentJob = `job="mooring-agent"`
)

const (
	operations = "db_server_operation_duration_seconds"
	firstByte  = "db_server_operation_ttfb_seconds"
	digests    = "db_query_digest_duration_seconds"
	txns       = "db_server_transaction_duration_seconds"
)

// rate is the summed rate of a counter.
func rate(counter, selector, by, window string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s%s[%s]))", by, counter, braces(selector), window)
}

// sumRate is the summed rate of a histogram's sum, for instance seconds spent a
// second: the average number of statements at work.
func sumRate(histogram, selector, by, window string) string {
	return either(
		rate(histogram+"_sum", selector, by, window),
		fmt.Sprintf("sum by (%s) (histogram_sum(rate(%s%s[%s])))", by, histogram, braces(selector), window))
}

// countRate is the summed rate of a histogram's count.
func countRate(histogram, selector, by, window string) string {
	return either(
		rate(histogram+"_count", selector, by, window),
		fmt.Sprintf("sum by (%s) (histogram_count(rate(%s%s[%s])))", by, histogram, braces(selector), window))
}

// quantile is that of a histogram with classic buckets, native ones or both. The
// native ones come first: they are exact to 9 %. Without observations it has no
// value: a NaN would spoil every quantile over time that it is part of.
func quantile(q, histogram, selector, by, window string) string {
	return either(
		fmt.Sprintf("histogram_quantile(%s, sum by (%s) (rate(%s%s[%s]))) >= 0", q, by, histogram, braces(selector), window),
		fmt.Sprintf("histogram_quantile(%s, %s) >= 0", q, rate(histogram+"_bucket", selector, by+", le", window)))
}

// withinShare is the share of a histogram's observations up to bound, which is
// one of its classic bounds.
func withinShare(bound, histogram, by, window string) string {
	return either(
		fmt.Sprintf("%s / %s", rate(histogram+"_bucket", fmt.Sprintf("le=%q", bound), by, window), rate(histogram+"_count", "", by, window)),
		fmt.Sprintf("histogram_fraction(0, %s, sum by (%s) (rate(%s[%s])))", bound, by, histogram, window))
}

// share is a part of a whole; no whole gives no value rather than NaN.
func share(part, whole string) string {
	return fmt.Sprintf("(%s) / ((%s) > 0)", part, whole)
}

// either is the first form where it has a value and the second elsewhere.
func either(first, second string) string { return first + " or " + second }

func braces(selector string) string {
	if selector == "" {
		return ""
	}
	return "{" + selector + "}"
}

// and joins selectors, leaving empty ones out.
func and(selectors ...string) string {
	var out []string
	for _, s := range selectors {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, ",")
}
