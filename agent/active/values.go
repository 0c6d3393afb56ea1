package active

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// borrowed returns b as a string without a copy, for drivers that take a
// password as one. Whoever overwrites b overwrites the string: it must not be
// used any more by then.
func borrowed(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// once returns a dial function that hands out conn a single time, so that a
// driver can neither connect elsewhere nor twice.
func once(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	given := false
	return func(context.Context, string, string) (net.Conn, error) {
		if given {
			return nil, net.ErrClosed
		}
		given = true
		return conn, nil
	}
}

// tlsConfig accepts servers whose certificate the CA has signed, whatever their
// name: the connection is to a process that is known already.
func tlsConfig(ca []byte) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, &Failure{Reason: ReasonSecret, Detail: "the key ca.crt holds no certificate"}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// The chain is verified below, without the name.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool()}
			if len(s.PeerCertificates) == 0 {
				return errNoCertificate
			}
			for _, c := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(c)
			}
			if _, err := s.PeerCertificates[0].Verify(o); err != nil {
				return errUntrusted
			}
			return nil
		},
	}, nil
}

var (
	errNoCertificate = errors.New("no certificate")
	errUntrusted     = errors.New("certificate not signed by the CA")
)

// tlsOrTransport names what went wrong below SQL.
func tlsOrTransport(err error) error {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.Is(err, errNoCertificate), errors.Is(err, errUntrusted):
		return &Failure{Reason: ReasonTLS, Detail: "the server's certificate is not signed by the CA of the secret"}
	case errors.As(err, &record), errors.As(err, &alert), strings.Contains(err.Error(), "refused TLS"), strings.Contains(err.Error(), "does not support TLS"):
		return &Failure{Reason: ReasonTLS, Detail: "no TLS connection can be made"}
	}
	return transportFailure(err)
}

// bytesOf reads a number of bytes; nil where there is none.
func bytesOf(text []byte) *int64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if text == nil || err != nil {
		return nil
	}
	return &n
}

// secondsOf reads seconds with decimals; nil where there are none. A clock that
// is ahead makes an age negative: that is no age.
func secondsOf(text []byte) *time.Duration {
	s, err := strconv.ParseFloat(string(text), 64)
	if text == nil || err != nil || math.IsNaN(s) || s > float64(math.MaxInt64/int64(time.Second)) {
		return nil
	}
	d := time.Duration(max(0, s) * float64(time.Second))
	return &d
}
