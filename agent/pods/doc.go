// Package pods finds the database instances on this node: which servers run,
// in which cgroup, with which processes, ports, data directory and network.
//
// It looks and never touches: it reads /proc, the cgroup file systems, the
// node's network links and, with Kubernetes, the pods of this node. It writes
// nothing, signals nothing, and does not decide what may be done to an
// instance beyond saying when its cgroup is not its own (state.Cgroup.Shared).
//
// # Sources
//
// Standalone lists every process that runs the executable of a known engine
// and listens. Kubernetes lists the pods that are declared to be databases and
// whose server can be pinned to exactly one container. An agent that has both
// joins them with Merge. A pod that cannot be resolved exactly is reported in
// Result.Unresolved and not listed by Kubernetes.
//
// # Who declares a pod
//
// Whoever calls Kubernetes.Declare, by the pod's uid, namespace and name, all of
// which must be its own; else an annotation on the pod, else the labels of known
// charts and operators. A pod made again under the same name is another pod: it
// is found by what is written on it until it is declared anew.
//
// A declared pod needs no pod object. Its uid is in the path of its cgroups, for
// both drivers and below every root, and the name of a container is in the
// mounts the kubelet gave it (see containerInMounts). So a declared pod is found
// under the same id before the API server has answered, and a container that was
// made again before the API server tells of it. Where the mounts do not tell,
// Seen does, for the container that was seen last and for the only one in which
// a server of the engine listens; otherwise the pod is not listed.
//
// # Whose cgroup it is
//
// In a container a pod declares to be its database, every process is the
// instance's (probes, exec sessions, a supervisor such as an operator's
// manager), except that a second server makes the cgroup shared. Outside
// Kubernetes the instance is the server, its descendants, its ancestors in the
// same cgroup (an entrypoint, su, mysqld_safe) and, in a container, what was
// entered into it from outside; anything else makes the cgroup shared.
//
// # Cost
//
// A scan reads one link per process, the executable. Only processes of a known
// engine are looked at further: their stat line, and for those that are not
// forked from another of the same engine their descriptors. Descriptors are
// read again only when the listening sockets of that network namespace
// changed. Socket tables are read once per network namespace and only as far
// as the listening sockets, which the kernel prints first. Owners of unknown
// listeners are remembered; looking for new ones reads at most a fixed number
// of descriptors per scan and goes on where the last scan stopped, so that
// Result.UnknownListeners may lag some scans behind on a very large node.
//
// # Concurrency and failure
//
// Both sources may be used from several goroutines; a scan holds a lock.
// Processes vanish during a scan; what vanished is left out without an error.
// While the API server is away Kubernetes answers from what it knew last; until
// it has been reached once it lists declared pods only, and with none declared
// it answers ErrNotSynced. APIServer asks in the background whether the API
// server is there and what it serves; nothing here waits for it.
//
// # Engines
//
// An engine is known by its server's executable; those that share one with
// another engine are known by declaration alone. Which protocol an engine
// speaks, and whether it is certified (it runs in Mooring's own tests) or only
// protocol-compatible, is in the table of package state.
//
//	engine      executable                      support
//	postgresql  postgres, postmaster            certified
//	opengauss   gaussdb                         protocol-compatible, not certified
//	kingbase    kingbase                        protocol-compatible, not certified
//	tdsql-pg    postgres, postmaster, declared  protocol-compatible, not certified
//	mysql       mysqld                          protocol-compatible, not certified
//	mariadb     mariadbd; mysqld, declared      certified
//	percona     mysqld, declared                protocol-compatible, not certified
//	tidb        tidb-server                     protocol-compatible, not certified
//	oceanbase   observer                        protocol-compatible, not certified
//	goldendb    mysqld, declared                protocol-compatible, not certified
//	tdsql       mysqld, declared                protocol-compatible, not certified
//	redis       redis-server, redis-check-rdb   certified
//	valkey      valkey-server, valkey-check-rdb; Redis' names, declared
//	                                            certified
//	mongodb     mongod                          protocol-compatible, not certified
//	ferretdb    ferretdb                        protocol-compatible, not certified
//
// # Adding an engine
//
// Add it to the table in package state, to the enum of controller/v1alpha1, to
// engines in engines.go and to the table above, and add rows to podRules in
// labels.go for the labels its charts and operators put on pods. Tests hold
// these together. What declares pods learns of it from Engines.
package pods
