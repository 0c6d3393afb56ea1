package active

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mooring-dev/mooring/agent/state"
)

// greetPostgres asks whether the server speaks TLS, which takes no login and
// leaves no line in its log (ProcessStartupPacket in
// src/backend/postmaster/postmaster.c says nothing of an end after it).
func greetPostgres(conn net.Conn, _ Target) error {
	// SSLRequest: length 8, code 1234 5679.
	if _, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' && answer[0] != 'N' {
		return &Failure{Reason: ReasonProtocol, Detail: "it answered an SSLRequest with neither S nor N"}
	}
	return nil
}

// loginPostgres logs in to PostgreSQL.
func loginPostgres(conn net.Conn, t Target, l *Login) (session, error) {
	// The settings that come from the environment are all given here, so that
	// nothing of the agent's own leads to another server or account.
	cfg, err := pgconn.ParseConfig("host=127.0.0.1 port=5432 user=mooring dbname=postgres sslmode=disable passfile=/dev/null connect_timeout=0 target_session_attrs=any")
	if err != nil {
		return nil, &Failure{Reason: ReasonError, Detail: "the driver cannot be configured"}
	}
	cfg.User, cfg.Password = l.Username, borrowed(l.Password)
	if t.Spec.Database != "" {
		cfg.Database = t.Spec.Database
	}
	if t.Spec.TLS == state.TLSVerifyCA {
		if cfg.TLSConfig, err = tlsConfig(l.CA); err != nil {
			return nil, err
		}
	}
	cfg.Fallbacks = nil
	cfg.MaxProtocolMessageBodyLen = maxReply
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = once(conn)
	cfg.RuntimeParams = map[string]string{
		"application_name":  "mooring",
		"statement_timeout": strconv.FormatInt(serverTimeout.Milliseconds(), 10),
		"lock_timeout":      strconv.FormatInt(lockTimeout.Milliseconds(), 10),
	}
	pg, err := pgconn.ConnectConfig(context.Background(), cfg)
	cfg.Password = ""
	if err != nil {
		return nil, postgresFailure(err, false)
	}
	return &postgres{pg: pg, heartbeat: t.Spec.Write == state.WriteReplicated}, nil
}

// postgres is a session with PostgreSQL.
type postgres struct {
	pg *pgconn.PgConn
	// heartbeat says that replicas are to have a heartbeat row.
	heartbeat bool
}

// postgresRead is one row: whether it is a replica, whether it takes writes, how
// many bytes and seconds it is behind. What a replica does not have yet is what
// its WAL receiver was told of and what it has not replayed; without
// pg_read_all_stats the receiver's word is hidden and what it has received
// stands for it. With no receiver the bytes are unknown, and the seconds are the
// age of the last transaction replayed, which is never too little.
const postgresRead = `/* mooring */ SELECT r, current_setting('transaction_read_only') = 'on',
CASE WHEN r AND w.pid IS NOT NULL THEN greatest(0, pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), w.latest_end_lsn), pg_last_wal_replay_lsn()))::bigint END,
CASE WHEN NOT r THEN NULL
WHEN w.pid IS NOT NULL AND greatest(pg_last_wal_receive_lsn(), w.latest_end_lsn) <= pg_last_wal_replay_lsn() THEN 0
ELSE greatest(0, extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())) END
FROM (SELECT pg_is_in_recovery() AS r) s LEFT JOIN pg_stat_wal_receiver w ON true`

const postgresAge = `/* mooring */ SELECT extract(epoch FROM clock_timestamp() - max(ts)) FROM mooring.heartbeat`

const postgresWrite = `/* mooring */ INSERT INTO mooring.heartbeat AS h (id, ts, seq) VALUES ($1, clock_timestamp(), 1)
ON CONFLICT (id) DO UPDATE SET ts = excluded.ts, seq = h.seq + 1`

// Read implements session.
func (s *postgres) Read() (reading, error) {
	row, err := s.row(postgresRead, 4)
	if err != nil {
		return reading{}, err
	}
	readOnly := string(row[1]) == "t"
	r := reading{role: state.RolePrimary, readOnly: &readOnly, lagBytes: bytesOf(row[2]), lag: secondsOf(row[3])}
	if string(row[0]) != "t" {
		return r, nil
	}
	r.role = state.RoleReplica
	if s.heartbeat {
		age, err := s.row(postgresAge, 1)
		var f *Failure
		switch {
		case err == nil:
			r.heartbeatAge = secondsOf(age[0])
		case errors.As(err, &f) && f.Answered:
			r.partial, r.note = f, noteHeartbeat
		default:
			return r, err
		}
	}
	return r, nil
}

// noteHeartbeat says why there is no age of a heartbeat.
const noteHeartbeat = "the heartbeat table mooring.heartbeat cannot be read: make it and grant SELECT, as in deploy/probes"

// row runs a statement that returns one row of n columns.
func (s *postgres) row(sql string, n int) ([][]byte, error) {
	r := s.pg.ExecParams(context.Background(), sql, nil, nil, nil, nil).Read()
	if r.Err != nil {
		return nil, postgresFailure(r.Err, !s.pg.IsClosed())
	}
	if len(r.Rows) != 1 || len(r.Rows[0]) != n {
		return nil, &Failure{Reason: ReasonProtocol, Detail: fmt.Sprintf("%d rows where there is one of %d columns", len(r.Rows), n)}
	}
	return r.Rows[0], nil
}

// Write implements session.
func (s *postgres) Write(id string) error {
	r := s.pg.ExecParams(context.Background(), postgresWrite, [][]byte{[]byte(id)}, nil, nil, nil).Read()
	if r.Err != nil {
		return postgresFailure(r.Err, !s.pg.IsClosed())
	}
	return nil
}

// Close implements session.
func (s *postgres) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	// The connection is closed next in any case.
	_ = s.pg.Close(ctx)
}

// postgresFailure names a failure by its SQLSTATE
// (src/backend/utils/errcodes.txt).
func postgresFailure(err error, answered bool) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return tlsOrTransport(err)
	}
	f := &Failure{Reason: ReasonError, Detail: "SQLSTATE " + sqlstate(pg.Code), Answered: answered}
	if strings.HasPrefix(pg.Code, "28") { // invalid authorization specification
		f.Reason = ReasonAuth
	}
	switch pg.Code {
	case "42501":
		f.Reason = ReasonDenied
	case "42P01", "3F000", "42703", "42P10":
		f.Reason = ReasonSchema
	case "57P03", "57P01", "57P02":
		f.Reason = ReasonStarting
	case "53300":
		f.Reason = ReasonBusy
	case "57014", "55P03":
		f.Reason = ReasonTimeout
	case "25006":
		f.Reason = ReasonReadOnly
	}
	return f
}

// sqlstate returns a code only if it is one: the server could send anything.
func sqlstate(code string) string {
	if len(code) != 5 {
		return "?????"
	}
	for _, c := range []byte(code) {
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z') {
			return "?????"
		}
	}
	return code
}
