package state

// Collectors whose errors others act upon. Both are there only in an agent that
// looks at Kubernetes.
const (
	// CollectorAPIServer is the last question to the API server whether it is
	// ready.
	CollectorAPIServer = "api-server"
	// CollectorPods is the list of this node's pods; it has an error until the
	// pods were received once.
	CollectorPods = "pods"
)

// Collectors of what statements tell one by one. Their errors are that some of it is
// being lost.
const (
	// CollectorEvents is the reading of the kernel's events; it is there while the
	// statement probe is.
	CollectorEvents = "events"
	// CollectorRecords is the writing of records; it is there where they go to a
	// file or standard output.
	CollectorRecords = "records"
)
