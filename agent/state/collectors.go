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
