package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrExists is returned by Create when there are certificates already.
var ErrExists = errors.New("there are certificates already")

// Names of the files in each directory, as in a Secret of type
// kubernetes.io/tls with cert-manager's ca.crt.
const (
	certFile = "tls.crt"
	keyFile  = "tls.key"
	caFile   = "ca.crt"
	caKey    = "ca.key"
)

// Options say what to make. All are required.
type Options struct {
	// AgentName and ControllerName are the DNS names in the two certificates.
	AgentName, ControllerName string
	// Life is how long the certificates are valid, CALife how long a new
	// authority is.
	Life, CALife time.Duration
	// Now is the time by which they are made.
	Now time.Time
}

func (o Options) validate() error {
	switch {
	case o.AgentName == "" || o.ControllerName == "":
		return errors.New("a certificate needs a DNS name")
	case o.AgentName == o.ControllerName:
		return fmt.Errorf("agent and controller have one DNS name, %q: each must be told from the other", o.AgentName)
	case o.Life <= 0 || o.CALife <= 0:
		return errors.New("a certificate must be valid for more than no time")
	}
	return nil
}

// Create makes an authority and both certificates in dir, which it makes. It
// returns an error that wraps ErrExists, and changes nothing, when dir holds any.
func Create(dir string, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	for _, name := range []string{"ca", "agent", "controller"} {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil:
			return fmt.Errorf("%w: %s exists", ErrExists, filepath.Join(dir, name))
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look for certificates: %w", err)
		}
	}
	ca, err := newAuthority(o.Now, o.CALife)
	if err != nil {
		return err
	}
	return writeAll(dir, []*x509.Certificate{ca.cert}, ca, o)
}

// Renew makes both certificates anew, with new keys, under the authority of dir.
// Authorities that are trusted stay trusted, except those that have expired.
func Renew(dir string, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	ca, trusted, err := readAuthority(dir)
	if err != nil {
		return err
	}
	if o.Now.After(ca.cert.NotAfter) {
		return fmt.Errorf("the authority in %s expired on %s: make a new one first", dir, ca.cert.NotAfter.Format(time.DateOnly))
	}
	kept := []*x509.Certificate{ca.cert}
	for _, c := range trusted {
		if !c.Equal(ca.cert) && o.Now.Before(c.NotAfter) {
			kept = append(kept, c)
		}
	}
	return writeAll(dir, kept, ca, o)
}

// NewCA makes a new authority in dir, which is trusted from now on beside the
// old one. The two certificates stay: they are to be renewed when both sides
// have read the new ca.crt.
func NewCA(dir string, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	_, trusted, err := readAuthority(dir)
	if err != nil {
		return err
	}
	ca, err := newAuthority(o.Now, o.CALife)
	if err != nil {
		return err
	}
	return writeTrust(dir, append([]*x509.Certificate{ca.cert}, trusted...), &ca)
}

// DropOldCA leaves only the authority that signs now as trusted. It refuses
// when one of the certificates was signed by another.
func DropOldCA(dir string) error {
	ca, _, err := readAuthority(dir)
	if err != nil {
		return err
	}
	for _, side := range []string{"agent", "controller"} {
		c, err := readCerts(filepath.Join(dir, side, certFile))
		if err != nil {
			return err
		}
		if err := c[0].CheckSignatureFrom(ca.cert); err != nil {
			return fmt.Errorf("the %s's certificate was signed by an older authority: renew the certificates first", side)
		}
	}
	return writeTrust(dir, []*x509.Certificate{ca.cert}, nil)
}

// readAuthority reads the authority of dir that signs, and all that are trusted.
func readAuthority(dir string) (pair, []*x509.Certificate, error) {
	trusted, err := readCerts(filepath.Join(dir, "ca", caFile))
	if err != nil {
		return pair{}, nil, err
	}
	path := filepath.Join(dir, "ca", caKey)
	data, err := os.ReadFile(path)
	if err != nil {
		return pair{}, nil, fmt.Errorf("read the authority's key: %w", err)
	}
	ca, err := decodePair(data)
	if err != nil {
		return pair{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	return ca, trusted, nil
}

func readCerts(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	certs, err := decodeCerts(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

// writeAll writes the authority and both certificates anew.
func writeAll(dir string, trusted []*x509.Certificate, ca pair, o Options) error {
	agent, err := ca.issue(o.AgentName, x509.ExtKeyUsageServerAuth, o.Now, o.Life)
	if err != nil {
		return err
	}
	controller, err := ca.issue(o.ControllerName, x509.ExtKeyUsageClientAuth, o.Now, o.Life)
	if err != nil {
		return err
	}
	if err := writeTrust(dir, trusted, &ca); err != nil {
		return err
	}
	for side, p := range map[string]pair{"agent": agent, "controller": controller} {
		key, err := encodeKey(p.key)
		if err != nil {
			return err
		}
		if err := replace(filepath.Join(dir, side, keyFile), key, 0o600); err != nil {
			return err
		}
		if err := replace(filepath.Join(dir, side, certFile), encodeCerts(p.cert), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeTrust writes ca.crt everywhere, and the authority's key with its
// certificate where one is given. The key comes last: until it is there, the old
// authority signs.
func writeTrust(dir string, trusted []*x509.Certificate, ca *pair) error {
	bundle := encodeCerts(trusted...)
	for _, where := range []string{"agent", "controller", "ca"} {
		if err := replace(filepath.Join(dir, where, caFile), bundle, 0o644); err != nil {
			return err
		}
	}
	if ca == nil {
		return nil
	}
	key, err := encodeKey(ca.key)
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, "ca", caKey), append(key, encodeCerts(ca.cert)...), 0o600)
}

// replace writes a file beside its name and renames it, so that nobody reads
// half of it. It makes the directory, for its owner only.
func replace(path string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what an interrupted run left: %w", err)
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("put file in place: %w", err)
	}
	return nil
}
