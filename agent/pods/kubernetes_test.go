package pods

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/mooring-dev/mooring/agent/state"
)

// container id number i.
func cid(i int) string { return strings.Repeat("ab", 31) + string(rune('0'+i)) + "0" }

// podWith returns a running, burstable pod with the named containers, whose
// ids are cid(0), cid(1), and so on.
func podWith(labels, annotations map[string]string, containers ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bank", Name: "ledger-0", UID: podUID, Labels: labels, Annotations: annotations},
		Spec:       corev1.PodSpec{NodeName: "node-1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable},
	}
	for i, name := range containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: name, ContainerID: "containerd://" + cid(i),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		})
	}
	return pod
}

func groupOf(i int) string { return "/kubepods/burstable/pod" + podUID + "/" + cid(i) }

func named(name string) map[string]string { return map[string]string{nameLabel: name} }

// start runs a source against a fake API server until the test ends.
func start(tb testing.TB, o Options, objs ...runtime.Object) (*Kubernetes, *fake.Clientset) {
	tb.Helper()
	client := fake.NewClientset(objs...)
	k := NewKubernetes(client, "node-1", o)
	run(tb, k)
	require.Eventually(tb, k.informer.HasSynced, 10*time.Second, time.Millisecond)
	return k, client
}

func run(tb testing.TB, k *Kubernetes) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	tb.Cleanup(func() { cancel(); wg.Wait() })
}

func scanPods(tb testing.TB, n *fakeNode, objs ...runtime.Object) Result {
	tb.Helper()
	k, _ := start(tb, n.options(), objs...)
	r, err := k.Instances(tb.Context())
	require.NoError(tb, err)
	return r
}

func TestAPodIsDescribedInFull(t *testing.T) {
	p := postgres(100, 90, groupOf(1), 5432)
	p.netns = podNS
	n := newFakeNode(t, "v2").add(
		child(90, 1, groupOf(1), "/usr/bin/patroni"), p,
		child(91, 90, groupOf(1), "/usr/bin/python3"), // the operator's manager has helpers
		child(95, 1, groupOf(0), "/usr/bin/exporter"))
	n.links[100] = 9
	in := only(t, scanPods(t, n, podWith(map[string]string{"application": "spilo"}, nil, "metrics", "postgres")))
	require.Equal(t, "bank/ledger-0/postgres", in.ID)
	require.Equal(t, "ledger-0", in.Name)
	require.Equal(t, []string{"bank", "ledger-0", "postgres", "kubernetes"}, []string{in.Namespace, in.Pod, in.Container, in.Source})
	require.Equal(t, state.PostgreSQL, in.Engine)
	require.Equal(t, groupOf(1), in.Cgroup.Path)
	require.Empty(t, in.Cgroup.Shared)
	require.Equal(t, []int{90, 91, 100}, in.PIDs)
	require.Equal(t, 9, in.HostLink)
}

func TestAPodIsFoundInEveryFormAndHierarchy(t *testing.T) {
	for _, layout := range []string{"v2", "v1", "hybrid"} {
		for _, form := range cgroupForms() {
			t.Run(layout+" "+form.name, func(t *testing.T) {
				pod := podWith(named("postgresql"), nil, "db")
				pod.Status.QOSClass = form.class
				pod.Status.ContainerStatuses[0].ContainerID = form.runtime + "://" + hexID
				o := newFakeNode(t, layout).add(postgres(100, 1, form.path, 5432)).options()
				o.KubepodsRoots = form.roots
				k, _ := start(t, o, pod)
				r, err := k.Instances(t.Context())
				require.NoError(t, err)
				in := only(t, r)
				require.Equal(t, form.path, in.Cgroup.Path)
				if layout != "v2" {
					require.Equal(t, 1, in.Cgroup.Version)
					require.Equal(t, form.path, in.Cgroup.Paths["cpu"])
				}
			})
		}
	}
}

func TestWhatADeclarationMeans(t *testing.T) {
	engine := func(name string) map[string]string { return map[string]string{engineAnnotation: name} }
	tests := map[string]struct {
		labels, annotations map[string]string
		want                state.Engine
	}{
		"an annotation":           {nil, engine("mysql"), state.MySQL},
		"an annotation first":     {named("postgresql"), engine("redis"), state.Redis},
		"the name postgres":       {named("postgres"), nil, state.PostgreSQL},
		"the name mariadb":        {named("mariadb"), nil, state.MariaDB},
		"the name redis":          {named("redis"), nil, state.Redis},
		"CloudNativePG":           {map[string]string{"cnpg.io/cluster": "x", "cnpg.io/podRole": "instance"}, nil, state.PostgreSQL},
		"Crunchy":                 {map[string]string{"postgres-operator.crunchydata.com/cluster": "x", "postgres-operator.crunchydata.com/data": "postgres"}, nil, state.PostgreSQL},
		"Percona XtraDB":          {map[string]string{nameLabel: "percona-xtradb-cluster", componentLabel: "pxc"}, nil, state.MySQL},
		"Oracle's operator":       {map[string]string{"mysql.oracle.com/cluster": "x", "component": "mysqld"}, nil, state.MySQL},
		"a Redis operator":        {map[string]string{"redis_setup_type": "cluster"}, nil, state.Redis},
		"Percona for MongoDB":     {map[string]string{nameLabel: "percona-server-mongodb", componentLabel: "mongod"}, nil, state.MongoDB},
		"TiDB's operator":         {map[string]string{nameLabel: "tidb-cluster", componentLabel: "tidb"}, nil, state.TiDB},
		"TiDB's storage is none":  {map[string]string{nameLabel: "tidb-cluster", componentLabel: "tikv"}, nil, ""},
		"the name valkey":         {named("valkey"), nil, state.Valkey},
		"GoldenDB by annotation":  {named("mysql"), engine("goldendb"), state.GoldenDB},
		"a pooler is none":        {map[string]string{"cnpg.io/cluster": "x", "cnpg.io/podRole": "pooler"}, nil, ""},
		"a router is none":        {map[string]string{"mysql.oracle.com/cluster": "x", "component": "mysqlrouter"}, nil, ""},
		"a proxy is none":         {map[string]string{nameLabel: "percona-xtradb-cluster", componentLabel: "haproxy"}, nil, ""},
		"an unknown name is none": {named("nginx"), nil, ""},
		"no label is none":        {nil, nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e, ok, err := declaredEngine(podWith(tt.labels, tt.annotations))
			require.NoError(t, err)
			require.Equal(t, tt.want, e.name)
			require.Equal(t, tt.want != "", ok)
		})
	}
}

func TestADeclaredMariaDBMayRunTheOldName(t *testing.T) {
	p := postgres(100, 1, groupOf(0), 3306)
	p.exe = "/usr/sbin/mysqld"
	in := only(t, scanPods(t, newFakeNode(t, "v2").add(p), podWith(named("mariadb"), nil, "db")))
	require.Equal(t, state.MariaDB, in.Engine)
}

func TestAnUnclearPodIsReportedAndNotListed(t *testing.T) {
	engine := map[string]string{engineAnnotation: "postgresql"}
	redis := postgres(100, 1, groupOf(0), 6379)
	redis.exe = "/usr/bin/redis-server"
	one := []fakeProcess{postgres(100, 1, groupOf(0), 5432)}
	two := append(one, postgres(200, 1, groupOf(1), 5433))
	waiting := podWith(nil, engine, "db")
	waiting.Status.ContainerStatuses[0].State.Running = nil
	odd := podWith(nil, engine, "db")
	odd.Status.ContainerStatuses[0].ContainerID = "containerd://../x"
	tests := map[string]struct {
		pod       *corev1.Pod
		processes []fakeProcess
		want      string
	}{
		"an unknown engine":             {podWith(named("postgresql"), map[string]string{engineAnnotation: "postgres"}, "db"), one, "must be one of postgresql, opengauss, kingbase, tdsql-pg, mysql"},
		"a container without an engine": {podWith(nil, map[string]string{containerAnnotation: "db"}, "db"), one, "add mooring.dev/engine"},
		"a container that is not there": {podWith(nil, map[string]string{engineAnnotation: "postgresql", containerAnnotation: "x"}, "db"), one, `names container "x": the pod has db`},
		"two containers":                {podWith(nil, engine, "a", "b"), two, "listen in containers a, b: name one"},
		"two servers in a container":    {podWith(nil, engine, "a"), append(one, postgres(200, 1, groupOf(0), 5433)), "2 postgresql servers listen"},
		"another engine's server":       {podWith(nil, engine, "a"), []fakeProcess{redis}, `container "a" runs redis-server`},
		"a server that does not listen": {podWith(nil, engine, "a"), []fakeProcess{child(100, 1, groupOf(0), "/bin/postgres")}, "no known server that listens"},
		"no cgroup":                     {podWith(nil, engine, "a"), nil, "no cgroup at any known place"},
		"a container not running":       {waiting, one, "is not running"},
		"a container id that is none":   {odd, one, "is not runtime://id"},
		"no containers":                 {podWith(nil, engine), one, "no containers yet"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := scanPods(t, newFakeNode(t, "v2").add(tt.processes...), tt.pod)
			require.Empty(t, r.Instances)
			require.Len(t, r.Unresolved, 1)
			require.Contains(t, r.Unresolved[0], "pod bank/ledger-0: ")
			require.Contains(t, r.Unresolved[0], tt.want)
		})
	}
}

func TestAnAnnotationPicksTheContainer(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432), postgres(200, 1, groupOf(1), 5433))
	in := only(t, scanPods(t, n, podWith(named("postgresql"), map[string]string{containerAnnotation: "b"}, "a", "b")))
	require.Equal(t, 200, in.MainPID)
}

func TestASecondServerInAContainerMakesItShared(t *testing.T) {
	redis := postgres(200, 1, groupOf(0), 6379)
	redis.exe = "/usr/bin/redis-server"
	in := only(t, scanPods(t, newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432), redis), podWith(named("postgresql"), nil, "db")))
	require.Contains(t, in.Cgroup.Shared, "2 database servers")
	require.Equal(t, []int{100}, in.PIDs)
}

func TestAServerBelowItsContainersCgroupIsNotTouched(t *testing.T) {
	in := only(t, scanPods(t, newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0)+"/container", 5432)), podWith(named("postgresql"), nil, "db")))
	require.Equal(t, groupOf(0)+"/container", in.Cgroup.Path)
	require.Contains(t, in.Cgroup.Shared, "below its container's")
}

func TestPodsThatDoNotRunHereAreLeftOut(t *testing.T) {
	elsewhere, done, pending := podWith(named("postgresql"), nil, "db"), podWith(named("postgresql"), nil, "db"), podWith(named("postgresql"), nil, "db")
	elsewhere.Name, elsewhere.Spec.NodeName = "a", "node-2"
	done.Name, done.Status.Phase = "b", corev1.PodSucceeded
	pending.Name, pending.Status.Phase = "c", corev1.PodPending
	r := scanPods(t, newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432)), elsewhere, done, pending)
	require.Empty(t, r.Instances)
	require.Empty(t, r.Unresolved)
}

func TestOnlyPodsOfTheNodeAreAskedFor(t *testing.T) {
	_, client := start(t, newFakeNode(t, "v2").options())
	require.Eventually(t, func() bool { return len(client.Actions()) >= 2 }, 10*time.Second, time.Millisecond)
	for _, action := range client.Actions() {
		var selector string
		switch a := action.(type) {
		case k8stesting.ListAction:
			selector = a.GetListRestrictions().Fields.String()
		case k8stesting.WatchAction:
			selector = a.GetWatchRestrictions().Fields.String()
		}
		require.Equal(t, "spec.nodeName=node-1", selector, action.GetVerb())
	}
}

func TestBeforeTheFirstListThereIsAnErrorThatSaysWhy(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("list", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	k := NewKubernetes(client, "node-1", newFakeNode(t, "v2").options())
	_, err := k.Instances(t.Context())
	require.ErrorIs(t, err, ErrNotSynced)
	run(t, k)
	require.Eventually(t, func() bool {
		_, err := k.Instances(t.Context())
		return errors.Is(err, ErrNotSynced) && strings.Contains(err.Error(), "connection refused")
	}, 10*time.Second, time.Millisecond)
}

func TestTheCacheAnswersWhileTheAPIServerIsAway(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432))
	k, client := start(t, n.options(), podWith(named("postgresql"), nil, "db"))
	down := func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, errors.New("down") }
	client.PrependReactor("*", "pods", down)
	r, err := k.Instances(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"bank/ledger-0/db"}, ids(r))

	n.remove(100)
	n.add(postgres(300, 1, groupOf(0), 5432))
	n.build()
	r, err = k.Instances(t.Context())
	require.NoError(t, err)
	require.Equal(t, 300, only(t, r).MainPID, "processes are read anew")
}

func TestAChangedPodIsSeen(t *testing.T) {
	n := newFakeNode(t, "v2").add(postgres(100, 1, groupOf(0), 5432))
	pod := podWith(nil, nil, "db")
	k, client := start(t, n.options(), pod)
	r, err := k.Instances(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Instances)

	// The fake server sends no event to a watch that is not there yet.
	require.Eventually(t, func() bool { return len(client.Actions()) >= 2 }, 10*time.Second, time.Millisecond)
	pod.Annotations = map[string]string{engineAnnotation: "postgresql"}
	_, err = client.CoreV1().Pods("bank").Update(t.Context(), pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r, err := k.Instances(t.Context())
		return err == nil && slices.Equal(ids(r), []string{"bank/ledger-0/db"})
	}, 10*time.Second, 5*time.Millisecond)
}

func TestMergeListsNoCgroupTwice(t *testing.T) {
	n := newFakeNode(t, "v2").add(
		postgres(100, 1, groupOf(0), 5432), postgres(200, 1, unit, 5433),
		fakeProcess{pid: 300, parent: 1, group: "/x", exe: "/usr/bin/java", tcp: map[uint64]uint16{8: 80}})
	bad := podWith(nil, map[string]string{engineAnnotation: "oracle"}, "db")
	bad.Name, bad.UID = "other", types.UID("other")
	k8s := scanPods(t, n, podWith(named("postgresql"), nil, "db"), bad)
	alone := instances(t, n)
	require.Equal(t, []string{groupOf(0), unit}, ids(alone))
	merged := Merge(k8s, alone)
	require.Equal(t, []string{unit, "bank/ledger-0/db"}, ids(merged))
	require.Equal(t, 1, merged.UnknownListeners)
	require.Equal(t, k8s.Unresolved, merged.Unresolved)
	require.Equal(t, alone, Merge(Result{}, alone))
}
