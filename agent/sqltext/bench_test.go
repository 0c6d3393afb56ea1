package sqltext

import (
	"strings"
	"testing"
)

// inputs are those of the comparison that chose an own lexer.
var inputs = []struct{ name, text string }{
	{"point", "SELECT c FROM sbtest1 WHERE id=12345"},
	{"range", "SELECT c FROM sbtest1 WHERE id BETWEEN 1000 AND 1099 ORDER BY c LIMIT 10, 5"},
	{"insert", "INSERT INTO sbtest1 (id, k, c, pad) VALUES (501423, 499284, '83868641912-28773972837-60736120486-75162659906-27563526494-20381887404-41576422241-93426793964-56405065102-33518432330', '67847967377-48000963322-6')"},
	{"join", "SELECT o.id, o.total, c.name FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.status IN ('new', 'paid', 'sent', 'done') AND c.region_id = 42 ORDER BY o.id DESC"},
	{"bulk", "INSERT INTO t (a, b, c) VALUES " + strings.Repeat("(1234, 'some text here', 99.5), ", 131) + "(1, 'x', 2)"},
}

func BenchmarkKey(b *testing.B) {
	for _, in := range inputs {
		b.Run(in.name, func(b *testing.B) {
			text := []byte(in.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				Key(MySQL, text)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(text)), "ns/B")
		})
	}
}

func BenchmarkAppendNormalized(b *testing.B) {
	for _, in := range inputs {
		b.Run(in.name, func(b *testing.B) {
			text, buf := []byte(in.text), make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				buf = AppendNormalized(buf[:0], MySQL, text, 1024)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(text)), "ns/B")
		})
	}
}
