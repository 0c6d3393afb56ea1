package pods

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamesAreWhatPeopleCallIt(t *testing.T) {
	id := hexID
	tests := map[string]string{
		"/":                                "/",
		"/system.slice/postgresql.service": "postgresql.service",
		"/system.slice/x.service/below":    "x.service",
		"/user.slice/user-1000.slice/session-3.scope": "session-3.scope",
		"/docker/" + id:                         id[:12],
		"/system.slice/docker-" + id + ".scope": id[:12],
		"/kubepods/burstable/pod1234/" + id:     id[:12],
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": id[:12],
		"/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope":           id[:12],
		"/machine.slice/libpod-" + id + ".scope/container":                    id[:12],
		"/k8s.io/my-container":           "my-container",
		"/docker/" + strings.ToUpper(id): strings.ToUpper(id),
	}
	for path, want := range tests {
		t.Run(path, func(t *testing.T) { require.Equal(t, want, displayName(path)) })
	}
}

func TestMembershipIsReadFromEveryForm(t *testing.T) {
	tests := map[string]struct {
		text string
		want membership
	}{
		"version 2": {"0::/system.slice/a.service\n", membership{"/system.slice/a.service", map[string]string{}}},
		"version 1": {"9:cpu,cpuacct:/a\n8:memory:/b\n1:name=systemd:/c\n",
			membership{"", map[string]string{"cpu": "/a", "cpuacct": "/a", "memory": "/b", "name=systemd": "/c"}}},
		"hybrid":                {"4:memory:/a\n0::/b\n", membership{"/b", map[string]string{"memory": "/a"}}},
		"a path with colons":    {"0::/a:b:c\n", membership{"/a:b:c", map[string]string{}}},
		"an empty file":         {"", membership{"", map[string]string{}}},
		"no line break at last": {"0::/", membership{"/", map[string]string{}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := parseMembership([]byte(tt.text))
			require.NoError(t, err)
			require.Equal(t, tt.want, m)
		})
	}
	for _, bad := range []string{"nonsense\n", "0:/a\n", "0::relative\n", "\x00:\x00:\x00"} {
		t.Run("not "+bad, func(t *testing.T) {
			_, err := parseMembership([]byte(bad))
			require.Error(t, err)
		})
	}
}

func FuzzParseMembership(f *testing.F) {
	f.Add([]byte("0::/system.slice/a.service\n"))
	f.Add([]byte("9:cpu,cpuacct:/a\n8:memory:/b\n1:name=systemd:/c\n0::/d:e\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMembership(data)
		if err != nil {
			return
		}
		if m.unified != "" {
			require.True(t, strings.HasPrefix(m.unified, "/"))
		}
		for _, path := range m.controllers {
			require.True(t, strings.HasPrefix(path, "/"))
			displayName(path)
		}
		for _, version := range []int{1, 2} {
			if path, err := (hierarchy{version: version}).main(m); err == nil {
				require.NotContains(t, strings.Split(path, "/"), "..")
			}
		}
	})
}
