package monitoring

import "fmt"

// digestPage is one kind of statement, or several beside one another.
func digestPage() Dashboard {
	const byOne = "node, instance, digest"
	name := "{{digest}} {{instance}}"
	info := fmt.Sprintf("max by (digest, db_operation_name, query) (db_query_digest_info{%s})", chosenDigest)
	calls, seconds := countRate(digests, chosenDigest, byOne, window), sumRate(digests, chosenDigest, byOne, window)
	return Dashboard{
		UID: uidDigest, Title: "Mooring / Digest", Description: "A kind of statement: how often, how long, on which instance.",
		Variables: append(place(),
			Variable{Name: "instance", Label: "Instance", Metric: `mooring_instance_info{node=~"$node",namespace=~"$namespace"}`, By: "instance", All: true},
			Variable{Name: "digest", Label: "Digest", Metric: fmt.Sprintf("%s{%s}", digestLoad, chosen), By: "digest", All: true}),
		Rows: []Row{
			{"What it is", []Panel{
				table("Text", 24, Query{Expr: info}).hiding("Value").tall(7).
					about("Normalised: no literal is kept. Statements without a name of their own: other (beyond the number of digests kept), unsampled (text not seen), tls (encrypted), none (no text)."),
			}},
			{"Over time", []Panel{
				lines("Load", "short", 12, q(seconds, name)).stacked().linked(toInstance()).about("Seconds spent a second: the average number of these statements at work."),
				lines("Calls a second", "ops", 12, q(calls, name)).linked(toInstance()),
				lines("Mean duration", "s", 12, q(share(seconds, calls), name)).linked(toInstance()),
				lines("Share of the instance's load", "percentunit", 12,
					q(fmt.Sprintf("(%s) / on (node, instance) group_left () ((%s) > 0)", seconds, sumRate(operations, chosen, "node, instance", window)), name)).upTo(1),
				lines("Rows a call", "short", 12, q(share(rate("db_query_digest_rows_total", chosenDigest, byOne, window), calls), name)).
					about("Returned or affected, where the protocol says so."),
				lines("Errors a second", "ops", 12, q(rate("db_query_digest_errors_total", chosenDigest, byOne, window), name)),
			}},
			{"By instance", []Panel{
				table("Totals of the last hour", 24,
					column(countIncrease(digests, chosenDigest, byOne), "Calls", "short"),
					column(sumIncrease(digests, chosenDigest, byOne), "Time", "s"),
					column(share(sumIncrease(digests, chosenDigest, byOne), countIncrease(digests, chosenDigest, byOne)), "Mean", "s", bad(0.1, 1)...),
					column(increase("db_query_digest_rows_total", chosenDigest, byOne), "Rows", "short"),
					column(increase("db_query_digest_errors_total", chosenDigest, byOne), "Errors", "short", bad(1, 100)...),
				).linked(toInstance()).tall(12),
			}},
		},
	}
}

// The totals of tables are those of the last hour.
const hour = "1h"

func increase(counter, selector, by string) string {
	return fmt.Sprintf("sum by (%s) (increase(%s%s[%s]))", by, counter, braces(selector), hour)
}

func countIncrease(histogram, selector, by string) string {
	return either(increase(histogram+"_count", selector, by),
		fmt.Sprintf("sum by (%s) (histogram_count(increase(%s%s[%s])))", by, histogram, braces(selector), hour))
}

func sumIncrease(histogram, selector, by string) string {
	return either(increase(histogram+"_sum", selector, by),
		fmt.Sprintf("sum by (%s) (histogram_sum(increase(%s%s[%s])))", by, histogram, braces(selector), hour))
}
