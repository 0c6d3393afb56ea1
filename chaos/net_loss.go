package chaos

import "github.com/mooring-dev/mooring/agent/change"

func netLoss() Kind {
	return Kind{
		Name:   "net-loss",
		Help:   "A share of the packets to the instance is dropped.",
		Family: Net,
		// The same qdisc behind the same gate does both.
		Needs:       "net-delay",
		MaxDuration: MaxDuration,
		Params: []Param{
			{Name: "percent", Help: "share of packets dropped, from 0.0001 to 100", Required: true, Example: "10"},
		},
		plan: planNetLoss,
	}
}

func planNetLoss(p *params) build {
	return netRule(change.NetRule{LossPPM: p.percent("percent")})
}
