package pods

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/mooring-dev/mooring/agent/state"
)

// ledger declares the pod of podWith.
func ledger(change ...func(*state.Declared)) state.Declared {
	d := state.Declared{
		Namespace: "bank", Pod: "ledger-0", PodUID: podUID, Engine: state.PostgreSQL,
		Cluster: "ledger", Role: "primary", Policy: "bank/postgres", NUMA: state.NUMASingleNode,
	}
	for _, f := range change {
		f(&d)
	}
	return d
}

// mounts is what the kubelet mounts into a container of that name.
func mounts(uid, container string) string {
	return fmt.Sprintf(`1071 1070 0:52 / / rw,relatime master:299 - overlay overlay rw,lowerdir=/a:/b
1079 1071 254:1 /var/lib/kubelet/pods/%[1]s/etc-hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw
1080 1071 254:1 /var/lib/kubelet/pods/%[1]s/containers/%[2]s/5f1a77c9 /dev/termination-log rw,relatime - ext4 /dev/vda1 rw
1081 1071 254:1 /var/lib/kubelet/pods/%[1]s/volume-subpaths/data/other/0 /data rw,relatime - ext4 /dev/vda1 rw
`, uid, container)
}

// away is a source whose API server has never answered.
func away(tb testing.TB, o Options, declared ...state.Declared) *Kubernetes {
	tb.Helper()
	client := fake.NewClientset()
	client.PrependReactor("*", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	k := NewKubernetes(client, "node-1", o)
	k.Declare(declared)
	return k
}

func find(tb testing.TB, k *Kubernetes) Result {
	tb.Helper()
	r, err := k.Instances(tb.Context())
	require.NoError(tb, err)
	return r
}

func TestADeclarationGoesBeforeWhatIsWrittenOnThePod(t *testing.T) {
	mysqld := postgres(200, 1, groupOf(1), 3306)
	mysqld.exe = "/usr/sbin/mysqld"
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432), mysqld)
	pod := podWith(named("postgresql"), map[string]string{engineAnnotation: "postgresql", containerAnnotation: "pg"}, "pg", "my")
	k, _ := start(t, n.options(), pod)
	require.Equal(t, []string{"bank/ledger-0/pg"}, ids(find(t, k)))
	require.Nil(t, only(t, find(t, k)).Declared)

	d := ledger(func(d *state.Declared) { d.Engine, d.Container = state.MariaDB, "my" })
	k.Declare([]state.Declared{d})
	in := only(t, find(t, k))
	require.Equal(t, "bank/ledger-0/my", in.ID)
	require.Equal(t, state.MariaDB, in.Engine)
	require.Equal(t, &d, in.Declared)
	require.Equal(t, []string{podUID, "containerd://" + cid(1)}, []string{in.PodUID, in.ContainerID})

	k.Declare(nil)
	require.Equal(t, []string{"bank/ledger-0/pg"}, ids(find(t, k)), "a withdrawn declaration leaves the labels")
}

func TestADeclaredPodNeedsNoLabel(t *testing.T) {
	k, _ := start(t, newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432)).options(), podWith(nil, nil, "db"))
	k.Declare([]state.Declared{ledger()})
	require.Equal(t, []string{"bank/ledger-0/db"}, ids(find(t, k)))
}

func TestADeclarationThatDoesNotFitIsRefused(t *testing.T) {
	gone := podWith(nil, nil, "db")
	gone.Status.Phase = corev1.PodPending
	elsewhere := podWith(nil, nil, "db")
	elsewhere.Spec.NodeName = "node-2"
	tests := map[string]struct {
		pod      *corev1.Pod
		declared state.Declared
		want     string
	}{
		"a pod of that name made again":   {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.PodUID = "old" }), `uid "old" and the one here has uid "` + podUID},
		"a uid under another name":        {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.Pod = "ledger-1" }), "as pod bank/ledger-1, so the two are not the same"},
		"a uid in another namespace":      {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.Namespace = "shop" }), "as pod shop/ledger-0"},
		"a pod that is not there":         {elsewhere, ledger(), "no such pod is on this node"},
		"a pod that does not run yet":     {gone, ledger(), `it is "Pending", not running`},
		"a container that is not there":   {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.Container = "x" }), `the policy names container "x": the pod has db`},
		"a server of another engine":      {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.Engine = state.Redis }), `container "db" runs postgres`},
		"an engine nobody knows":          {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.Engine = "oracle" }), `engine "oracle" is none of postgresql`},
		"a uid that leads somewhere else": {podWith(nil, nil, "db"), ledger(func(d *state.Declared) { d.PodUID = "../x" }), "another pod"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k, _ := start(t, newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432)).options(), tt.pod)
			k.Declare([]state.Declared{tt.declared})
			r := find(t, k)
			require.Empty(t, r.Instances)
			require.Contains(t, strings.Join(r.Unresolved, "\n"), tt.want)
		})
	}
}

func TestADeclaredPodInWhichNoServerListensIsMissing(t *testing.T) {
	waiting := podWith(nil, nil, "db")
	waiting.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	two := podWith(nil, nil, "db", "helper")
	pending := podWith(nil, nil, "db")
	pending.Status.Phase = corev1.PodPending
	leaving := podWith(nil, nil, "db")
	leaving.DeletionTimestamp, leaving.Finalizers = &metav1.Time{Time: time.Unix(1, 0)}, []string{"kept/for-the-test"}
	elsewhere := podWith(nil, nil, "db")
	elsewhere.Spec.NodeName = "node-2"
	in := func(container string) func(*state.Declared) {
		return func(d *state.Declared) { d.Container = container }
	}
	tests := map[string]struct {
		pod      *corev1.Pod
		declared state.Declared
		ports    []uint16 // of PostgreSQL in the pod's first container
		want     []state.Declared
	}{
		"the server has ended":               {podWith(nil, nil, "db"), ledger(), nil, []state.Declared{ledger(in("db"))}},
		"its container waits to begin again": {waiting, ledger(), nil, []state.Declared{ledger(in("db"))}},
		"the policy names the container":     {two, ledger(in("helper")), nil, []state.Declared{ledger(in("helper"))}},
		"the container is not known":         {two, ledger(), nil, []state.Declared{ledger()}},
		"one listens":                        {podWith(nil, nil, "db"), ledger(), []uint16{5432}, nil},
		"several listen":                     {podWith(nil, nil, "db"), ledger(), []uint16{5432, 5433}, nil},
		"the pod has not begun":              {pending, ledger(), nil, nil},
		"the pod is being deleted":           {leaving, ledger(), nil, nil},
		"the pod is on another node":         {elsewhere, ledger(), nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t, "v2")
			for i, port := range tt.ports {
				n.add(postgres(100+i, 1, groupOf(0), port))
			}
			k, _ := start(t, n.options(), tt.pod)
			k.Declare([]state.Declared{tt.declared})
			r := find(t, k)
			require.Equal(t, tt.want, r.Missing)
			require.Equal(t, tt.want, Merge(r, Result{}).Missing)
		})
	}
}

func TestAMissingServerIsNamedByTheContainerItWasSeenIn(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(1), 5432))
	k, _ := start(t, n.options(), podWith(nil, nil, "helper", "db"))
	k.Declare([]state.Declared{ledger()})
	require.Equal(t, []string{"bank/ledger-0/db"}, ids(find(t, k)))
	n.remove(100)
	require.Equal(t, []state.Declared{ledger(func(d *state.Declared) { d.Container = "db" })}, find(t, k).Missing)
}

func TestADeclarationIsNotTakenByAnotherPod(t *testing.T) {
	const hash = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	real := podWith(nil, map[string]string{hashAnnotation: hash, mirrorAnnotation: hash}, "db")
	// Both would take it by the hash, and either may be looked at first.
	other := real.DeepCopy()
	other.Name, other.UID = "impostor", "other"
	group := "/kubepods/burstable/pod" + hash + "/" + cid(0)
	k, _ := start(t, newFakeNode(t, "v2").add(postgres(100, 1, group, 5432)).options(), real, other)
	k.Declare([]state.Declared{ledger(func(d *state.Declared) { d.PodUID = hash })})
	for range 16 {
		r := find(t, k)
		require.Equal(t, []string{"bank/ledger-0/db"}, ids(r))
		require.NotNil(t, r.Instances[0].Declared)
	}
}

func TestAPodMadeAgainIsStillWatchedByItsLabels(t *testing.T) {
	k, _ := start(t, newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432)).options(), podWith(named("postgresql"), nil, "db"))
	k.Declare([]state.Declared{ledger(func(d *state.Declared) { d.PodUID = "old" })})
	r := find(t, k)
	require.Equal(t, []string{"bank/ledger-0/db"}, ids(r))
	require.Nil(t, r.Instances[0].Declared)
	require.Len(t, r.Unresolved, 1)
}

func TestADeclaredStaticPodIsKnownByBothItsUIDs(t *testing.T) {
	const hash = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	group := "/kubepods/burstable/pod" + hash + "/" + cid(0)
	pod := podWith(nil, map[string]string{hashAnnotation: hash, mirrorAnnotation: hash}, "db")
	for name, uid := range map[string]string{"that of the mirror": podUID, "that on the node": hash} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t, "v2").add(postgres(100, 1, group, 5432))
			k, _ := start(t, n.options(), pod)
			d := ledger(func(d *state.Declared) { d.PodUID = uid })
			k.Declare([]state.Declared{d})
			in := only(t, find(t, k))
			require.Equal(t, &d, in.Declared)
			require.Equal(t, Seen{Container: "db", ContainerID: "containerd://" + cid(0), CgroupUID: hash}, k.Seen()[uid])

			again := away(t, n.options())
			again.Remember(k.Seen())
			again.Declare([]state.Declared{d})
			require.Equal(t, []string{"bank/ledger-0/db"}, ids(find(t, again)), "with the API server away")
		})
	}
}

func TestADeclaredPodIsFoundWithoutTheAPIServer(t *testing.T) {
	for _, layout := range []string{"v2", "v1", "hybrid"} {
		for _, form := range cgroupForms() {
			t.Run(layout+" "+form.name, func(t *testing.T) {
				p := postgres(100, 1, form.path, 5432)
				p.mounts = mounts(podUID, "db")
				o := newFakeNode(t, layout).add(p).options()
				o.KubepodsRoots = form.roots
				k := away(t, o, ledger())
				r := find(t, k)
				require.Len(t, r.Instances, 1)
				in := r.Instances[0]
				require.Equal(t, "bank/ledger-0/db", in.ID)
				require.Equal(t, form.path, in.Cgroup.Path)
				require.Empty(t, in.Cgroup.Shared)
				require.Equal(t, podUID, in.PodUID)
				require.True(t, strings.HasSuffix(in.ContainerID, hexID), in.ContainerID)
				require.Len(t, r.Unresolved, 1)
				require.Contains(t, r.Unresolved[0], "only declared pods are listed: pods of this node not received yet")
			})
		}
	}
}

func TestWithoutTheAPIServerAContainerIsNamedOnlyByWhatIsCertain(t *testing.T) {
	seen := Seen{Container: "db", ContainerID: "containerd://" + cid(0), CgroupUID: podUID}
	at := func(i int, name string) fakeProcess {
		p := postgres(100+i, 1, groupOf(i), uint16(5432+i))
		if name != "" {
			p.mounts = mounts(podUID, name)
		}
		return p
	}
	inDB := ledger(func(d *state.Declared) { d.Container = "db" })
	foreign := at(0, "")
	foreign.mounts = mounts("another-pod", "db")
	tests := map[string]struct {
		declared  state.Declared
		seen      *Seen
		processes []fakeProcess
		id, cid   string
		refused   string
	}{
		"by the kubelet's mounts":                       {ledger(), nil, []fakeProcess{at(0, "db")}, "bank/ledger-0/db", cid(0), ""},
		"by the container seen last":                    {ledger(), &seen, []fakeProcess{at(0, "")}, "bank/ledger-0/db", "containerd://" + cid(0), ""},
		"the only one, made again":                      {ledger(), &seen, []fakeProcess{at(1, "")}, "bank/ledger-0/db", "containerd://" + cid(1), ""},
		"the declared one, made again":                  {inDB, &seen, []fakeProcess{at(1, "db")}, "bank/ledger-0/db", "containerd://" + cid(1), ""},
		"the declared one of two":                       {inDB, nil, []fakeProcess{at(0, "other"), at(1, "db")}, "bank/ledger-0/db", cid(1), ""},
		"not where nothing tells":                       {ledger(), nil, []fakeProcess{at(0, "")}, "", "", "whose name only the API server knows"},
		"not a declared one that may be another":        {inDB, &seen, []fakeProcess{at(1, "")}, "", "", "whose name only the API server knows"},
		"not by another pod's mounts":                   {ledger(), nil, []fakeProcess{foreign}, "", "", "whose name only the API server knows"},
		"not one of two":                                {ledger(), nil, []fakeProcess{at(0, "a"), at(1, "b")}, "", "", "listen in containers a, b"},
		"not a container other than the declared one":   {inDB, nil, []fakeProcess{at(0, "other")}, "", "", "no cgroup of pod uid"},
		"not with two servers in one container":         {ledger(), &seen, []fakeProcess{at(0, ""), postgres(200, 1, groupOf(0), 6000)}, "", "", "2 postgresql servers listen in container"},
		"not when its server does not run":              {ledger(), &seen, nil, "", "", "no cgroup of pod uid"},
		"not by a pod uid that begins like the pod uid": {ledger(func(d *state.Declared) { d.PodUID = podUID[:8] }), nil, []fakeProcess{at(0, "db")}, "", "", "no cgroup of pod uid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := away(t, newFakeNode(t, "v2").add(tt.processes...).options())
			if tt.seen != nil {
				k.Remember(map[string]Seen{podUID: *tt.seen})
			}
			k.Declare([]state.Declared{tt.declared})
			r := find(t, k)
			if tt.refused != "" {
				require.Empty(t, r.Instances)
				require.Len(t, r.Unresolved, 2)
				require.Contains(t, strings.Join(r.Unresolved, "\n"), tt.refused)
				return
			}
			require.Len(t, r.Instances, 1)
			in := r.Instances[0]
			require.Equal(t, []string{tt.id, tt.cid}, []string{in.ID, in.ContainerID})
		})
	}
}

func TestARestartedContainerKeepsItsIDAndGetsANewCgroup(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432))
	k, _ := start(t, n.options(), podWith(nil, nil, "db"))
	k.Declare([]state.Declared{ledger()})
	before := only(t, find(t, k))

	// The API server has not told of the new container, or cannot.
	n.remove(100)
	n.add(postgres(300, 1, groupOf(1), 5432))
	n.build()
	after := only(t, find(t, k))
	require.Equal(t, before.ID, after.ID)
	require.NotEqual(t, before.Cgroup.ID, after.Cgroup.ID)
	require.Equal(t, "containerd://"+cid(1), after.ContainerID)
	require.Equal(t, 300, after.MainPID)
	require.Equal(t, "containerd://"+cid(1), k.Seen()[podUID].ContainerID)
}

func TestARestartOfOneOfSeveralContainersIsFollowedByItsMounts(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432), child(90, 1, groupOf(1), "/bin/exporter"))
	k, _ := start(t, n.options(), podWith(nil, nil, "db", "metrics"))
	k.Declare([]state.Declared{ledger(func(d *state.Declared) { d.Container = "db" })})
	require.Equal(t, 100, only(t, find(t, k)).MainPID)

	n.remove(100)
	p := postgres(300, 1, groupOf(2), 5432)
	n.add(p)
	n.build()
	r := find(t, k)
	require.Empty(t, r.Instances, "it might be another container's")
	require.Len(t, r.Unresolved, 1)

	n.remove(300)
	p.mounts = mounts(podUID, "db")
	n.add(p)
	n.build()
	require.Equal(t, 300, only(t, find(t, k)).MainPID)
}

func TestWhereAPodWasSeenIsKeptAsLongAsItIsDeclared(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432))
	k, _ := start(t, n.options(), podWith(named("postgresql"), nil, "db"))
	find(t, k)
	require.Empty(t, k.Seen(), "an undeclared pod is nothing to remember")
	k.Declare([]state.Declared{ledger()})
	find(t, k)
	require.Contains(t, k.Seen(), podUID)
	n.remove(100)
	n.build()
	find(t, k)
	require.Contains(t, k.Seen(), podUID, "a server that is down is the same one when it is back")
	k.Declare(nil)
	require.Empty(t, k.Seen())
}

func TestTheContainersNameInMounts(t *testing.T) {
	line := func(root string) string {
		return "1 0 8:1 " + root + " /dev/termination-log rw - ext4 /dev/sda1 rw\n"
	}
	tests := map[string]struct{ data, want string }{
		"the kubelet's file":           {mounts("u", "db"), "db"},
		"the kubelet's own disk":       {line("/pods/u/containers/db/1234"), "db"},
		"another pod's":                {line("/pods/v/containers/db/1234"), ""},
		"two names":                    {line("/pods/u/containers/a/1") + line("/pods/u/containers/b/2"), ""},
		"the same name twice":          {line("/pods/u/containers/a/1") + line("/pods/u/containers/a/2"), "a"},
		"a volume that looks like one": {line("/pods/u/volumes/x/pods/u/containers/evil/1"), ""},
		"a directory below":            {line("/pods/u/containers/db/1/2"), ""},
		"no name":                      {line("/pods/u/containers//1") + line("/pods/u/containers/../1"), ""},
		"nothing":                      {"", ""},
		"half a line":                  {"1 0 8:1 /pods/u/containers/db/1", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, tt.want, containerInMounts([]byte(tt.data), "u")) })
	}
}

func FuzzContainerInMounts(f *testing.F) {
	f.Add([]byte(mounts("u", "db")))
	f.Add([]byte("1 0 8:1 /pods/u/containers/db/1 /x\n\n \x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if name := containerInMounts(data, "u"); name != "" && !isPathElement(name) {
			t.Fatalf("%q is no name", name)
		}
	})
}
