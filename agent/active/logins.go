package active

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

// Keys of a secret.
const (
	KeyUsername = "username"
	KeyPassword = "password"
	KeyCA       = "ca.crt"
)

// LoginOf takes a login out of a secret's keys, which it overwrites: what the
// login does not hold is not needed any more.
func LoginOf(data map[string][]byte, tls string) (*Login, error) {
	l := &Login{
		Username: string(data[KeyUsername]),
		Password: slices.Clone(data[KeyPassword]),
		CA:       slices.Clone(data[KeyCA]),
	}
	_, hasUser := data[KeyUsername]
	for _, v := range data {
		clear(v)
	}
	switch {
	case !hasUser:
		return nil, fmt.Errorf("the secret has no key %q", KeyUsername)
	case len(l.Password) == 0:
		return nil, fmt.Errorf("the secret has no key %q or it is empty", KeyPassword)
	case tls == state.TLSVerifyCA && len(l.CA) == 0:
		l.wipe()
		return nil, fmt.Errorf("the secret has no key %q, which TLS needs", KeyCA)
	}
	return l, nil
}

// maxFile bounds a file of logins.
const maxFile = 1 << 20

// File holds the logins of instances outside Kubernetes: a JSON object with an
// entry for each instance id, {"username", "password", "ca", "read", "write",
// "writePeriod", "database", "tls"}, of which all but username and password may
// be left out. It is read anew whenever it is needed.
type File struct{ Path string }

// entry is one instance's in a File.
type entry struct {
	Username    string `json:"username"`
	Password    hidden `json:"password"`
	CA          string `json:"ca"`
	Read        string `json:"read"`
	Write       string `json:"write"`
	WritePeriod string `json:"writePeriod"`
	Database    string `json:"database"`
	TLS         string `json:"tls"`
}

// wipe overwrites the password.
func (e *entry) wipe() { clear(e.Password) }

// hidden is a text of JSON as bytes that can be overwritten.
type hidden []byte

// UnmarshalJSON implements json.Unmarshaler. A text without escapes is copied
// once, into h; what others need on the way is the garbage collector's.
func (h *hidden) UnmarshalJSON(b []byte) error {
	if len(b) >= 2 && b[0] == '"' && !bytes.ContainsRune(b, '\\') {
		*h = slices.Clone(b[1 : len(b)-1])
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	*h = []byte(text)
	return nil
}

// Specs returns how each instance of the file is to be probed.
func (f File) Specs() (map[string]state.ProbeSpec, error) {
	all, err := f.read()
	if err != nil {
		return nil, err
	}
	out := map[string]state.ProbeSpec{}
	var errs []error
	for id, e := range all {
		e.wipe()
		s := state.ProbeSpec{Secret: f.Path, Read: 5 * time.Second, Write: e.Write, Database: e.Database, TLS: e.TLS}
		if s.Write == "" {
			s.Write = state.WriteOff
		}
		if s.TLS == "" {
			s.TLS = state.TLSDisable
		}
		var err1, err2 error
		if e.Read != "" {
			s.Read, err1 = time.ParseDuration(e.Read)
		}
		if s.Write == state.WriteReplicated {
			s.WritePeriod = state.MinWritePeriod
		}
		if e.WritePeriod != "" {
			s.WritePeriod, err2 = time.ParseDuration(e.WritePeriod)
		}
		if err := errors.Join(err1, err2, CheckSpec(s)); err != nil {
			errs = append(errs, fmt.Errorf("instance %q: %w", id, err))
			continue
		}
		out[id] = s
	}
	return out, errors.Join(errs...)
}

// Login implements Secrets.
func (f File) Login(_ context.Context, t Target) (*Login, error) {
	all, err := f.read()
	if err != nil {
		return nil, err
	}
	var l *Login
	for id, e := range all {
		if id == t.ID {
			l = &Login{Username: e.Username, Password: slices.Clone(e.Password), CA: []byte(e.CA)}
		}
		e.wipe()
	}
	switch {
	case l == nil:
		return nil, fmt.Errorf("file of logins has no entry for instance %q", t.ID)
	case len(l.Password) == 0:
		return nil, fmt.Errorf("file of logins has no password for instance %q", t.ID)
	case t.Spec.TLS == state.TLSVerifyCA && len(l.CA) == 0:
		l.wipe()
		return nil, fmt.Errorf("file of logins has no ca for instance %q, which TLS needs", t.ID)
	}
	return l, nil
}

// read returns the entries of the file, which nobody but its owner may read. The
// caller wipes them.
func (f File) read() (map[string]*entry, error) {
	file, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open file of logins: %w", err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat file of logins: %w", err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o177 != 0 {
		return nil, fmt.Errorf("file of logins %s has mode %v and must be a plain file with 0600: others can read it", f.Path, st.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	defer clear(data)
	if err != nil {
		return nil, fmt.Errorf("read file of logins: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("file of logins is longer than %d bytes", maxFile)
	}
	return parseLogins(data)
}

// parseLogins reads a file's content. Its errors tell where, never what.
func parseLogins(data []byte) (map[string]*entry, error) {
	all := map[string]*entry{}
	if err := json.Unmarshal(data, &all); err != nil {
		var at *json.SyntaxError
		if errors.As(err, &at) {
			return nil, fmt.Errorf("file of logins is not JSON: byte %d", at.Offset)
		}
		return nil, errors.New("file of logins is not an object of objects of strings")
	}
	for id, e := range all {
		if e == nil {
			return nil, fmt.Errorf("file of logins has nothing for instance %q", id)
		}
	}
	return all, nil
}

// CheckSpec returns what is wrong with how an instance is to be probed.
func CheckSpec(s state.ProbeSpec) error {
	switch {
	case s.Secret == "":
		return errors.New("no secret is named")
	case s.Read < state.MinReadPeriod:
		return fmt.Errorf("read period %v is shorter than %v", s.Read, state.MinReadPeriod)
	case s.Write != state.WriteOff && s.Write != state.WriteReplicated:
		return fmt.Errorf("write %q is neither %q nor %q", s.Write, state.WriteOff, state.WriteReplicated)
	case s.Write == state.WriteReplicated && s.WritePeriod < state.MinWritePeriod:
		return fmt.Errorf("write period %v is shorter than %v", s.WritePeriod, state.MinWritePeriod)
	case s.TLS != state.TLSDisable && s.TLS != state.TLSVerifyCA:
		return fmt.Errorf("tls %q is neither %q nor %q", s.TLS, state.TLSDisable, state.TLSVerifyCA)
	case len(s.Database) > 63:
		return errors.New("the database's name is longer than 63 bytes")
	}
	return nil
}
