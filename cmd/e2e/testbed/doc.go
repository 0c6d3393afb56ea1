// Package testbed brings up a whole Kubernetes for the end-to-end test: etcd,
// API server, controller manager and scheduler as processes of this machine,
// and one node in a virtual machine with kubelet, containerd and real
// databases in pods.
//
// Up must be called in a network and mount namespace of the caller's own, which
// the whole process is in: everything listens and routes there, and nothing of
// the machine's own network is touched. The rest of the machine is not used
// either: programs and trees come from the cache folder of setup.sh, and files
// go below the folder given.
//
// # Concurrency
//
// A Cluster's methods are safe for concurrent use, save that a component must be
// stopped and started by one goroutine at a time.
//
// # Failure
//
// Nothing is tried twice. When a component ends without having been told to, the
// virtual machine hangs, or the node gives no sign of life for half a minute,
// the cluster's context is cancelled with that as the cause. Down ends every
// process by its id, and a process that this one started dies with it in any case.
//
// To add a program on the host, start it by (*Launcher).Start; to add a file to
// the node's disk, a line in nodePrograms; to add a database, an entry in
// databases and its manifest.
package testbed
