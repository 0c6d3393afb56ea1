//go:build kernel && next

package bpf

import (
	"testing"

	"github.com/mooring-dev/mooring/bpf/kerneltest/wire"
)

// TestWireConversationsToCome plays what the timer cannot do yet: see Needs.
func TestWireConversationsToCome(t *testing.T) {
	playAll(t, func(s wire.Scenario) bool { return s.Needs != "" })
}
