// Package fleet keeps the controller in touch with the agents: one connection
// to each, with the last status it sent, and one way to ask it for something.
//
// It knows nothing of Kubernetes resources. Who the agents are is told to it by
// Set; what is asked of them, and whether that is wise, is the caller's affair.
//
// # Leading
//
// Only a controller that leads has connections. SetEpoch with the fencing epoch
// of its lease opens them, SetEpoch(0) closes them all and returns when the last
// is closed. Every request carries the epoch, so that an agent which has heard a
// later controller refuses this one.
//
// # Trust
//
// Connections are TLS 1.3 with certificates on both sides. The agent's must be
// signed by ca.crt and carry the agents' DNS name; the files are looked at again
// when a connection is made, so that a rotation needs no restart. A pair that
// cannot be read keeps the one before in use. An agent must also give the name
// of the node that its pod runs on, or nothing is asked of it.
//
// # Failure
//
// Each agent fails alone: its goroutine connects again after a pause that grows
// to 15 seconds, with jitter. Until then Status and Apply return an *Error whose
// Reason is what a person has to look at. A status older than 15 seconds is not
// a status. A session is the life of one connection: a caller that decided by
// what it saw in one session can have its request refused in another, because
// the agent may have been replaced in between.
//
// # Concurrency and cost
//
// All methods may be called at any time from any goroutine. An agent costs one
// goroutine of ours, those of its gRPC connection with small buffers, and one
// status. OnChange is called from the agents' goroutines and must not block.
package fleet
