package state

import "time"

// Roles that an active probe finds, beside "" where the server does not tell.
const (
	RolePrimary = "primary"
	RoleReplica = "replica"
)

// What ProbeSpec.Write and ProbeSpec.TLS may be.
const (
	WriteOff        = "off"
	WriteReplicated = "replicated"
	TLSDisable      = "disable"
	TLSVerifyCA     = "verify-ca"
)

// The least periods of active probes.
const (
	MinReadPeriod  = time.Second
	MinWritePeriod = 10 * time.Second
)

// ProbeSpec is how the agent may log in to an instance and ask it how it is. The
// zero value means not at all. It holds no secret, only the name of one.
type ProbeSpec struct {
	// Secret names what holds username, password and, for TLSVerifyCA, ca.crt; in
	// the instance's own namespace.
	Secret string `json:"secret"`
	// Read is how often the server is asked for its role and replication delay.
	Read time.Duration `json:"read"`
	// Write is WriteOff or WriteReplicated: whether a primary's heartbeat row is
	// written, every WritePeriod.
	Write       string        `json:"write"`
	WritePeriod time.Duration `json:"writePeriod,omitempty"`
	// Database is the one to log in to; the engine's own when empty.
	Database string `json:"database,omitempty"`
	// TLS is TLSDisable or TLSVerifyCA.
	TLS string `json:"tls"`
}

// Active is what the opt-in active probes found of an instance. It is told to
// people and to Prometheus; nothing in the agent acts upon it.
type Active struct {
	// Up says whether the newest probe was answered; nil before the first one.
	// While a login is not possible it is what a connection without login finds.
	Up *bool `json:"up,omitempty"`
	// Role is RolePrimary, RoleReplica or empty; ReadOnly says that the server
	// takes no writes. Both are of the newest answer and forgotten while it is
	// down.
	Role     string `json:"role,omitempty"`
	ReadOnly *bool  `json:"readOnly,omitempty"`
	// Lag and LagBytes are how far a replica is behind by the engine's own
	// account; nil where that does not tell.
	Lag      *time.Duration `json:"lag,omitempty"`
	LagBytes *int64         `json:"lagBytes,omitempty"`
	// HeartbeatAge is the age of the newest heartbeat row that reached a replica,
	// by the replica's clock.
	HeartbeatAge *time.Duration `json:"heartbeatAge,omitempty"`
	// HeartbeatPeriod is how often one is to be written, the age that is no
	// delay; 0 without HeartbeatAge.
	HeartbeatPeriod time.Duration `json:"heartbeatPeriod,omitempty"`
	// Probes are the kinds of probes that have run, by name.
	Probes []ActiveProbe `json:"probes,omitempty"`
	// Stopped says why the agent does not log in any more; empty while it does.
	Stopped string `json:"stopped,omitempty"`
	// Note says what the server did not tell and what it takes; empty otherwise.
	Note string `json:"note,omitempty"`
}

// Kinds of active probes.
const (
	// ProbeConnect opens a connection, has the server say a first word without
	// login, and closes it.
	ProbeConnect = "connect"
	// ProbeRead asks for role and replication delay.
	ProbeRead = "read"
	// ProbeWrite writes the heartbeat row.
	ProbeWrite = "write"
)

// ActiveProbe is how one kind of probe fared.
type ActiveProbe struct {
	Kind string `json:"kind"`
	// Ended is when the newest one was over, Took how long it took.
	Ended time.Time     `json:"ended"`
	Took  time.Duration `json:"took"`
	// Err is what was wrong with the newest one, in words of the agent's own and
	// error codes, never the server's text; empty when nothing was.
	Err string `json:"error,omitempty"`
	// Failures counts by reason, a short fixed list; see package active.
	Failures map[string]uint64 `json:"failures,omitempty"`
}
