package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// lookAtFiles is how often at most the certificate files are looked at.
const lookAtFiles = time.Second

// certificates is what the agent proves itself with and checks controllers
// against: tls.crt, tls.key and ca.crt of one directory, as cert-manager lays
// them out. They are looked at again at a handshake, at most once a second, and
// a changed set takes effect with that handshake; several authorities may be in
// ca.crt, so that one can follow the other. A set that cannot be used leaves
// the one before in force and is reported once.
//
// The methods are safe for concurrent use.
type certificates struct {
	dir string
	// peer is the DNS name a controller's certificate must carry.
	peer string
	log  *slog.Logger

	mu     sync.Mutex
	looked time.Time
	// seen tells the files as they were last read, also in vain.
	seen   string
	config *tls.Config
}

func newCertificates(dir, peer string, log *slog.Logger) *certificates {
	return &certificates{dir: dir, peer: peer, log: log}
}

// current returns the configuration for one handshake, from the newest files
// that could be used. The error is that there never were any.
func (c *certificates) current() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.config != nil && now.Sub(c.looked) < lookAtFiles {
		return c.config, nil
	}
	c.looked = now
	seen, err := c.stamp()
	if err == nil && c.config != nil && seen == c.seen {
		return c.config, nil
	}
	fresh := seen != c.seen
	c.seen = seen
	var config *tls.Config
	if err == nil {
		config, err = c.load()
	}
	if err != nil {
		if c.config == nil {
			return nil, err
		}
		if fresh {
			c.log.Error("new certificate not usable, the one before stays in use", "component", "tls", "dir", c.dir, "err", err)
		}
		return c.config, nil
	}
	if c.config != nil {
		c.log.Info("certificate replaced", "component", "tls", "dir", c.dir, "expires", config.Certificates[0].Leaf.NotAfter)
	}
	c.config = config
	return c.config, nil
}

// stamp tells whether the files changed. The inode number is part of it: the
// kubelet swaps a directory of files that may well have equal sizes and times.
func (c *certificates) stamp() (string, error) {
	var out strings.Builder
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		fi, err := os.Stat(filepath.Join(c.dir, name))
		if err != nil {
			return err.Error(), fmt.Errorf("look at certificate: %w", err)
		}
		fmt.Fprint(&out, fi.Size(), " ", fi.ModTime().UnixNano(), " ")
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			fmt.Fprint(&out, st.Ino, ";")
		}
	}
	return out.String(), nil
}

// load reads the files. An expired certificate of our own is used all the same,
// for it is this node's clock that may be wrong; whoever connects decides.
func (c *certificates) load() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(c.dir, "tls.crt"), filepath.Join(c.dir, "tls.key"))
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if own.Leaf, err = x509.ParseCertificate(own.Certificate[0]); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	authorities, err := os.ReadFile(filepath.Join(c.dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("read authorities: %s holds no certificate", filepath.Join(c.dir, "ca.crt"))
	}
	if now := time.Now(); now.After(own.Leaf.NotAfter) || now.Before(own.Leaf.NotBefore) {
		c.log.Error("this agent's certificate is not valid now, controllers will refuse it: renew it or set the clock", "component", "tls",
			"dir", c.dir, "from", own.Leaf.NotBefore, "to", own.Leaf.NotAfter)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"h2"},
		// A session that is taken up again is not checked against the
		// authorities of today.
		SessionTicketsDisabled: true,
		VerifyConnection:       c.checkPeer,
	}, nil
}

// checkPeer admits the controller alone: that its certificate is signed by one
// of the authorities was checked before, but others have such certificates too,
// every agent for one. A wildcard is not a name.
func (c *certificates) checkPeer(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the peer shows no certificate")
	}
	leaf := s.PeerCertificates[0]
	if slices.Contains(leaf.DNSNames, c.peer) {
		return nil
	}
	return &wrongPeer{leaf: leaf, want: c.peer}
}

// wrongPeer is a certificate that is in order and somebody else's.
type wrongPeer struct {
	leaf *x509.Certificate
	want string
}

func (e *wrongPeer) Error() string {
	return fmt.Sprintf("the peer's certificate (%s) does not carry the DNS name %q", describe(e.leaf), e.want)
}

// describe names a certificate in a log line. All of it is outside data, and
// may be as long as whoever came likes.
func describe(c *x509.Certificate) string {
	names := c.DNSNames[:min(len(c.DNSNames), 8)]
	return fmt.Sprintf("subject %.200q, DNS names %.100q, valid to %s", c.Subject.String(), names, c.NotAfter.UTC().Format(time.RFC3339))
}

// await waits until there are usable certificates. Everything else the agent
// does goes on meanwhile: they may come late, or never.
func (c *certificates) await(done <-chan struct{}, every time.Duration) bool {
	t := time.NewTicker(every)
	defer t.Stop()
	var said string
	for {
		_, err := c.current()
		if err == nil {
			return true
		}
		if err.Error() != said {
			said = err.Error()
			c.log.Warn("no controller can reach this agent until its certificate is there", "component", "tls", "dir", c.dir, "missing", errors.Is(err, fs.ErrNotExist), "err", err)
		}
		select {
		case <-done:
			return false
		case <-t.C:
		}
	}
}
