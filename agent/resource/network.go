package resource

import (
	"fmt"

	"github.com/mooring-dev/mooring/agent/state"
)

// network reads what the network namespace of a process counted.
func (r *Reader) network(pid int) (*state.NetworkUsage, error) {
	p, err := r.proc.Proc(pid)
	if ended(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read network of process %d: %w", pid, err)
	}
	tcp, err := p.Snmp()
	if ended(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read net/snmp of process %d: %w", pid, err)
	}
	ext, err := p.Netstat()
	if ended(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read net/netstat of process %d: %w", pid, err)
	}
	return &state.NetworkUsage{
		SentSegments:          count(tcp.OutSegs),
		RetransmittedSegments: count(tcp.RetransSegs),
		SentResets:            count(tcp.OutRsts),
		ReceivedResets:        count(tcp.EstabResets),
		ListenOverflows:       count(ext.ListenOverflows),
		ListenDrops:           count(ext.ListenDrops),
	}, nil
}

// count turns the library's figure, which is nil where a kernel has none, into
// a count.
func count(f *float64) int64 {
	if f == nil {
		return 0
	}
	return int64(*f)
}
