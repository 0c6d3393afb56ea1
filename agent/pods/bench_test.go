package pods

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkScan scans a node of 2,000 processes: 20 PostgreSQL instances in
// containers with 50 backends each, and 980 other processes of which 98 listen.
func BenchmarkScan(b *testing.B) {
	n := newFakeNode(b, "v2")
	for i := range 20 {
		group, main := fmt.Sprintf("/docker/%064x", i), 1000+100*i
		p := postgres(main, 1, group, 5432)
		p.netns = podNS + uint64(i)
		n.add(p)
		for j := 1; j < 50; j++ {
			c := child(main+j, main, group, p.exe)
			c.netns = p.netns
			n.add(c)
		}
	}
	for i := range 979 {
		p := child(10_000+i, 1, fmt.Sprintf("/system.slice/%d.service", i), "/usr/bin/other")
		p.plain = 20
		if i%10 == 0 {
			p.tcp = map[uint64]uint16{uint64(100_000 + 2*i): uint16(20_000 + i)}
		}
		n.add(p)
	}
	s := NewStandalone(n.options())
	b.ReportAllocs()
	for b.Loop() {
		r, err := s.Instances(b.Context())
		require.NoError(b, err)
		require.Len(b, r.Instances, 20)
		require.Equal(b, 98, r.UnknownListeners)
	}
}
