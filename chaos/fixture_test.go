package chaos

import (
	"time"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/state"
)

// now is CLOCK_BOOTTIME in all tests.
const now = time.Hour

// fixtures returns the targets scenarios can name.
func fixtures() map[string]Target {
	pod := func(edit func(*Target)) Target {
		t := Target{
			Instance: state.Instance{
				ID:         "prod/db-0/postgres",
				Cgroup:     state.Cgroup{Version: 2, Path: "/kubepods.slice/pod1.slice/c1.scope", ID: 4242},
				DataDevice: state.Device{Major: 253, Minor: 1},
				NetNS:      4026532001,
				HostLink:   12,
			},
			Freezer: change.FileChange{Path: "/sys/fs/cgroup/kubepods.slice/pod1.slice/c1.scope/cgroup.freeze", CgroupID: 4242, New: "1"},
		}
		t.Others = []state.Instance{t.Instance, {ID: "prod/db-1/postgres", NetNS: 4026532002, HostLink: 13}}
		edit(&t)
		return t
	}
	v1 := func(t *Target) {
		t.Instance.Cgroup = state.Cgroup{
			Version: 1, Path: "/docker/c1", ID: 7,
			Paths: map[string]string{"cpu": "/docker/c1", "freezer": "/docker/c1"},
		}
		t.Freezer = change.FileChange{Path: "/sys/fs/cgroup/freezer/docker/c1/freezer.state", CgroupID: 99, New: "FROZEN"}
	}
	return map[string]Target{
		"pod": pod(func(*Target) {}),
		"v1":  pod(v1),
		"v1-freezer-elsewhere": pod(func(t *Target) {
			v1(t)
			t.Instance.Cgroup.Paths["freezer"] = "/"
		}),
		"host-network": pod(func(t *Target) { t.Instance.HostNetwork = true }),
		"no-veth":      pod(func(t *Target) { t.Instance.HostLink = 0 }),
		"two-in-pod": pod(func(t *Target) {
			t.Others = append(t.Others, state.Instance{ID: "prod/db-0/redis", NetNS: t.Instance.NetNS, HostLink: 12})
		}),
		"shared":      pod(func(t *Target) { t.Instance.Cgroup.Shared = "cron lives in it, too" }),
		"no-data":     pod(func(t *Target) { t.Instance.DataDevice = state.Device{} }),
		"no-freezer":  pod(func(t *Target) { t.Freezer = change.FileChange{} }),
		"made-again":  pod(func(t *Target) { t.Freezer.CgroupID = 4343 }),
		"unnumbered":  pod(func(t *Target) { t.Instance.Cgroup.ID, t.Freezer.CgroupID = 0, 0 }),
		"other-netns": pod(func(t *Target) { t.Others[1].NetNS, t.Others[1].HostLink = 0, 0 }),
	}
}

// able says that the node can do everything but what is listed.
func able(except ...string) func(string) state.Capability {
	return func(name string) state.Capability {
		for _, e := range except {
			if e == name {
				return state.Capability{Name: name, Detail: "kernel module sch_netem is missing"}
			}
		}
		return state.Capability{Name: name, OK: true}
	}
}
