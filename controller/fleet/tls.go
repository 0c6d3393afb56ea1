package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// lookAgain is how long files that were looked at are taken to be unchanged, so
// that a thousand connections do not mean three thousand system calls.
const lookAgain = time.Second

// filesError says that the certificate files cannot be used.
type filesError struct{ err error }

func (e *filesError) Error() string { return e.err.Error() }
func (e *filesError) Unwrap() error { return e.err }

// files is a directory with tls.crt, tls.key and ca.crt, read again when one of
// them changes.
type files struct {
	dir        string
	serverName string
	log        *slog.Logger

	mu     sync.Mutex
	looked time.Time
	marks  [3]mark
	config *tls.Config
	err    error
}

// mark tells one version of a file from the next. The files of a mounted Secret
// are links into a directory that is exchanged as a whole, so that what Stat
// finds behind the link changes.
type mark struct {
	modified time.Time
	size     int64
}

// current returns the configuration to connect with now.
func (f *files) current() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.looked) < lookAgain {
		return f.config, f.err
	}
	f.looked = now
	marks, err := f.look()
	if err == nil && f.err == nil && f.config != nil && marks == f.marks {
		return f.config, nil
	}
	var config *tls.Config
	if err == nil {
		config, err = f.read()
	}
	if err == nil {
		f.config, f.err, f.marks = config, nil, marks
		return config, nil
	}
	if f.config == nil {
		f.err = &filesError{fmt.Errorf("read certificate: %w; the Secret mounted at %q must hold tls.crt, tls.key and ca.crt", err, f.dir)}
		return nil, f.err
	}
	if marks != f.marks {
		f.marks = marks
		f.log.Warn("new certificate not usable, the one before stays", "component", "fleet", "dir", f.dir, "err", err)
	}
	return f.config, nil
}

func (f *files) look() ([3]mark, error) {
	var marks [3]mark
	var errs []error
	for i, name := range [...]string{"tls.crt", "tls.key", "ca.crt"} {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err != nil {
			var path *fs.PathError
			if errors.As(err, &path) {
				err = fmt.Errorf("%s: %w", name, path.Err)
			}
			errs = append(errs, err)
			continue
		}
		marks[i] = mark{info.ModTime(), info.Size()}
	}
	return marks, errors.Join(errs...)
}

func (f *files) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(f.dir, "tls.crt"), filepath.Join(f.dir, "tls.key"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(f.dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca.crt holds no certificate")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      roots,
		ServerName:   f.serverName,
	}, nil
}

// handshaker is the credentials of one connection. It remembers why the
// handshake failed, which gRPC turns into text.
type handshaker struct {
	files *files
	fail  atomic.Pointer[error]
}

func (h *handshaker) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := h.files.current()
	var conn net.Conn
	var info credentials.AuthInfo
	if err == nil {
		conn, info, err = credentials.NewTLS(config).ClientHandshake(ctx, h.files.serverName, raw)
	}
	if err != nil {
		h.fail.Store(&err)
		return nil, nil, err
	}
	h.fail.Store(nil)
	return conn, info, nil
}

// failure is why the last handshake failed, nil where none did.
func (h *handshaker) failure() error {
	if err := h.fail.Load(); err != nil {
		return *err
	}
	return nil
}

func (h *handshaker) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the controller serves no agents")
}

func (h *handshaker) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns h itself: it has nothing that a connection could change for
// another, and the caller wants to see its failure.
func (h *handshaker) Clone() credentials.TransportCredentials { return h }

// OverrideServerName is not used: the name is part of what is trusted.
func (h *handshaker) OverrideServerName(string) error {
	return errors.New("the server name of agents cannot be overridden")
}
