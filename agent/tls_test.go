package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// validity is from and to, around now.
type validity struct{ from, to time.Duration }

func valid() validity   { return validity{-time.Hour, time.Hour} }
func expired() validity { return validity{-2 * time.Hour, -time.Hour} }

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t, cert, key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue makes a certificate for both ends of a connection.
func (a *authority) issue(name string, v validity) (cert, key []byte) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "cn-of-" + name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(v.from), NotAfter: time.Now().Add(v.to), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	require.NoError(a.t, err)
	pkcs, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs})
}

// put writes a set of files as a certificate manager does: each as a whole.
func put(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, b := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "."+name), b, 0o600))
		require.NoError(t, os.Rename(filepath.Join(dir, "."+name), filepath.Join(dir, name)))
	}
}

// logText is a log that can be read while it is written.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// edge is an agent that serves controllers.
type edge struct {
	t       *testing.T
	agent   *Agent
	dir     string
	address string
	log     *logText
	trusted *authority
	own     []byte
}

// newEdge serves on a port of its own, with the agent's certificate in place if
// there is to be one.
func newEdge(t *testing.T, certified bool) *edge {
	t.Helper()
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	e := &edge{t: t, agent: f.agent(t), dir: filepath.Join(f.root, "tls"), log: &logText{}, trusted: newAuthority(t, "mooring")}
	if certified {
		e.certify(e.trusted)
	}
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e.address = free.Addr().String()
	require.NoError(t, free.Close())
	e.agent.cfg.Listen, e.agent.cfg.TLSDir, e.agent.cfg.ControllerName = e.address, e.dir, "mooring-controller"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(e.agent, slog.New(slog.NewTextHandler(e.log, nil))).ServeTLS(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return e
}

// certify writes a new certificate of the agent, signed by who.
func (e *edge) certify(who *authority, authorities ...*authority) {
	e.t.Helper()
	cert, key := who.issue("mooring-agent", valid())
	ca := e.trusted.pem()
	for _, a := range authorities {
		ca = append(ca, a.pem()...)
	}
	e.own = cert
	put(e.t, e.dir, map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": ca})
}

// dial connects as name with a certificate of who; nil is none at all.
func (e *edge) dial(who *authority, name string, v validity) agentpb.AgentClient {
	e.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(e.trusted.cert)
	config := &tls.Config{RootCAs: roots, ServerName: "mooring-agent", MinVersion: tls.VersionTLS13}
	if who != nil {
		cert, key := who.issue(name, v)
		pair, err := tls.X509KeyPair(cert, key)
		require.NoError(e.t, err)
		// The client would leave out what the server's list of authorities
		// does not name.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return e.connect(credentials.NewTLS(config))
}

func (e *edge) connect(c credentials.TransportCredentials) agentpb.AgentClient {
	e.t.Helper()
	conn, err := grpc.NewClient(e.address, grpc.WithTransportCredentials(c))
	require.NoError(e.t, err)
	e.t.Cleanup(func() { require.NoError(e.t, conn.Close()) })
	return agentpb.NewAgentClient(conn)
}

// ask is one Status that does not wait for a connection that cannot be had.
func (e *edge) ask(c agentpb.AgentClient) error {
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	_, err := c.Status(ctx, &agentpb.StatusRequest{})
	return err
}

// logged waits for a line: the peer hears of its refusal first.
func (e *edge) logged(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(e.log.String(), text) }, 10*time.Second, 5*time.Millisecond, "no %q in\n%s", text, e.log)
}

// up waits until the controller is served.
func (e *edge) up() agentpb.AgentClient {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	defer cancel()
	c := e.dial(e.trusted, "mooring-controller", valid())
	_, err := c.Status(ctx, &agentpb.StatusRequest{}, grpc.WaitForReady(true))
	require.NoError(e.t, err, e.log)
	return c
}

func TestOnlyTheControllerIsServed(t *testing.T) {
	e := newEdge(t, true)
	c := e.up()
	t.Run("the controller is", func(t *testing.T) {
		r, err := c.Status(t.Context(), &agentpb.StatusRequest{})
		require.NoError(t, err)
		require.EqualValues(t, agentpb.Version, r.GetProtocolVersion())
		caps, err := c.Capabilities(t.Context(), &agentpb.CapabilitiesRequest{})
		require.NoError(t, err)
		require.NotEmpty(t, caps.GetCapabilities())
		w, err := c.Watch(t.Context(), &agentpb.WatchRequest{})
		require.NoError(t, err)
		_, err = w.Recv()
		require.NoError(t, err)
	})
	for _, c := range []struct {
		name   string
		client agentpb.AgentClient
		logged []string
	}{
		{"another name under the same authority is not", e.dial(e.trusted, "mooring-agent", valid()), []string{"cn-of-mooring-agent", `does not carry the DNS name`, "127.0.0.1"}},
		{"a wildcard is not", e.dial(e.trusted, "*", valid()), nil},
		{"the right name under another authority is not", e.dial(newAuthority(t, "stranger"), "mooring-controller", valid()), nil},
		{"an expired certificate is not", e.dial(e.trusted, "mooring-controller", expired()), nil},
		{"one without a certificate is not", e.dial(nil, "", valid()), []string{"client didn't provide a certificate"}},
		{"one without TLS is not", e.connect(insecure.NewCredentials()), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, codes.Unavailable, status.Code(e.ask(c.client)))
			for _, s := range c.logged {
				e.logged(t, s)
			}
		})
	}
	t.Run("and the log is not flooded", func(t *testing.T) {
		for range 5 {
			require.Error(t, e.ask(e.dial(e.trusted, "mooring-agent", valid())))
		}
		require.LessOrEqual(t, strings.Count(e.log.String(), "peer refused"), 3)
	})
}

func TestEachRefusalSaysWhoCame(t *testing.T) {
	for name, c := range map[string]struct {
		who  func(e *edge) *authority
		v    validity
		says string
	}{
		"another authority":   {func(*edge) *authority { return newAuthority(t, "stranger") }, valid(), "unknown authority"},
		"expired certificate": {func(e *edge) *authority { return e.trusted }, expired(), "has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, true)
			e.up()
			require.Error(t, e.ask(e.dial(c.who(e), "mooring-controller", c.v)))
			e.logged(t, c.says)
			e.logged(t, "cn-of-mooring-controller")
		})
	}
}

func TestCertificatesAreReplacedWithoutARestart(t *testing.T) {
	e := newEdge(t, true)
	e.up()
	next := newAuthority(t, "mooring-2")
	require.Eventually(t, func() bool { return e.ask(e.dial(next, "mooring-controller", valid())) != nil }, 10*time.Second, 10*time.Millisecond)
	e.certify(e.trusted, next)
	require.Eventually(t, func() bool { return e.ask(e.dial(next, "mooring-controller", valid())) == nil }, 10*time.Second, 50*time.Millisecond)
	e.up()

	t.Run("a pair that does not fit together leaves the one before", func(t *testing.T) {
		served := e.served()
		_, other := e.trusted.issue("mooring-agent", valid())
		put(t, e.dir, map[string][]byte{"tls.key": other})
		require.Eventually(t, func() bool {
			e.up()
			return strings.Contains(e.log.String(), "new certificate not usable")
		}, 10*time.Second, 200*time.Millisecond)
		require.Equal(t, served, e.served())
		require.Equal(t, 1, strings.Count(e.log.String(), "new certificate not usable"))
	})
	t.Run("an authority that is gone is believed no longer", func(t *testing.T) {
		e.certify(e.trusted)
		require.Eventually(t, func() bool { return e.ask(e.dial(next, "mooring-controller", valid())) != nil }, 10*time.Second, 50*time.Millisecond)
		e.up()
		require.Equal(t, e.own, e.served())
	})
}

// served is the certificate the agent shows.
func (e *edge) served() []byte {
	e.t.Helper()
	cert, key := e.trusted.issue("mooring-controller", valid())
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(e.t, err)
	roots := x509.NewCertPool()
	roots.AddCert(e.trusted.cert)
	c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "mooring-agent", Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}}).
		DialContext(e.t.Context(), "tcp", e.address)
	require.NoError(e.t, err)
	defer c.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw})
}

func TestAnAgentWithoutCertificatesWaitsForThem(t *testing.T) {
	e := newEdge(t, false)
	e.logged(t, "no controller can reach this agent until its certificate is there")
	require.Error(t, e.ask(e.dial(e.trusted, "mooring-controller", valid())))
	e.certify(e.trusted)
	e.up()
}

func TestATLSVersionBelowThirteenIsRefused(t *testing.T) {
	e := newEdge(t, true)
	e.up()
	_, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", e.address)
	require.ErrorContains(t, err, "protocol version")
}

func TestRequestsOverTLSAreFenced(t *testing.T) {
	e := newEdge(t, true)
	c := e.up()
	apply := func(r *agentpb.ApplyRequest) error {
		_, err := c.Apply(t.Context(), r)
		return err
	}
	withdraw := func(epoch uint64) error {
		return apply(&agentpb.ApplyRequest{Epoch: epoch, Uid: "ghost", Withdraw: true})
	}
	policy := func(epoch uint64) error {
		return apply(&agentpb.ApplyRequest{Epoch: epoch, Desired: &agentpb.ApplyRequest_Policy{Policy: &agentpb.Policy{Digest: "d1"}}})
	}
	require.Equal(t, codes.InvalidArgument, status.Code(policy(0)))
	require.ErrorContains(t, policy(0), "epoch")
	require.NoError(t, policy(7))
	require.NoError(t, policy(7))
	require.Equal(t, codes.FailedPrecondition, status.Code(policy(6)))
	require.ErrorContains(t, policy(6), "fenced: epoch 6 is older than 7, another controller took over")
	require.ErrorContains(t, withdraw(6), "fenced")
	require.ErrorContains(t, withdraw(8), "unknown fault")
	require.ErrorContains(t, policy(7), "fenced")
	e.agent.tick(t.Context())
	require.EqualValues(t, 8, e.agent.Snapshot().Epoch)
	// The node's own operator is not.
	_, err := NewServer(e.agent, slog.New(slog.DiscardHandler)).apply(t.Context(), &agentpb.ApplyRequest{Uid: "ghost", Withdraw: true})
	require.ErrorContains(t, err, "unknown fault")
}

func TestAPolicyIsReadStrictly(t *testing.T) {
	good := func() *agentpb.Declared {
		return &agentpb.Declared{
			Namespace: "shop", Pod: "orders-0", PodUid: "u1", Engine: "postgresql", Cluster: "orders", Role: "primary", Policy: "shop/orders", Numa: "single-node",
			Probe:      &agentpb.ActiveProbeSpec{Secret: "login", Read: durationpb.New(time.Second), Write: "off", Tls: "disable"},
			Statements: &agentpb.StatementsPolicy{Top: 9, Audit: []string{"ddl"}},
		}
	}
	got, unread := declaredOf(&agentpb.Policy{Instances: []*agentpb.Declared{good()}}, "v9")
	require.Empty(t, unread)
	require.Equal(t, "shop/orders", got[0].Policy)
	require.Equal(t, "login", got[0].Probe.Secret)
	require.Equal(t, state.AuditDDL, got[0].Statements.Audit)
	for name, c := range map[string]struct {
		spoil func(*agentpb.Declared)
		says  string
	}{
		"unknown engine":    {func(d *agentpb.Declared) { d.Engine = "oracle" }, `pod "shop/orders-0", declared by policy "shop/orders", is left out: engine "oracle" is unknown to agent v9, which knows [postgresql opengauss kingbase tdsql-pg mysql mariadb`},
		"unknown role":      {func(d *agentpb.Declared) { d.Role = "boss" }, `role "boss"`},
		"unknown placement": {func(d *agentpb.Declared) { d.Numa = "moon" }, `NUMA placement "moon"`},
		"no secret":         {func(d *agentpb.Declared) { d.Probe.Secret = "" }, "probe: no secret"},
		"a period of none":  {func(d *agentpb.Declared) { d.Probe.Read = nil }, "probe: "},
		"unknown login":     {func(d *agentpb.Declared) { d.Probe.Tls = "prefer" }, "probe: tls"},
		"a long database":   {func(d *agentpb.Declared) { d.Probe.Database = strings.Repeat("é", 32) }, "63 bytes"},
		"unknown audit":     {func(d *agentpb.Declared) { d.Statements.Audit = []string{"all", "more"} }, `statements: audit class "more"`},
		"a large top":       {func(d *agentpb.Declared) { d.Statements.Top = 501 }, "statements: top 501"},
		"two at once":       {func(d *agentpb.Declared) { d.Role, d.Numa = "boss", "moon" }, `knows ["primary" "replica" ""]; NUMA placement "moon"`},
	} {
		t.Run(name, func(t *testing.T) {
			d := good()
			c.spoil(d)
			got, unread := declaredOf(&agentpb.Policy{Instances: []*agentpb.Declared{good(), d}}, "v9")
			require.Len(t, got, 1)
			require.Len(t, unread, 1)
			require.Contains(t, unread[0], c.says)
		})
	}
}

func TestACertificateIsDescribedInAFewWords(t *testing.T) {
	long := strings.Repeat("x", 5000)
	c := &x509.Certificate{Subject: pkix.Name{CommonName: long}, DNSNames: slices.Repeat([]string{long}, 100)}
	require.Less(t, len(describe(c)), 1200)
	c = &x509.Certificate{Subject: pkix.Name{CommonName: "a\nb"}, DNSNames: []string{"db\n1"}}
	require.NotContains(t, describe(c), "\n")
}
