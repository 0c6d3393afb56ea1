package bpf

import "slices"

// AuditClass is a set of kinds of statements to record one by one.
type AuditClass uint8

// The classes. Changes of privileges belong to AuditDDL.
const (
	AuditRead AuditClass = 1 << iota
	AuditWrite
	AuditDDL
	// AuditOther is what is in no other class: transactions, settings, pings.
	AuditOther

	AuditAll = AuditRead | AuditWrite | AuditDDL | AuditOther
)

// textBudget is how many texts and uncounted records a second one server may send
// the agent. What is over it counts as unsampled.
const textBudget = 2000

const ruleNoText = 1 // RULE_NO_TEXT

// auditClasses says which class an operation is in, by its name.
func auditClasses() map[AuditClass][]string {
	return map[AuditClass][]string{
		AuditRead:  {"select", "show", "fetch", "read"},
		AuditWrite: {"insert", "update", "delete", "replace", "call", "copy", "write"},
		AuditDDL:   {"ddl", "admin"},
		AuditOther: {"other", "txn", "set", "prepare", "ping", "auth", "tls"},
	}
}

// operations returns a mask with the bit of each operation of the classes in a.
func (a AuditClass) operations() uint32 {
	var mask uint32
	for class, names := range auditClasses() {
		for number, name := range operationNames() {
			if a&class != 0 && slices.Contains(names, name) {
				mask |= 1 << number
			}
		}
	}
	return mask
}

// rules is what the kernel is to know of what is wanted of a server.
func (s *served) rules() queryCoreServerRules {
	r := queryCoreServerRules{
		Slow:   uint64(max(0, s.Slow)),
		Slot:   s.slot,
		Audit:  s.Audit.operations(),
		Budget: textBudget,
	}
	if s.NoText {
		r.Flags |= ruleNoText
	}
	return r
}
