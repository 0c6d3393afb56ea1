package active

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// greetRedis sends a PING, which needs no login to be refused. A server that
// speaks TLS alone is greeted by the handshake.
func greetRedis(conn net.Conn, t Target) error {
	if t.Spec.TLS == state.TLSVerifyCA {
		// Whose certificate it is, the login looks at.
		return handshake(tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}))
	}
	_, err := newRESP(conn).do("PING")
	var f *Failure
	if errors.As(err, &f) && f.Reason == ReasonAuth {
		return nil
	}
	return err
}

func handshake(c *tls.Conn) error {
	if err := c.Handshake(); err != nil {
		return tlsOrTransport(err)
	}
	return nil
}

// loginRedis logs in to Redis and Valkey. An empty username is the way of
// servers before 6, which have passwords only.
func loginRedis(conn net.Conn, t Target, l *Login) (session, error) {
	if t.Spec.TLS == state.TLSVerifyCA {
		cfg, err := tlsConfig(l.CA)
		if err != nil {
			return nil, err
		}
		c := tls.Client(conn, cfg)
		if err := handshake(c); err != nil {
			return nil, err
		}
		conn = c
	}
	s := &redis{r: newRESP(conn)}
	args := []string{"AUTH", l.Username, borrowed(l.Password)}
	if l.Username == "" {
		args = []string{"AUTH", borrowed(l.Password)}
	}
	if _, err := s.r.do(args...); err != nil {
		var f *Failure
		if errors.As(err, &f) && f.Answered && f.Reason == ReasonError {
			// "ERR AUTH ... called without any password configured" among others.
			f.Reason = ReasonAuth
		}
		return nil, err
	}
	return s, nil
}

// redis is a session with Redis. It has no heartbeat: that would be a key among
// the users' own.
type redis struct{ r *resp }

// Read implements session. ROLE tells the role and, on a primary, how far its
// replicas are; INFO replication the rest.
func (s *redis) Read() (reading, error) {
	role, err := s.r.do("ROLE")
	if err != nil {
		return reading{}, err
	}
	r := reading{}
	if err := r.fromROLE(role); err != nil {
		return reading{}, err
	}
	if r.role == state.RolePrimary {
		readOnly := false
		r.readOnly = &readOnly
		return r, nil
	}
	info, err := s.r.do("INFO", "replication")
	var f *Failure
	switch {
	case errors.As(err, &f) && f.Answered:
		r.partial, r.note = f, "replication cannot be read: grant +info"
		return r, nil
	case err != nil:
		return reading{}, err
	}
	r.fromINFO(info.text)
	return r, nil
}

// fromROLE reads ["master", offset, [[address, port, offset], ...]] or ["slave",
// address, port, state, offset].
func (r *reading) fromROLE(v value) error {
	if len(v.list) == 0 {
		return errProtocol
	}
	switch string(v.list[0].text) {
	case "master":
		r.role = state.RolePrimary
	case "slave":
		r.role = state.RoleReplica
		return nil
	case "sentinel":
		return nil
	default:
		return errProtocol
	}
	if len(v.list) < 3 {
		return nil
	}
	own := bytesOf(v.list[1].text)
	for _, replica := range v.list[2].list {
		if len(replica.list) < 3 || own == nil {
			continue
		}
		if has := bytesOf(replica.list[2].text); has != nil {
			if b := max(0, *own-*has); r.lagBytes == nil || b > *r.lagBytes {
				r.lagBytes = &b
			}
		}
	}
	return nil
}

// fromINFO reads a replica's own account: what it has read of the primary's
// stream and applied, and for how long it has had no link. While it has one,
// Redis does not tell how old what it applies is.
func (r *reading) fromINFO(text []byte) {
	all := map[string]string{}
	for line := range bytes.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":"); ok {
			all[k] = v
		}
	}
	if ro, ok := all["slave_read_only"]; ok {
		readOnly := ro == "1"
		r.readOnly = &readOnly
	}
	read, err1 := strconv.ParseInt(all["slave_read_repl_offset"], 10, 64)
	done, err2 := strconv.ParseInt(all["slave_repl_offset"], 10, 64)
	if err1 == nil && err2 == nil && all["master_link_status"] == "up" {
		b := max(0, read-done)
		r.lagBytes = &b
	}
	if down, err := strconv.ParseInt(all["master_link_down_since_seconds"], 10, 32); err == nil && down >= 0 {
		d := time.Duration(down) * time.Second
		r.lag = &d
	}
}

// Write implements session.
func (s *redis) Write(string) error {
	return &Failure{Reason: ReasonError, Detail: "Redis has no heartbeat", Answered: true}
}

// Close implements session. Redis minds nothing about connections that end.
func (s *redis) Close() {}

// redisFailure names an error by its first word.
func redisFailure(line []byte) error {
	word, _, _ := strings.Cut(string(line), " ")
	f := &Failure{Reason: ReasonError, Detail: "error", Answered: true}
	switch word {
	case "WRONGPASS", "NOAUTH":
		f.Reason, f.Detail = ReasonAuth, word
	case "NOPERM":
		f.Reason, f.Detail = ReasonDenied, word
	case "LOADING", "MASTERDOWN":
		f.Reason, f.Detail = ReasonStarting, word
	case "BUSY":
		f.Reason, f.Detail = ReasonTimeout, word
	case "READONLY":
		f.Reason, f.Detail = ReasonReadOnly, word
	case "ERR":
		if strings.HasPrefix(string(line), "ERR max number of clients") {
			f.Reason = ReasonBusy
		}
		if strings.HasPrefix(string(line), "ERR invalid password") {
			f.Reason = ReasonAuth
		}
		f.Detail = word
	}
	return f
}
