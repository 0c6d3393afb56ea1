package record

import (
	"net/netip"
	"time"
)

// Kinds of a record. Statement is one that is audited and none of the others.
const (
	KindSlow      = "slow"
	KindFailed    = "failed"
	KindRead      = "read"
	KindWrite     = "write"
	KindDDL       = "ddl"
	KindPrivilege = "privilege"
	KindStatement = "statement"
	KindLogin     = "login"
	KindRefused   = "refused"
	KindLogout    = "logout"
)

// Kinds lists the kinds.
func Kinds() []string {
	return []string{
		KindSlow, KindFailed, KindRead, KindWrite, KindDDL, KindPrivilege, KindStatement, KindLogin, KindRefused, KindLogout,
	}
}

// class is what kinds of records share a limit.
type class uint8

// The classes: what clients make plenty of, changes of what there is and of who
// may use it, and sessions.
const (
	plenty class = iota
	changes
	sessions
	classes
)

func classOf(kind string) class {
	switch kind {
	case KindDDL, KindPrivilege:
		return changes
	case KindLogin, KindRefused, KindLogout:
		return sessions
	}
	return plenty
}

// Record is one line.
type Record struct {
	Time      time.Time `json:"time"`
	Node      string    `json:"node"`
	Namespace string    `json:"namespace,omitempty"`
	Pod       string    `json:"pod,omitempty"`
	Instance  string    `json:"instance"`
	Engine    string    `json:"engine"`
	Kind      string    `json:"kind"`
	User      string    `json:"user,omitempty"`
	Database  string    `json:"database,omitempty"`
	Client    string    `json:"client,omitempty"`
	Digest    string    `json:"digest,omitempty"`
	Statement string    `json:"statement,omitempty"`
	Operation string    `json:"operation,omitempty"`
	Code      string    `json:"code,omitempty"`

	DurationSeconds  float64 `json:"durationSeconds,omitempty"`
	FirstByteSeconds float64 `json:"firstByteSeconds,omitempty"`
	BlockedSeconds   float64 `json:"blockedSeconds,omitempty"`

	Rows          uint64 `json:"rows,omitempty"`
	RequestBytes  uint64 `json:"requestBytes,omitempty"`
	ResponseBytes uint64 `json:"responseBytes,omitempty"`
}

// Statement is one finished statement as the probe tells of it.
type Statement struct {
	ID                           string
	Slow, Failed, Audited        bool
	Operation, Code              string
	Ended                        time.Time
	Duration, FirstByte, Blocked time.Duration
	RequestBytes, ResponseBytes  uint64
	Rows                         uint64
	Connection                   uint64
	Client                       netip.AddrPort
	// Digest, Text and Privileges (it changes who may do what) are what package
	// digest knows of it.
	Digest, Text string
	Privileges   bool
}

// Session is a login's end or a logout. Kind is KindLogin, KindRefused or
// KindLogout.
type Session struct {
	ID, Kind       string
	Connection     uint64
	Client         netip.AddrPort
	User, Database string
	Code           string
	At             time.Time
}

// Origin is what is said of an instance in its records.
type Origin struct {
	Namespace, Pod, Engine string
	// Sessions records logins and logouts.
	Sessions bool
}

// kindOf returns what a statement is recorded as, "" for not at all.
func kindOf(s *Statement) string {
	switch {
	case s.Failed:
		return KindFailed
	case s.Slow:
		return KindSlow
	case !s.Audited:
		return ""
	case s.Privileges:
		return KindPrivilege
	}
	switch s.Operation {
	case "select", "show", "read", "fetch":
		return KindRead
	case "insert", "update", "delete", "replace", "copy", "write", "call":
		return KindWrite
	case "ddl", "admin":
		return KindDDL
	}
	return KindStatement
}
