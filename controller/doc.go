// Package controller is the part of Mooring that runs once in a cluster. It reads
// what people ask for in the resources of mooring.dev, decides which instances
// are meant, in which order and when, and asks their nodes' agents. How something
// is done on a node is the agents' affair.
//
// # The loop
//
// There is one queue and one loop over keys: a policy, an experiment, a resize, a
// node, or the set of agents. Events of the API server and of the agents only
// make a turn come sooner; what a turn does follows from what it reads. A turn
// can be repeated, and can be taken over by another controller, at any point.
//
// Everything known is in the resources' status and with the agents; the
// controller keeps nothing of its own that it could not find out again. So that
// no fault is without a record, its uid is written to the status before the agent
// is asked, by a patch that fails when the object was read from a cache that lags
// behind. A fault that an agent reports and no experiment stands for is withdrawn.
//
// # What is in force
//
// An agent is sent the whole of what its pods are declared to be, under a digest,
// and answers with the digest of what it goes by. Applied is true of a policy when
// each of its pods is treated by its node's agent as the policy says now; what the
// agent refuses, or leaves out, keeps Applied false and stands in its message.
//
// # One that leads
//
// Controllers elect a leader by a Lease. Its creation time and its transitions
// make the fencing epoch, with which agents refuse a controller that was
// replaced. One that loses the lease stops acting, closes its connections and
// runs for it again; the process goes on. The times are short, so that a takeover
// is over before the leases of faults run out (see elect.go).
//
// # What is refused
//
// An experiment or a resize is checked as a whole before anything is done: by the
// policy, by the state of each target, by a dry run at each agent. One target
// that cannot be resolved exactly is enough to refuse all. Experiments must leave
// each database cluster its majority, see minority.go.
//
// # What ends an experiment
//
// A fault that ended and was read back leads to Recovered, Aborted or, where
// something was left behind or the start had failed, Failed. An agent that was
// restarted ends its faults, verifies that, and may then not know them any more;
// such a target counts as over, and RecoveryVerified is Unknown, because nobody
// can say when. While an agent cannot be asked, the experiment stays Recovering.
//
// # Resizes
//
// Targets are resized one at a time, replicas first. When one cannot be resized,
// it is taken back, and then the ones already done, last first, so that a resize
// is done as a whole or not at all. When a container restarted, or its pod was
// replaced, everything stops where it is, because what a database does after a
// restart is for a person to judge. A resize that is deleted stops after the step
// under way.
//
// # Failure
//
// Without the custom resources or without the API server the controller waits and
// says so at /readyz; /healthz stays well. Databases and agents do not depend on
// it: without a controller, policies stay in force and faults end by themselves.
package controller
