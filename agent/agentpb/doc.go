// Package agentpb is the wire contract between an agent and its callers, and
// the history of its versions. agent.proto is the source; the two .pb.go files
// are generated from it and committed.
//
// It holds no behaviour. Leaf packages do not import it: package agent turns
// the snapshot into these messages at the edge.
package agentpb

//go:generate protoc --plugin=protoc-gen-go=../../bin/protoc-gen-go --plugin=protoc-gen-go-grpc=../../bin/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative agent.proto

// Version is the protocol's version. It rises when a caller could be misled by
// an older agent or the other way round; a field that old peers may ignore
// does not raise it.
//
//	1  2026-11-21  Apply (placement, size, fault), Status, Watch, Capabilities
//	2  2026-11-21  Apply takes a policy, an epoch and raw; a fault has a lease and
//	               says at its end what it left; Watch is paced. An older agent
//	               would let a leased fault run on to its deadline and would not
//	               know which controller is the newest.
const Version = 2

// Partial ends the digest of a policy of which the agent had to leave out
// declarations. The rest is in force, and StatusReply.unresolved says of each that
// is not what is wrong with it.
const Partial = "+partial"
