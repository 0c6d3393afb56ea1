package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Entry is one file, folder or symbolic link of a layer.
type Entry struct {
	// Name is the path in the image, without a leading slash.
	Name string
	// Mode is the type and the permissions.
	Mode     fs.FileMode
	UID, GID int
	// Link is the target of a symbolic link.
	Link string
	// Source is the file to read the content from; if empty, Content is it.
	Source  string
	Content []byte
}

// Layer is a tar that has been written.
type Layer struct {
	// Path is the file it lies in.
	Path string
	// Digest is "sha256:" and its hash in hexadecimal.
	Digest string
	// Size is in bytes.
	Size int64
}

// Tree lists everything below root for which keep is true, in lexical order and
// with its owner. keep sees the path relative to root; a folder it refuses is
// not entered. Devices, sockets and pipes are left out: containers get their own.
func Tree(root string, keep func(name string) bool) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		if !keep(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		e, err := entryOf(path, name)
		if err != nil || e == nil {
			return err
		}
		entries = append(entries, *e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tree: %w", err)
	}
	return entries, nil
}

// entryOf describes one file, or returns nil for one that an image cannot hold.
func entryOf(path, name string) (*Entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	e := &Entry{Name: name, Mode: info.Mode()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		e.UID, e.GID = int(st.Uid), int(st.Gid)
	}
	switch {
	case info.IsDir():
	case info.Mode().IsRegular():
		e.Source = path
	case info.Mode()&fs.ModeSymlink != 0:
		if e.Link, err = os.Readlink(path); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	return e, nil
}

// WriteLayer writes the entries, sorted by name, as an uncompressed tar to a new
// file. A name that comes twice is an error: which one won would be chance.
func WriteLayer(path string, entries []Entry) (Layer, error) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	f, err := os.Create(path)
	if err != nil {
		return Layer{}, fmt.Errorf("make layer: %w", err)
	}
	defer f.Close()
	hash := sha256.New()
	size := &counter{}
	w := tar.NewWriter(io.MultiWriter(f, hash, size))
	for i, e := range entries {
		if i > 0 && entries[i-1].Name == e.Name {
			return Layer{}, fmt.Errorf("write layer: %q comes twice", e.Name)
		}
		if err := writeEntry(w, e); err != nil {
			return Layer{}, fmt.Errorf("write %q to layer: %w", e.Name, err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		return Layer{}, fmt.Errorf("write layer: %w", err)
	}
	return Layer{Path: path, Digest: digest(hash.Sum(nil)), Size: size.n}, nil
}

func writeEntry(w *tar.Writer, e Entry) error {
	if e.Name == "" || strings.HasPrefix(e.Name, "/") || !filepath.IsLocal(e.Name) {
		return errors.New("the name must be relative and stay inside the image")
	}
	// No time: the same entries are to give the same digest.
	h := &tar.Header{Name: e.Name, Mode: permissions(e.Mode), Uid: e.UID, Gid: e.GID, Format: tar.FormatPAX}
	switch {
	case e.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, e.Name+"/"
		return w.WriteHeader(h)
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		return w.WriteHeader(h)
	case !e.Mode.IsRegular():
		return fmt.Errorf("mode %v is neither a file, a folder nor a link", e.Mode)
	}
	h.Typeflag = tar.TypeReg
	var content io.Reader = bytes.NewReader(e.Content)
	h.Size = int64(len(e.Content))
	if e.Source != "" {
		f, err := os.Open(e.Source)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		content, h.Size = f, info.Size()
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, content)
	return err
}

// permissions are the lower twelve bits as tar has them.
func permissions(m fs.FileMode) int64 {
	p := int64(m.Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			p |= value
		}
	}
	return p
}

func digest(sum []byte) string { return "sha256:" + hex.EncodeToString(sum) }

// counter counts what is written to it.
type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
