package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// skew is how far back a certificate is valid, for clocks that are behind.
const skew = time.Hour

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes a certificate authority that signs itself.
func newAuthority(now time.Time, life time.Duration) (pair, error) {
	serial, err := newSerial()
	if err != nil {
		return pair{}, err
	}
	return sign(&x509.Certificate{
		SerialNumber: serial,
		// The serial in the name tells an old authority from a new one: clients
		// choose among trusted ones by name first.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("mooring-ca-%x", serial.Bytes()[:4]), Organization: []string{"Mooring"}},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(life),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
}

// issue signs a certificate for one DNS name and one purpose. It ends with the
// authority at the latest.
func (a pair) issue(name string, usage x509.ExtKeyUsage, now time.Time, life time.Duration) (pair, error) {
	serial, err := newSerial()
	if err != nil {
		return pair{}, err
	}
	end := now.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	return sign(&x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name, Organization: []string{"Mooring"}},
		DNSNames:              []string{name},
		NotBefore:             now.Add(-skew),
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
	}, &a)
}

// sign makes a key for the certificate and has by sign it, or itself when by is
// nil.
func sign(tmpl *x509.Certificate, by *pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("make key of %q: %w", tmpl.Subject.CommonName, err)
	}
	parent := by
	if parent == nil {
		parent = &pair{cert: tmpl, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.cert, key.Public(), parent.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign certificate of %q: %w", tmpl.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("read back certificate of %q: %w", tmpl.Subject.CommonName, err)
	}
	return pair{cert: cert, key: key}, nil
}

// newSerial makes up a serial number of 126 random bits that begins with a bit
// set, so that its first bytes are never zero.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.SetBit(n, 126, 1), nil
}

// encodeCerts writes certificates as PEM, in their order.
func encodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// encodeKey writes a key as PKCS #8 in PEM.
func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// decodeCerts reads every certificate of a PEM file. None is an error.
func decodeCerts(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %q where certificates belong", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("holds no certificate")
	}
	return out, nil
}

// decodePair reads a key and, after it, its certificate. Both are in one file so
// that they are replaced as one.
func decodePair(data []byte) (pair, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return pair{}, errors.New("holds no PKCS #8 private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return pair{}, fmt.Errorf("read key: %w", err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return pair{}, fmt.Errorf("holds a key of type %T, not one that was made here", key)
	}
	certs, err := decodeCerts(rest)
	if err != nil {
		return pair{}, err
	}
	if !signer.PublicKey.Equal(certs[0].PublicKey) {
		return pair{}, errors.New("holds a certificate of another key")
	}
	return pair{cert: certs[0], key: signer}, nil
}
