package chaos

import (
	"time"

	"github.com/mooring-dev/mooring/agent/change"
)

const (
	// minDelay is far below what a scheduler keeps; less means nothing.
	minDelay = time.Microsecond
	// maxDelay is beyond every timeout a client would have.
	maxDelay = time.Minute
)

func netDelay() Kind {
	return Kind{
		Name:        "net-delay",
		Help:        "Packets reach the instance late.",
		Family:      Net,
		Needs:       "net-delay",
		MaxDuration: MaxDuration,
		Params: []Param{
			{Name: "delay", Help: "time added to every packet, from 1µs to 1m", Required: true, Example: "100ms"},
			{Name: "jitter", Help: "how far the delay varies either way, at most the delay itself", Default: "0s", Example: "10ms"},
		},
		plan: planNetDelay,
	}
}

func planNetDelay(p *params) build {
	delay := p.duration("delay", minDelay, maxDelay)
	// With a delay that was refused, any jitter that might be right will do.
	high := delay
	if high == 0 {
		high = maxDelay
	}
	jitter := p.duration("jitter", 0, high)
	return netRule(change.NetRule{Delay: delay, Jitter: jitter})
}

// netRule makes r the rule for the interface of the target. Its name is left to
// Prepare, which finds it by the index.
func netRule(r change.NetRule) build {
	return func(t Target, deadline time.Duration) []change.Change {
		r := r
		r.Link, r.Deadline = t.Instance.HostLink, deadline
		return []change.Change{{Class: change.Net, Net: &r}}
	}
}
