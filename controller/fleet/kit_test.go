package fleet

import (
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
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t: t, key: key, cert: cert, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// pair makes a certificate for a DNS name and its key.
func (a *authority) pair(name string, until time.Duration) (cert, key []byte) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(until),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &k.PublicKey, a.key)
	require.NoError(a.t, err)
	b, err := x509.MarshalECPrivateKey(k)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b})
}

// write puts a pair and the authority's certificate where a Fleet reads them.
func (a *authority) write(dir, name string, until time.Duration) {
	a.t.Helper()
	cert, key := a.pair(name, until)
	for file, b := range map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": a.pem} {
		require.NoError(a.t, os.WriteFile(filepath.Join(dir, file), b, 0o600))
	}
}

// fakeAgent serves what it is told to.
type fakeAgent struct {
	agentpb.UnimplementedAgentServer
	t       *testing.T
	address string
	server  *grpc.Server

	mu      sync.Mutex
	reply   *agentpb.StatusReply
	asked   []*agentpb.ApplyRequest
	watches int
	news    chan struct{}
	slow    chan struct{}
}

// newFakeAgent serves on address, any free one when that is empty, with a
// certificate of the authority's for that name.
func newFakeAgent(t *testing.T, address string, a *authority, name string, until time.Duration) *fakeAgent {
	t.Helper()
	f := &fakeAgent{t: t, news: make(chan struct{}, 16), reply: &agentpb.StatusReply{ProtocolVersion: 2, NodeName: "n1", Version: "test"}}
	cert, key := a.pair(name, until)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if address == "" {
		address = "127.0.0.1:0"
	}
	var l net.Listener
	require.Eventually(t, func() bool { l, err = net.Listen("tcp", address); return err == nil }, 10*time.Second, 10*time.Millisecond)
	f.address = l.Addr().String()
	f.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	})))
	agentpb.RegisterAgentServer(f.server, f)
	served := make(chan struct{})
	go func() { defer close(served); _ = f.server.Serve(l) }()
	t.Cleanup(func() { f.server.Stop(); <-served })
	return f
}

func (f *fakeAgent) set(change func(*agentpb.StatusReply)) {
	f.mu.Lock()
	change(f.reply)
	f.mu.Unlock()
	f.news <- struct{}{}
}

func (f *fakeAgent) Watch(r *agentpb.WatchRequest, s grpc.ServerStreamingServer[agentpb.StatusReply]) error {
	f.mu.Lock()
	f.watches++
	f.mu.Unlock()
	if !r.GetBrief() || r.GetInterval().AsDuration() != watchInterval {
		return status.Error(codes.InvalidArgument, "not what a controller asks for")
	}
	for {
		f.mu.Lock()
		reply := proto.Clone(f.reply).(*agentpb.StatusReply)
		f.mu.Unlock()
		if err := s.Send(reply); err != nil {
			return err
		}
		select {
		case <-s.Context().Done():
			return nil
		case <-f.news:
		}
	}
}

func (f *fakeAgent) Apply(ctx context.Context, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	slow := f.slow
	f.mu.Unlock()
	if slow != nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if r.GetUid() == "no" {
		return nil, status.Error(codes.FailedPrecondition, "it says no")
	}
	return &agentpb.ApplyReply{Instance: r.GetInstance()}, nil
}

// newFleet makes a fleet that leads under epoch 7, with the certificates in dir.
func newFleet(t *testing.T, dir string) (*Fleet, chan string) {
	t.Helper()
	changes := make(chan string, 256)
	f := New(Options{TLSDir: dir, ServerName: "mooring-agent", Log: slog.New(slog.DiscardHandler), OnChange: func(node string) {
		select {
		case changes <- node:
		default: // a test that does not read must not hold up the fleet
		}
	}})
	f.pause = 20 * time.Millisecond
	f.SetEpoch(7)
	t.Cleanup(f.Close)
	return f, changes
}

// becomes waits until the agent of node n1 is in that state, "" for connected.
func becomes(t *testing.T, f *Fleet, want Reason) {
	t.Helper()
	var last error
	require.Eventually(t, func() bool {
		_, last = f.Status("n1")
		return want == "" && last == nil || last != nil && want != "" && reasonOf(last, nil) == want
	}, 20*time.Second, 5*time.Millisecond, "%v", &last)
}
