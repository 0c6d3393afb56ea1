package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/node"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// validity is how long certificates are good. The guest's clock may be behind,
// so they begin in the past.
const validity = 30 * 24 * time.Hour

// Authority is a certificate authority with its key in memory.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate and its key, both PEM.
type Pair struct{ Certificate, Key []byte }

// Subject is whom a certificate is for.
type Subject struct {
	Name   string
	Groups []string
	// DNS and IPs are what a server's certificate is good for; with neither it
	// is a client's.
	DNS []string
	IPs []net.IP
}

// NewAuthority makes a self-signed authority.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", name, err)
	}
	return &Authority{certificate, key}, nil
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// Issue makes a key and signs a certificate for it. life is how long it is good;
// 0 means as long as the authority.
func (a *Authority) Issue(s Subject, life time.Duration) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make key of %s: %w", s.Name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Pair{}, fmt.Errorf("make serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.Name, Organization: s.Groups},
		NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: s.DNS, IPAddresses: s.IPs,
	}
	if life != 0 {
		template.NotAfter = time.Now().Add(life)
	}
	if len(s.DNS)+len(s.IPs) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate of %s: %w", s.Name, err)
	}
	secret, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), secret}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// Names of files in the folder of credentials.
const (
	adminConfig      = "admin.conf"
	managerConfig    = "controller-manager.conf"
	schedulerConfig  = "scheduler.conf"
	kubeletConfig    = "kubelet.conf"
	authorityFile    = "ca.crt"
	serviceKeyFile   = "service-account.key"
	serverPair       = "apiserver"
	serverClientPair = "apiserver-kubelet"
)

// writeCredentials makes every key of a cluster in dir and returns the authority.
func writeCredentials(dir string) (*Authority, error) {
	a, err := NewAuthority("mooring-e2e")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder for keys: %w", err)
	}
	out := map[string][]byte{authorityFile: a.PEM()}
	service, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make service account key: %w", err)
	}
	if out[serviceKeyFile], err = encodeKey(service); err != nil {
		return nil, err
	}
	for file, s := range map[string]Subject{
		serverPair: {
			Name: "kube-apiserver",
			DNS:  []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			IPs:  []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(serviceIP), net.ParseIP(node.Gateway)},
		},
		serverClientPair: {Name: "apiserver-kubelet", Groups: []string{"system:masters"}},
	} {
		pair, err := a.Issue(s, 0)
		if err != nil {
			return nil, err
		}
		out[file+".crt"], out[file+".key"] = pair.Certificate, pair.Key
	}
	for file, s := range map[string]Subject{
		adminConfig:     {Name: "admin", Groups: []string{"system:masters"}},
		managerConfig:   {Name: "system:kube-controller-manager"},
		schedulerConfig: {Name: "system:kube-scheduler"},
		kubeletConfig:   {Name: "system:node:" + node.Name, Groups: []string{"system:nodes"}},
	} {
		if out[file], err = a.kubeconfig(s); err != nil {
			return nil, err
		}
	}
	for name, b := range out {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, fmt.Errorf("write credentials: %w", err)
		}
	}
	return a, nil
}

// kubeconfig makes a file by which s talks to the API server, from the guest as
// from the host.
func (a *Authority) kubeconfig(s Subject) ([]byte, error) {
	pair, err := a.Issue(s, 0)
	if err != nil {
		return nil, err
	}
	c := api.NewConfig()
	c.Clusters["e2e"] = &api.Cluster{Server: "https://" + node.Gateway, CertificateAuthorityData: a.PEM()}
	c.AuthInfos[s.Name] = &api.AuthInfo{ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}
	c.Contexts["e2e"] = &api.Context{Cluster: "e2e", AuthInfo: s.Name}
	c.CurrentContext = "e2e"
	b, err := clientcmd.Write(*c)
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig of %s: %w", s.Name, err)
	}
	return b, nil
}
