package active

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/mooring-dev/mooring/agent/state"
)

// loginMySQL logs in to MySQL, MariaDB and Percona Server.
func loginMySQL(conn net.Conn, t Target, l *Login) (session, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = l.Username, borrowed(l.Password), t.Spec.Database
	cfg.Net, cfg.Addr, cfg.DialFunc = "tcp", "127.0.0.1:3306", once(conn)
	if c, ok := conn.(*guarded); ok && unixSocket(c.Conn) {
		// Over a unix socket caching_sha2_password needs no key of the server's.
		cfg.Net, cfg.Addr = "unix", "/"
	}
	cfg.Logger = &mysql.NopLogger{}
	cfg.MaxAllowedPacket = maxReply
	cfg.CheckConnLiveness, cfg.InterpolateParams = false, true
	if t.Spec.TLS == state.TLSVerifyCA {
		c, err := tlsConfig(l.CA)
		if err != nil {
			return nil, err
		}
		cfg.TLS = c
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, &Failure{Reason: ReasonError, Detail: "the driver cannot be configured"}
	}
	c, err := connector.Connect(context.Background())
	cfg.Passwd = ""
	if err != nil {
		return nil, mysqlFailure(err, false)
	}
	s := &mysqlSession{conn: c, heartbeat: t.Spec.Write == state.WriteReplicated}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return s, nil
}

// mysqlSession is a session with MySQL or MariaDB.
type mysqlSession struct {
	conn driver.Conn
	// heartbeat says that replicas are to have a heartbeat row.
	heartbeat bool
	// old says that the server knows SHOW SLAVE STATUS only.
	old bool
}

// prepare has the server give up by itself what takes too long. Servers without
// these variables have none of their own; the client's timeout holds.
func (s *mysqlSession) prepare() error {
	rows, err := s.query("/* mooring */ SELECT VERSION()")
	if err != nil {
		return err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return &Failure{Reason: ReasonProtocol, Detail: "no version"}
	}
	limit := fmt.Sprintf("max_execution_time=%d", serverTimeout.Milliseconds())
	if strings.Contains(rows[0]["VERSION()"], "MariaDB") {
		limit = fmt.Sprintf("max_statement_time=%g", serverTimeout.Seconds())
	}
	for _, set := range []string{limit, "lock_wait_timeout=1", "innodb_lock_wait_timeout=1"} {
		err := s.exec("/* mooring */ SET SESSION " + set)
		var f *Failure
		if err != nil && !(errors.As(err, &f) && f.Answered) {
			return err
		}
	}
	return nil
}

const (
	mysqlAge   = "/* mooring */ SELECT TIMESTAMPDIFF(MICROSECOND, MAX(ts), NOW(6)) / 1000000 AS age FROM mooring.heartbeat"
	mysqlWrite = "/* mooring */ INSERT INTO mooring.heartbeat (id, ts, seq) VALUES (?, NOW(6), 1) ON DUPLICATE KEY UPDATE ts = NOW(6), seq = seq + 1"
	noteStatus = "replication cannot be read: grant REPLICATION CLIENT, from MariaDB 10.5 on REPLICA MONITOR"
)

// Read implements session.
func (s *mysqlSession) Read() (reading, error) {
	rows, err := s.query("/* mooring */ SELECT @@GLOBAL.read_only AS ro")
	if err != nil {
		return reading{}, err
	}
	if len(rows) != 1 {
		return reading{}, &Failure{Reason: ReasonProtocol, Detail: "no value of read_only"}
	}
	// MariaDB 12 has words for what it refuses beside the numbers.
	ro := rows[0]["ro"]
	readOnly := ro != "0" && ro != "OFF"
	r := reading{role: state.RolePrimary, readOnly: &readOnly}
	channels, err := s.status()
	var f *Failure
	switch {
	case errors.As(err, &f) && f.Reason == ReasonDenied:
		r.partial, r.note = f, noteStatus
		if readOnly {
			r.role = state.RoleReplica
		}
	case err != nil:
		return reading{}, err
	case replicates(channels, readOnly):
		r.role = state.RoleReplica
		r.lag, r.lagBytes = behind(channels)
	case readOnly:
		r.role = ""
	}
	if r.role != state.RoleReplica || !s.heartbeat {
		return r, nil
	}
	age, err := s.query(mysqlAge)
	switch {
	case err == nil && len(age) == 1 && age[0]["age"] != "":
		r.heartbeatAge = secondsOf([]byte(age[0]["age"]))
	case errors.As(err, &f) && f.Answered:
		r.partial, r.note = f, noteHeartbeat
	case err != nil:
		return r, err
	}
	return r, nil
}

// status returns a row for each channel of replication. MySQL says REPLICA from
// 8.0.22 on and nothing else from 8.4 on; MariaDB from 10.5.1 on says both.
func (s *mysqlSession) status() ([]map[string]string, error) {
	if !s.old {
		rows, err := s.query("SHOW /* mooring */ REPLICA STATUS")
		var f *Failure
		if !errors.As(err, &f) || f.Detail != "error 1064" {
			return rows, err
		}
		s.old = true
	}
	return s.query("SHOW /* mooring */ SLAVE STATUS")
}

// column returns a column of SHOW REPLICA STATUS by its name now, or by the one
// it had before.
func column(row map[string]string, name string) string {
	if v, ok := row[name]; ok {
		return v
	}
	return row[strings.NewReplacer("Source", "Master", "Replica", "Slave").Replace(name)]
}

// replicates says whether a server with these channels is a replica. One that
// takes writes and whose channels are all stopped was promoted.
func replicates(channels []map[string]string, readOnly bool) bool {
	for _, c := range channels {
		if readOnly || column(c, "Replica_IO_Running") != "No" || column(c, "Replica_SQL_Running") != "No" {
			return true
		}
	}
	return false
}

// behind returns the greatest delay of the channels. The bytes are known only
// where the source's binary log that is read is the one that is applied.
func behind(channels []map[string]string) (lag *time.Duration, bytes *int64) {
	for _, c := range channels {
		if l := secondsOf([]byte(column(c, "Seconds_Behind_Source"))); l != nil && (lag == nil || *l > *lag) {
			lag = l
		}
		read, done := bytesOf([]byte(column(c, "Read_Source_Log_Pos"))), bytesOf([]byte(column(c, "Exec_Source_Log_Pos")))
		if read == nil || done == nil || column(c, "Source_Log_File") != column(c, "Relay_Source_Log_File") {
			continue
		}
		if b := max(0, *read-*done); bytes == nil || b > *bytes {
			bytes = &b
		}
	}
	return lag, bytes
}

// Write implements session.
func (s *mysqlSession) Write(id string) error {
	// The column holds 255 characters.
	return s.exec(mysqlWrite, id[:min(len(id), 255)])
}

// Close implements session.
func (s *mysqlSession) Close() {
	// The connection is closed next in any case.
	_ = s.conn.Close()
}

// query returns the rows of a statement by column. NULL is the empty text.
func (s *mysqlSession) query(sql string) ([]map[string]string, error) {
	q, ok := s.conn.(driver.QueryerContext)
	if !ok {
		return nil, &Failure{Reason: ReasonError, Detail: "the driver has no queries"}
	}
	rows, err := q.QueryContext(context.Background(), sql, nil)
	if err != nil {
		return nil, mysqlFailure(err, true)
	}
	var out []map[string]string
	names := rows.Columns()
	values := make([]driver.Value, len(names))
	for {
		if err = rows.Next(values); err != nil {
			break
		}
		row := make(map[string]string, len(names))
		for i, v := range values {
			row[names[i]] = textOf(v)
		}
		out = append(out, row)
	}
	if !errors.Is(err, io.EOF) {
		return nil, mysqlFailure(err, true)
	}
	if err := rows.Close(); err != nil {
		return nil, mysqlFailure(err, true)
	}
	return out, nil
}

func (s *mysqlSession) exec(sql string, args ...string) error {
	e, ok := s.conn.(driver.ExecerContext)
	if !ok {
		return &Failure{Reason: ReasonError, Detail: "the driver has no statements"}
	}
	var named []driver.NamedValue
	for i, a := range args {
		named = append(named, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	if _, err := e.ExecContext(context.Background(), sql, named); err != nil {
		return mysqlFailure(err, true)
	}
	return nil
}

func textOf(v driver.Value) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return string(v)
	}
	return fmt.Sprint(v)
}

// mysqlFailure names a failure by its error number (mysqld_error.h).
func mysqlFailure(err error, loggedIn bool) error {
	var my *mysql.MySQLError
	if !errors.As(err, &my) {
		switch {
		case errors.Is(err, mysql.ErrCleartextPassword), errors.Is(err, mysql.ErrNativePassword), errors.Is(err, mysql.ErrOldPassword), errors.Is(err, mysql.ErrUnknownPlugin):
			return &Failure{Reason: ReasonAuth, Detail: "the account wants a kind of authentication that is not allowed"}
		case errors.Is(err, mysql.ErrNoTLS):
			return &Failure{Reason: ReasonTLS, Detail: "the server has no TLS"}
		case errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, driver.ErrBadConn):
			return &Failure{Reason: ReasonGone, Detail: "the connection ended"}
		}
		return tlsOrTransport(err)
	}
	f := &Failure{Reason: ReasonError, Detail: fmt.Sprintf("error %d", my.Number), Answered: loggedIn}
	switch my.Number {
	case 1045, 1698, 1862, 1820, 3118, 4151, 1251:
		// Wrong password, no such account, expired, locked, another plug-in.
		f.Reason = ReasonAuth
	case 3955, 4150:
		// MySQL's FAILED_LOGIN_ATTEMPTS and MariaDB's max_password_errors were
		// reached, by whomever.
		f.Reason, f.Locked = ReasonAuth, true
	case 1044, 1142, 1143, 1227, 1370:
		f.Reason = ReasonDenied
	case 1146, 1049, 1054:
		f.Reason = ReasonSchema
	case 1053, 1077:
		f.Reason = ReasonStarting
	case 1040, 1203, 1226, 1129:
		f.Reason = ReasonBusy
	case 1205, 1969, 3024, 1317:
		f.Reason = ReasonTimeout
	case 1290, 1836, 1792:
		f.Reason = ReasonReadOnly
	}
	return f
}
