// Package numa reads the memory topology of a machine and decides on which
// NUMA node a database instance should live.
//
// It has two halves that meet in Topology. Read takes the topology from /sys
// (or from a fixture with the same layout); Place takes a topology, the
// instances already placed and one request, and answers with a Placement or
// with an error that says, node by node, what is missing.
//
// Place is pure: it reads no file and no clock, it computes in integers, and
// it walks slices in a fixed order, so the same question always has the same
// answer and whoever holds the inputs can check it. It places one workload and
// never moves another.
//
// The package writes nothing. Turning a Placement into control files is the
// business of whoever owns the cgroup.
//
// # Concurrency
//
// A Topology is immutable once read and may be shared. Read and Place keep no
// state; they may be called from any goroutine.
//
// # Failure
//
// Read fails as a whole: a topology that is half known would lead to a
// placement on the wrong node. Place never widens a request: what fits no
// single node is refused.
//
// # Adding a policy
//
// Write the policy in a file of its own as a type that implements Policy, add
// one line to the table in policy.go, and add scenario files under
// testdata/place. The property tests run over every policy of the table.
package numa
