package node

import "time"

// Address is where the guest's server listens: the node's own address.
const Address = "172.31.0.11:7411"

// Addresses and names of the node. The host has 172.31.0.1 on the same link.
const (
	Name    = "node1"
	IP      = "172.31.0.11"
	Gateway = "172.31.0.1"
	PodCIDR = "10.244.1.0/24"
)

// StateDir is the disk that holds the node's programs and images.
const StateDir = "/state"

// Result is how a command ended.
type Result struct {
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// Exit is the status as a shell would give it.
	Exit int `json:"exit"`
}

// Clock is the node's time at one moment.
type Clock struct {
	BootID string `json:"bootID"`
	// Time is the wall clock in the guest.
	Time time.Time `json:"time"`
	// Boottime is CLOCK_BOOTTIME, which the deadlines of faults are in.
	Boottime time.Duration `json:"boottime"`
}

// Offset is what was found out about the node's clock.
type Offset struct {
	Clock
	// Ahead is the guest's wall clock minus the host's.
	Ahead time.Duration
	// Error bounds how wrong Ahead can be: half of the shortest round trip.
	Error time.Duration
}

// Status is how far the node is.
type Status struct {
	// Services says of each whether it "runs", is "stopped" or has "ended".
	Services map[string]string `json:"services"`
	// Steps are the times of the node's own start, in seconds since its boot.
	Steps []Step `json:"steps"`
}

// Up says whether the last step of the node's start is done.
func (s Status) Up() bool {
	return len(s.Steps) > 0 && s.Steps[len(s.Steps)-1].Name == Kubelet
}

// Step is one step of the node's start.
type Step struct {
	Name string `json:"name"`
	// Uptime is when it was done.
	Uptime time.Duration `json:"uptime"`
}

// command is the body of a request to run something.
type command struct {
	Args []string `json:"args"`
	// Limit kills the command and all its children.
	Limit time.Duration `json:"limit"`
}
