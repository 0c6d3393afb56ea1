package agent

import (
	"bytes"
	"time"

	"github.com/mooring-dev/mooring/agent/digest"
	"github.com/mooring-dev/mooring/agent/record"
	"github.com/mooring-dev/mooring/agent/sqltext"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

// dialect reads the texts of one engine for package digest.
type dialect sqltext.Dialect

func (d dialect) Key(text []byte) uint64 { return sqltext.Key(sqltext.Dialect(d), d.whole(text)) }

func (d dialect) AppendNormalized(dst, text []byte, limit int) []byte {
	return sqltext.AppendNormalized(dst, sqltext.Dialect(d), d.whole(text), limit)
}

func (d dialect) Sensitive(text []byte) bool {
	return sqltext.Sensitive(sqltext.Dialect(d), d.whole(text))
}

func (d dialect) Privileges(text []byte) bool {
	return sqltext.Privileges(sqltext.Dialect(d), d.whole(text))
}

// whole drops what is not of the text: PostgreSQL's ends in a zero byte, and in a
// Parse the types of its parameters follow.
func (d dialect) whole(text []byte) []byte {
	if sqltext.Dialect(d).Engine() != sqltext.PostgreSQL {
		return text
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return text
}

// dialectOf returns how an engine's texts are read. PostgreSQL's relatives have
// modes of MySQL, in which ".." is a string. Which one a database is in cannot be
// told from here, so no such text is kept of any: an identifier in quotes is lost
// with them.
func dialectOf(e state.Engine) dialect {
	switch e {
	case state.OpenGauss, state.KingbaseES, state.TDSQLPG:
		return dialect(sqltext.PostgreSQL | sqltext.QuotedStrings)
	}
	switch e.Wire() {
	case state.WireMySQL:
		return dialect(sqltext.MySQL)
	case state.WireRedis:
		return dialect(sqltext.Redis)
	case state.WireMongoDB:
		return dialect(sqltext.MongoDB)
	}
	return dialect(sqltext.PostgreSQL)
}

// kernelDigests is the statement timer as package digest wants it; MapText is the
// timer's own.
type kernelDigests struct{ *bpf.Statements }

// Digests implements digest.Kernel.
func (k kernelDigests) Digests(id string) ([]digest.Counts, error) {
	all, err := k.Statements.Digests(id)
	counts := make([]digest.Counts, 0, len(all))
	for _, c := range all {
		counts = append(counts, digestCounts(c))
	}
	return counts, err
}

// DropDigest implements digest.Kernel.
func (k kernelDigests) DropDigest(id string, number uint32) (digest.Counts, error) {
	c, err := k.Statements.DropDigest(id, number)
	return digestCounts(c), err
}

func digestCounts(c bpf.DigestCounts) digest.Counts {
	return digest.Counts{
		Number: c.Digest, Errors: c.Errors, Rows: c.Rows,
		Sum: time.Duration(c.SumNanoseconds), Native: c.Native,
	}
}

// events hands what the kernel tells to the digests and the records.
type events struct {
	digests *digest.Table
	records *record.Recorder
	heard   *heard
}

// Text implements bpf.EventHandler.
func (e events) Text(t *bpf.Text) {
	defer e.heard.caught()
	e.digests.Text(digest.Text{ID: t.ID, Hash: t.Hash, Text: t.Text})
}

// Record implements bpf.EventHandler.
func (e events) Record(r *bpf.Record) {
	defer e.heard.caught()
	known := e.digests.Count(digest.Statement{
		ID: r.ID, Hash: r.Hash, Number: r.Digest, Uncounted: r.Uncounted, Operation: r.Operation,
		Failed: r.Error, Duration: r.Duration, Rows: r.Rows,
	})
	if !r.Slow && !r.Failed && !r.Audited {
		return
	}
	e.records.Statement(&record.Statement{
		ID: r.ID, Slow: r.Slow, Failed: r.Failed, Audited: r.Audited, Operation: r.Operation, Code: r.Code,
		Ended: r.Ended, Duration: r.Duration, FirstByte: r.FirstByte, Blocked: r.Blocked,
		RequestBytes: r.RequestBytes, ResponseBytes: r.ResponseBytes, Rows: r.Rows,
		Connection: r.Connection, Client: r.Client, Digest: known.Digest, Text: known.Text, Privileges: known.Privileges,
	})
}

// Session implements bpf.EventHandler.
func (e events) Session(s *bpf.Session) {
	defer e.heard.caught()
	kind := record.KindLogin
	switch s.Event {
	case bpf.SessionRefused:
		kind = record.KindRefused
	case bpf.SessionLogout:
		kind = record.KindLogout
	}
	e.records.Session(&record.Session{
		ID: s.ID, Kind: kind, Connection: s.Connection, Client: s.Client,
		User: s.User, Database: s.Database, Code: s.Code, At: s.At,
	})
}

// watchDigests tells the digests and the records which instances there are.
func (a *Agent) watchDigests(instances []state.Instance) error {
	var servers []digest.Server
	origins := map[string]record.Origin{}
	for i := range instances {
		in := &instances[i]
		if protocolOf(in.Engine) == 0 {
			continue
		}
		p := a.statementsPolicy(in)
		wire := in.Engine.Wire()
		servers = append(servers, digest.Server{
			ID: in.ID, Lexer: dialectOf(in.Engine), Off: p.DigestsOff, Top: p.Top, NoText: p.NoText,
			NotSQL: wire != state.WirePostgreSQL && wire != state.WireMySQL,
		})
		origins[in.ID] = record.Origin{
			Namespace: in.Namespace, Pod: in.Pod, Engine: string(in.Engine), Sessions: p.Audit&state.AuditSession != 0,
		}
	}
	a.records.Watch(origins)
	return a.digests.Watch(servers)
}

// auditClass translates a policy's classes for package bpf. Sessions are told of
// in any case.
func auditClass(a state.Audit) bpf.AuditClass {
	var c bpf.AuditClass
	for from, to := range map[state.Audit]bpf.AuditClass{
		state.AuditRead: bpf.AuditRead, state.AuditWrite: bpf.AuditWrite, state.AuditDDL: bpf.AuditDDL, state.AuditAll: bpf.AuditAll,
	} {
		if a&from != 0 {
			c |= to
		}
	}
	return c
}
