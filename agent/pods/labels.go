package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/mooring-dev/mooring/agent/state"
)

// What users write on pods, and what the kubelet writes on static ones.
const (
	engineAnnotation    = "mooring.dev/engine"
	containerAnnotation = "mooring.dev/container"
	// hashAnnotation is the uid of a static pod on its node; the pod object in
	// the API server is a mirror with another uid, which mirrorAnnotation marks.
	// Without that mark anybody may have written the hash, see staticUID.
	hashAnnotation   = "kubernetes.io/config.hash"
	mirrorAnnotation = "kubernetes.io/config.mirror"

	nameLabel      = "app.kubernetes.io/name"
	componentLabel = "app.kubernetes.io/component"
)

// podRule says that a pod with all these labels runs a server of an engine. An
// empty value stands for any.
type podRule struct {
	engine state.Engine
	labels map[string]string
}

// podRules is the table of labels that charts and operators put on the pods of
// servers. Rows that fit a cluster's other pods too (poolers, backups, proxies)
// would only fill Result.Unresolved, so each row names the server's pods alone
// where the operator has a label for them. The first row that fits decides.
func podRules() []podRule {
	rules := []podRule{
		// CloudNativePG. Its jobs and poolers carry the cluster label too.
		{state.PostgreSQL, map[string]string{"cnpg.io/cluster": "", "cnpg.io/podRole": "instance"}},
		{state.PostgreSQL, map[string]string{"cnpg.io/cluster": "", "cnpg.io/instanceRole": ""}},
		// Zalando's operator and others built on the Spilo image.
		{state.PostgreSQL, map[string]string{"application": "spilo"}},
		// Crunchy's operator and Percona's, which is built on it.
		{state.PostgreSQL, map[string]string{
			"postgres-operator.crunchydata.com/cluster": "", "postgres-operator.crunchydata.com/data": "postgres"}},
		// Percona's operators for MySQL.
		{state.MySQL, map[string]string{nameLabel: "percona-xtradb-cluster", componentLabel: "pxc"}},
		{state.MySQL, map[string]string{nameLabel: "percona-server", componentLabel: "mysql"}},
		{state.MySQL, map[string]string{nameLabel: "percona-server", componentLabel: "database"}},
		// Oracle's operator. Its routers carry the cluster label too.
		{state.MySQL, map[string]string{"mysql.oracle.com/cluster": "", "component": "mysqld"}},
		{state.MySQL, map[string]string{"mysql.oracle.com/cluster": "", componentLabel: "database"}},
		// TiDB's operator. Its storage and placement servers carry the name too.
		{state.TiDB, map[string]string{nameLabel: "tidb-cluster", componentLabel: "tidb"}},
		// Percona's operator for MongoDB. Its routers are another component.
		{state.MongoDB, map[string]string{nameLabel: "percona-server-mongodb", componentLabel: "mongod"}},
		{state.MongoDB, map[string]string{nameLabel: "percona-server-mongodb", componentLabel: "cfg"}},
		// Redis operators.
		{state.Redis, map[string]string{"app.kubernetes.io/part-of": "redis-failover", componentLabel: "redis"}},
		{state.Redis, map[string]string{"redis_setup_type": "standalone"}},
		{state.Redis, map[string]string{"redis_setup_type": "replication"}},
		{state.Redis, map[string]string{"redis_setup_type": "cluster"}},
	}
	// The recommended name label, which charts set (and mariadb-operator, and
	// operators of MySQL that set the plain name).
	for _, name := range []string{"postgresql", "postgres"} {
		rules = append(rules, podRule{state.PostgreSQL, map[string]string{nameLabel: name}})
	}
	for _, name := range []string{"mysql", "percona"} {
		rules = append(rules, podRule{state.MySQL, map[string]string{nameLabel: name}})
	}
	return append(rules,
		podRule{state.MariaDB, map[string]string{nameLabel: "mariadb"}},
		podRule{state.MariaDB, map[string]string{nameLabel: "mariadb-galera"}},
		podRule{state.Redis, map[string]string{nameLabel: "redis"}},
		podRule{state.Redis, map[string]string{nameLabel: "redis-cluster"}},
		podRule{state.Valkey, map[string]string{nameLabel: "valkey"}},
		podRule{state.Valkey, map[string]string{nameLabel: "valkey-cluster"}},
		podRule{state.MongoDB, map[string]string{nameLabel: "mongodb"}},
		podRule{state.FerretDB, map[string]string{nameLabel: "ferretdb"}},
	)
}

func (r podRule) fits(labels map[string]string) bool {
	for key, want := range r.labels {
		if got, ok := labels[key]; !ok || want != "" && got != want {
			return false
		}
	}
	return true
}

// declaredEngine returns the engine a pod is declared to run: by its annotation,
// else by its labels. It returns false for a pod that is no database, and an
// error for an annotation nobody can follow.
func declaredEngine(pod *corev1.Pod) (engine, bool, error) {
	if value, ok := pod.Annotations[engineAnnotation]; ok {
		e, known := engineNamed(state.Engine(value))
		if !known {
			return engine{}, false, fmt.Errorf("annotation %s is %q: it must be one of %s", engineAnnotation, value, engineNames())
		}
		return e, true, nil
	}
	for _, rule := range podRules() {
		if rule.fits(pod.Labels) {
			e, known := engineNamed(rule.engine)
			return e, known, nil
		}
	}
	if name, ok := pod.Annotations[containerAnnotation]; ok {
		return engine{}, false, fmt.Errorf("annotation %s is %q and nothing says which engine it runs: add %s, one of %s",
			containerAnnotation, name, engineAnnotation, engineNames())
	}
	return engine{}, false, nil
}
