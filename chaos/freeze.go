package chaos

import (
	"time"

	"github.com/mooring-dev/mooring/agent/change"
)

// maxFreeze is shorter than for other kinds: nothing in the kernel ends a
// freeze, and a primary that is gone for longer is rebuilt rather than awaited.
const maxFreeze = 5 * time.Minute

func freeze() Kind {
	return Kind{
		Name:        "freeze",
		Help:        "All processes of the instance stand still, as on a machine that hangs.",
		Family:      Process,
		Needs:       "freeze",
		MaxDuration: maxFreeze,
		plan:        planFreeze,
	}
}

func planFreeze(*params) build {
	return func(t Target, _ time.Duration) []change.Change {
		f := t.Freezer
		return []change.Change{{Class: change.Freeze, File: &f}}
	}
}
