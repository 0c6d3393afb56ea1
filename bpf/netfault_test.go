package bpf

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/mooring-dev/mooring/agent/change"
)

// usualTicks is what /proc/net/psched says everywhere: a tick of 64 ns.
const usualTicks = 15.625

func TestNetemOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		rule change.NetRule
		want netemBand
	}{
		"a delay":             {change.NetRule{Delay: 50 * time.Millisecond}, netemBand{latency: 781_250}},
		"a delay with jitter": {change.NetRule{Delay: time.Second, Jitter: 64 * time.Nanosecond}, netemBand{latency: 15_625_000, jitter: 1}},
		"a whole loss":        {change.NetRule{LossPPM: 1_000_000}, netemBand{loss: math.MaxUint32}},
		"a quarter loss":      {change.NetRule{LossPPM: 250_000}, netemBand{loss: math.MaxUint32 / 4}},
		"the smallest loss":   {change.NetRule{LossPPM: 1}, netemBand{loss: 4294}},
		"the longest delay":   {change.NetRule{Delay: math.MaxUint32 * 64}, netemBand{latency: math.MaxUint32}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := netemOptions(tc.rule, usualTicks)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	for name, tc := range map[string]struct {
		rule  change.NetRule
		ticks float64
		want  string
	}{
		"nothing asked for":        {change.NetRule{}, usualTicks, "neither delay nor loss"},
		"jitter without delay":     {change.NetRule{Jitter: 1, LossPPM: 1}, usualTicks, "jitter 1ns is more than delay 0s"},
		"a negative delay":         {change.NetRule{Delay: -1}, usualTicks, "cannot be negative"},
		"a negative jitter":        {change.NetRule{Delay: 1, Jitter: -1}, usualTicks, "cannot be negative"},
		"more than whole loss":     {change.NetRule{LossPPM: 1_000_001}, usualTicks, "1000001 ppm"},
		"a delay beyond netem":     {change.NetRule{Delay: 5 * time.Minute}, usualTicks, "too long for netem"},
		"a scheduler not readable": {change.NetRule{Delay: time.Second}, 0, "/proc/net/psched"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, err := netemOptions(tc.rule, tc.ticks)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestTreeIdentity(t *testing.T) {
	t.Run("the root we build is known as ours", func(t *testing.T) {
		require.True(t, isOurs(prioRoot(7)))
		require.Equal(t, "6d6f:0", netlink.HandleStr(prioRoot(7).Handle))
	})
	for name, edit := range map[string]func(*netlink.Prio){
		"another handle":       func(q *netlink.Prio) { q.Handle = 1 << 16 },
		"another band count":   func(q *netlink.Prio) { q.Bands = 3 },
		"another priority map": func(q *netlink.Prio) { q.PriorityMap[3] = 1 },
	} {
		t.Run("a prio with "+name+" is not", func(t *testing.T) {
			q := prioRoot(7)
			edit(q)
			require.False(t, isOurs(q))
		})
	}
	t.Run("nothing and other kinds are not", func(t *testing.T) {
		require.False(t, isOurs(nil))
		require.False(t, isOurs(&netlink.Netem{QdiscAttrs: netlink.QdiscAttrs{Handle: rootHandle}}))
	})
	t.Run("the bands hang below the root and the gate points at netem", func(t *testing.T) {
		require.Equal(t, "6d6f:1", netlink.HandleStr(plainParent))
		require.Equal(t, "6d6f:2", netlink.HandleStr(netemBand{}.qdisc(7).Parent))
		f := gateFilter(7, 3)
		require.Equal(t, uint32(rootHandle), f.Parent)
		require.Equal(t, uint32(netemParent), f.ClassId)
		require.False(t, f.DirectAction, "the gate answers with match or no match, not with a verdict")
	})
	t.Run("errors name the foreign root", func(t *testing.T) {
		err := foreignRoot("veth1", &netlink.GenericQdisc{QdiscType: "mq", QdiscAttrs: netlink.QdiscAttrs{Handle: 0x80010000}})
		require.ErrorContains(t, err, `interface "veth1" has root qdisc mq 8001:0`)
		require.ErrorContains(t, foreignRoot("veth1", nil), "no root qdisc")
	})
}
