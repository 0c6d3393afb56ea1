package chaos

import (
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/agent/change"
)

func ioError() Kind {
	return Kind{
		Name:        "io-error",
		Help:        "Reads or writes of files on the instance's data device fail with EIO.",
		Family:      IO,
		Needs:       "io-error",
		MaxDuration: MaxDuration,
		Params: []Param{
			{Name: "operations", Help: "which fail: read, write or all", Default: "all", Example: "write"},
			{Name: "percent", Help: "share of operations that fail, from 0.0001 to 100", Default: "100", Example: "50"},
		},
		plan: planIOError,
	}
}

func planIOError(p *params) build {
	operations := p.choice("operations", "read", "write", "all")
	ppm := p.percent("percent")
	return func(t Target, deadline time.Duration) []change.Change {
		return []change.Change{{Class: change.IO, IO: &change.IORule{
			CgroupID: t.Instance.Cgroup.ID,
			Major:    t.Instance.DataDevice.Major,
			Minor:    t.Instance.DataDevice.Minor,
			Read:     operations != "write",
			Write:    operations != "read",
			Errno:    int(syscall.EIO),
			PPM:      ppm,
			Deadline: deadline,
		}}}
	}
}
