package kerneltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const postgresBin = "/usr/lib/postgresql/15/bin"

// Postgres starts a PostgreSQL server with its data in dir. It has the
// superuser postgres, who needs no password, and offers TLS.
func Postgres(t testing.TB, dir string, port uint16, cgroup string) *Database {
	t.Helper()
	owner := credential(t, "postgres")
	data := filepath.Join(dir, "postgres")
	ownedDir(t, data, owner)
	run(t, owner, filepath.Join(postgresBin, "initdb"), "--no-sync", "-A", "trust", "-U", "postgres", "--locale=C", "-D", data)
	certificate(t, data, owner)
	d := &Database{Port: port, Socket: filepath.Join(data, fmt.Sprintf(".s.PGSQL.%d", port)), Cgroup: cgroup}
	settings := []string{
		"listen_addresses=127.0.0.1", fmt.Sprintf("port=%d", port), "unix_socket_directories=" + data,
		"fsync=off", "autovacuum=off", "shared_buffers=32MB", "max_connections=40", "ssl=on",
		"shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=top", "pg_stat_statements.track_planning=on",
	}
	args := []string{"-D", data}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	start(t, d, owner, filepath.Join(postgresBin, "postgres"), args...)
	// It listens before it has recovered.
	require.Eventually(t, func() bool {
		c, err := dialPostgres("tcp4", d.Address())
		return err == nil && c.conn.Close() == nil
	}, startTimeout, 100*time.Millisecond)
	return d
}

// certificate writes a self-signed certificate where the server looks for it.
func certificate(t testing.TB, data string, owner *syscall.Credential) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"server.crt": {Type: "CERTIFICATE", Bytes: cert},
		"server.key": {Type: "PRIVATE KEY", Bytes: der},
	} {
		path := filepath.Join(data, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
		require.NoError(t, os.Chown(path, int(owner.Uid), int(owner.Gid)))
	}
}

// PostgresClient is a connection that sends exactly the messages it is told to.
type PostgresClient struct {
	t    testing.TB
	conn net.Conn
}

// DialPostgres opens a connection as postgres, network being "tcp4" or "unix".
// It is closed when the test ends.
func DialPostgres(t testing.TB, network, address string) *PostgresClient {
	t.Helper()
	c, err := dialPostgres(network, address)
	require.NoError(t, err)
	c.t = t
	t.Cleanup(func() { _ = c.conn.Close() }) // the server may have gone first
	return c
}

func dialPostgres(network, address string) (*PostgresClient, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	c := &PostgresClient{conn: conn}
	const parameters = "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	login := append(binary.BigEndian.AppendUint32(nil, uint32(4+len(parameters))), parameters...)
	if _, err := conn.Write(login); err != nil {
		return nil, err
	}
	// A server that refuses closes, so that is an error of reading.
	if _, err := c.reply(); err != nil {
		_ = conn.Close() // the first error is the one to tell
		return nil, err
	}
	return c, nil
}

// PostgresReply is what came up to ReadyForQuery.
type PostgresReply struct {
	// Types has the type of each message.
	Types []byte
	// Error says that one of them was an ErrorResponse.
	Error bool
}

// Message returns a message of the protocol.
func Message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))) + body
}

// Query sends a simple query and returns once it has been answered.
func (c *PostgresClient) Query(sql string) PostgresReply {
	c.t.Helper()
	return c.Send(Message('Q', sql+"\x00"))
}

// Send sends messages in one piece and returns the reply to the first Sync or
// Query among them.
func (c *PostgresClient) Send(messages string) PostgresReply {
	c.t.Helper()
	c.Start(messages)
	return c.Receive()
}

// Start sends messages in one piece and does not wait for a reply.
func (c *PostgresClient) Start(messages string) {
	c.t.Helper()
	_, err := io.WriteString(c.conn, messages)
	require.NoError(c.t, err)
}

// Receive returns the next reply.
func (c *PostgresClient) Receive() PostgresReply {
	c.t.Helper()
	reply, err := c.reply()
	require.NoError(c.t, err)
	return reply
}

func (c *PostgresClient) reply() (PostgresReply, error) {
	var reply PostgresReply
	var head [5]byte
	if err := c.conn.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return reply, err
	}
	for {
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			return reply, err
		}
		if _, err := io.CopyN(io.Discard, c.conn, int64(binary.BigEndian.Uint32(head[1:]))-4); err != nil {
			return reply, err
		}
		reply.Types = append(reply.Types, head[0])
		reply.Error = reply.Error || head[0] == 'E'
		if head[0] == 'Z' {
			return reply, nil
		}
	}
}

// Close closes the connection.
func (c *PostgresClient) Close() {
	c.t.Helper()
	require.NoError(c.t, c.conn.Close())
}
