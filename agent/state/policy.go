package state

import "time"

// MaxTop is how many digests an instance may show for the time they take.
const MaxTop = 500

// StatementsPolicy says how the statements of an instance are watched. It can be
// compared with ==.
type StatementsPolicy struct {
	// Set says that a policy says it; without it the agent's defaults hold.
	Set bool `json:"set"`
	// DigestsOff keeps no statements apart.
	DigestsOff bool `json:"digestsOff,omitempty"`
	// Top is how many digests are shown for the time they take, 0 to MaxTop.
	Top int `json:"top"`
	// NoText keeps normalised texts out of everything.
	NoText bool `json:"noText,omitempty"`
	// Slow is the time from which a statement is counted and recorded as slow; 0
	// for none.
	Slow time.Duration `json:"slow"`
	// Audit is what is recorded whatever it takes.
	Audit Audit `json:"audit,omitempty"`
}

// Audit is a set of classes of statements and sessions.
type Audit uint8

// The classes. AuditAll is every statement, of these classes or not.
const (
	AuditSession Audit = 1 << iota
	AuditRead
	AuditWrite
	AuditDDL
	AuditAll
)

// AuditClasses lists the classes by the names people use.
func AuditClasses() map[string]Audit {
	return map[string]Audit{
		"session": AuditSession, "read": AuditRead, "write": AuditWrite, "ddl": AuditDDL, "all": AuditAll,
	}
}
