package testbed

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"
)

func parsePair(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	require.NoError(t, err, "key and certificate belong together")
	return pair.Leaf
}

func TestAuthorityIssues(t *testing.T) {
	a, err := NewAuthority("test")
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(a.PEM()))
	verify := func(c *x509.Certificate, usage x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	t.Run("a server's certificate for names and addresses", func(t *testing.T) {
		p, err := a.Issue(Subject{Name: "s", DNS: []string{"kubernetes"}, IPs: []net.IP{net.ParseIP("10.96.0.1")}}, 0)
		require.NoError(t, err)
		c := parsePair(t, p)
		require.NoError(t, verify(c, x509.ExtKeyUsageServerAuth))
		require.Error(t, verify(c, x509.ExtKeyUsageClientAuth))
		require.NoError(t, c.VerifyHostname("10.96.0.1"))
		require.NoError(t, c.VerifyHostname("kubernetes"))
		require.Error(t, c.VerifyHostname("10.96.0.2"))
	})
	t.Run("a client's certificate with its groups", func(t *testing.T) {
		p, err := a.Issue(Subject{Name: "system:node:n", Groups: []string{"system:nodes"}}, 0)
		require.NoError(t, err)
		c := parsePair(t, p)
		require.NoError(t, verify(c, x509.ExtKeyUsageClientAuth))
		require.Error(t, verify(c, x509.ExtKeyUsageServerAuth))
		require.Equal(t, "system:node:n", c.Subject.CommonName)
		require.Equal(t, []string{"system:nodes"}, c.Subject.Organization)
	})
	t.Run("a certificate that is good for a while only", func(t *testing.T) {
		p, err := a.Issue(Subject{Name: "c"}, time.Minute)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(time.Minute), parsePair(t, p).NotAfter, 5*time.Second)
	})
	t.Run("no two with one serial number", func(t *testing.T) {
		p, err := a.Issue(Subject{Name: "c"}, 0)
		require.NoError(t, err)
		q, err := a.Issue(Subject{Name: "c"}, 0)
		require.NoError(t, err)
		require.NotEqual(t, parsePair(t, p).SerialNumber, parsePair(t, q).SerialNumber)
	})
}

func TestWriteCredentials(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	_, err := writeCredentials(dir)
	require.NoError(t, err)
	t.Run("says who each component is", func(t *testing.T) {
		for file, name := range map[string]string{
			adminConfig: "admin", managerConfig: "system:kube-controller-manager",
			schedulerConfig: "system:kube-scheduler", kubeletConfig: "system:node:node1",
		} {
			c, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, file))
			require.NoError(t, err)
			require.Equal(t, "https://172.31.0.1", c.Host)
			require.Equal(t, name, parsePair(t, Pair{c.CertData, c.KeyData}).Subject.CommonName)
		}
	})
	t.Run("keeps every file from others", func(t *testing.T) {
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, files, 10)
		for _, f := range files {
			info, err := f.Info()
			require.NoError(t, err)
			require.EqualValues(t, 0o600, info.Mode(), f.Name())
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			require.NoError(t, err)
			if filepath.Ext(f.Name()) != ".conf" {
				block, _ := pem.Decode(b)
				require.NotNil(t, block, f.Name())
			}
		}
	})
}
