package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func options() Options {
	return Options{AgentName: "mooring-agent", ControllerName: "mooring-controller", Life: 48 * time.Hour, CALife: 240 * time.Hour, Now: time.Now()}
}

// side is what one side has read from its directory.
type side struct {
	cert  tls.Certificate
	trust *x509.CertPool
}

func load(t *testing.T, dir, name string) side {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name, certFile), filepath.Join(dir, name, keyFile))
	require.NoError(t, err)
	ca, err := os.ReadFile(filepath.Join(dir, name, caFile))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(ca))
	return side{cert, pool}
}

// handshake connects a client to a server as controller and agent do, and
// returns what either side says.
func handshake(t *testing.T, server, client side, name string) (serverErr, clientErr error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server.cert}, ClientCAs: server.trust, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13})
	require.NoError(t, err)
	defer l.Close()
	deadline := time.Now().Add(10 * time.Second)
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(deadline)
		_, err = conn.Write([]byte("x"))
		done <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(deadline))
	conn := tls.Client(c, &tls.Config{Certificates: []tls.Certificate{client.cert}, RootCAs: client.trust, ServerName: name, MinVersion: tls.VersionTLS13})
	if clientErr = conn.Handshake(); clientErr != nil {
		c.Close()
	}
	return <-done, clientErr
}

func meets(t *testing.T, agent, controller side) {
	t.Helper()
	serverErr, clientErr := handshake(t, agent, controller, "mooring-agent")
	require.NoError(t, serverErr)
	require.NoError(t, clientErr)
}

func TestAgentAndControllerAcceptOneAnother(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	require.NoError(t, Create(dir, options()))
	agent, controller := load(t, dir, "agent"), load(t, dir, "controller")
	meets(t, agent, controller)
	require.Equal(t, []string{"mooring-controller"}, controller.cert.Leaf.DNSNames)

	t.Run("each certificate is for its own side only", func(t *testing.T) {
		serverErr, clientErr := handshake(t, controller, controller, "mooring-controller")
		require.Error(t, clientErr, "the controller's certificate must not serve")
		require.Error(t, serverErr)
		serverErr, _ = handshake(t, agent, agent, "mooring-agent")
		require.Error(t, serverErr, "an agent's certificate must not ask")
	})
	t.Run("another authority is refused", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "other")
		require.NoError(t, Create(other, options()))
		serverErr, clientErr := handshake(t, load(t, other, "agent"), controller, "mooring-agent")
		require.Error(t, serverErr)
		require.Error(t, clientErr)
	})
	t.Run("keys are their owner's alone", func(t *testing.T) {
		for _, name := range []string{"ca/ca.key", "agent/tls.key", "controller/tls.key"} {
			fi, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), fi.Mode().Perm(), name)
		}
	})
	t.Run("nothing is left beside the files", func(t *testing.T) {
		found, err := filepath.Glob(filepath.Join(dir, "*", "*.new"))
		require.NoError(t, err)
		require.Empty(t, found)
	})
}

func TestCreateRefusesToOverwrite(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Create(dir, options()))
	before, err := os.ReadFile(filepath.Join(dir, "agent", certFile))
	require.NoError(t, err)
	require.ErrorIs(t, Create(dir, options()), ErrExists)
	after, err := os.ReadFile(filepath.Join(dir, "agent", certFile))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestRenewedCertificatesMeetTheOldOnes(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Create(dir, options()))
	agent, controller := load(t, dir, "agent"), load(t, dir, "controller")
	require.NoError(t, Renew(dir, options()))
	renewedAgent, renewedController := load(t, dir, "agent"), load(t, dir, "controller")
	require.NotEqual(t, agent.cert.Leaf.SerialNumber, renewedAgent.cert.Leaf.SerialNumber)
	require.NotEqual(t, agent.cert.Leaf.PublicKey, renewedAgent.cert.Leaf.PublicKey)
	meets(t, renewedAgent, controller)
	meets(t, agent, renewedController)
}

func TestAnAuthorityIsReplacedInThreeStepsWithoutAGap(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Create(dir, options()))
	// Each side reads its files some time after each step, so neighbours in time
	// must accept one another.
	type both struct{ agent, controller side }
	seen := []both{{load(t, dir, "agent"), load(t, dir, "controller")}}
	require.ErrorContains(t, func() error { require.NoError(t, NewCA(dir, options())); return DropOldCA(dir) }(), "renew the certificates first")
	seen = append(seen, both{load(t, dir, "agent"), load(t, dir, "controller")})
	require.NoError(t, Renew(dir, options()))
	seen = append(seen, both{load(t, dir, "agent"), load(t, dir, "controller")})
	require.NoError(t, DropOldCA(dir))
	seen = append(seen, both{load(t, dir, "agent"), load(t, dir, "controller")})
	for i := 1; i < len(seen); i++ {
		meets(t, seen[i].agent, seen[i].controller)
		meets(t, seen[i-1].agent, seen[i].controller)
		meets(t, seen[i].agent, seen[i-1].controller)
	}
	serverErr, clientErr := handshake(t, seen[3].agent, seen[0].controller, "mooring-agent")
	require.Error(t, serverErr, "the old authority is still trusted")
	require.Error(t, clientErr, "the old authority still vouches")
}

func TestRenewDropsAuthoritiesThatExpired(t *testing.T) {
	dir := t.TempDir()
	o := options()
	o.CALife = 72 * time.Hour
	require.NoError(t, Create(dir, o))
	o.Now, o.CALife = o.Now.Add(24*time.Hour), 240*time.Hour
	require.NoError(t, NewCA(dir, o))
	o.Now = o.Now.Add(72 * time.Hour)
	require.NoError(t, Renew(dir, o))
	_, trusted, err := readAuthority(dir)
	require.NoError(t, err)
	require.Len(t, trusted, 1)
}

func TestACertificateDoesNotOutliveItsAuthority(t *testing.T) {
	dir := t.TempDir()
	o := options()
	o.Life = 1000 * time.Hour
	require.NoError(t, Create(dir, o))
	ca, _, err := readAuthority(dir)
	require.NoError(t, err)
	require.Equal(t, ca.cert.NotAfter, load(t, dir, "agent").cert.Leaf.NotAfter)
	o.Now = o.Now.Add(241 * time.Hour)
	require.ErrorContains(t, Renew(dir, o), "expired")
}

func TestBadOptionsAndFilesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no name":    func(o *Options) { o.AgentName = "" },
		"one name":   func(o *Options) { o.AgentName = o.ControllerName },
		"no life":    func(o *Options) { o.Life = 0 },
		"no ca life": func(o *Options) { o.CALife = -time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			change(&o)
			dir := t.TempDir()
			require.Error(t, Create(dir, o))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
	for name, damage := range map[string]struct{ file, text, says string }{
		"a key that is none":       {"ca/ca.key", "garbage", "PKCS #8"},
		"a bundle that is empty":   {"ca/ca.crt", "", "no certificate"},
		"a key without its cert":   {"ca/ca.key", string(mustKey(t)), "no certificate"},
		"a bundle that holds keys": {"ca/ca.crt", string(mustKey(t)), "PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, Create(dir, options()))
			require.NoError(t, os.WriteFile(filepath.Join(dir, damage.file), []byte(damage.text), 0o600))
			require.ErrorContains(t, Renew(dir, options()), damage.says)
		})
	}
}

func mustKey(t *testing.T) []byte {
	t.Helper()
	p, err := newAuthority(time.Now(), time.Hour)
	require.NoError(t, err)
	b, err := encodeKey(p.key)
	require.NoError(t, err)
	return b
}

func TestSecretsAreWhatThePodsMount(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Create(dir, options()))
	secrets, err := Secrets(dir, "elsewhere")
	require.NoError(t, err)
	require.Len(t, secrets, 2)
	for i, side := range []string{"agent", "controller"} {
		s := secrets[i]
		require.Equal(t, "mooring-"+side+"-tls", s.Name)
		require.Equal(t, "elsewhere", s.Namespace)
		want, err := os.ReadFile(filepath.Join(dir, side, keyFile))
		require.NoError(t, err)
		require.Equal(t, want, s.Data["tls.key"])
		require.Len(t, s.Data, 3)
		require.NotContains(t, string(s.Data["ca.crt"]), "PRIVATE KEY")
	}
}

func FuzzDecodePair(f *testing.F) {
	p, err := newAuthority(time.Now(), time.Hour)
	require.NoError(f, err)
	key, err := encodeKey(p.key)
	require.NoError(f, err)
	f.Add(append(key, encodeCerts(p.cert)...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := decodePair(data); err == nil {
			require.NotNil(t, p.cert)
			require.NotNil(t, p.key)
		}
	})
}
