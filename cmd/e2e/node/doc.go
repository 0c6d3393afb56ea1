// Package node is the guest's side of the end-to-end test: it turns a bare
// virtual machine into a Kubernetes node, and lets the host look at the node
// from outside, past the API server.
//
// Run, in the guest, is the whole life of the node: network, mounts, containerd,
// kubelet, and a server for the host. Client is its caller: it runs commands,
// reads and writes files, asks for the clock and for what became of a service.
// The server runs any command as root for anybody who can reach its address,
// so it is for a throwaway machine on a network of its own and for nothing else.
//
// A Client is safe for concurrent use, and each of its calls ends by its context.
// In the guest, a service that ends without having been told to ends the node,
// with the end of its log: nothing is started twice by itself.
//
// To add a file of the node's configuration, put it in files and name it in
// configuration; to add a service, a line in (*guest).services.
package node
