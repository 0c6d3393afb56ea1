package main

import (
	"fmt"
	"io"
)

// cpioWriter writes an archive in the "newc" format the kernel unpacks as its
// initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpioWriter struct {
	w       io.Writer
	written int64
	inode   int
}

const (
	cpioDirectory = 0o040755
	cpioFile      = 0o100644
	cpioProgram   = 0o100755
)

// add writes one entry. A directory must come before what it contains.
func (c *cpioWriter) add(name string, mode uint32, data []byte) error {
	c.inode++
	// Magic, inode, mode, uid, gid, links, mtime, size, four device numbers,
	// length of the name with its NUL, checksum (unused in this format).
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	if err := c.padded([]byte(header + name + "\x00")); err != nil {
		return fmt.Errorf("write cpio header of %q: %w", name, err)
	}
	if err := c.padded(data); err != nil {
		return fmt.Errorf("write cpio data of %q: %w", name, err)
	}
	return nil
}

// close writes the trailer. It does not close the writer below.
func (c *cpioWriter) close() error { return c.add("TRAILER!!!", 0, nil) }

// padded writes b and fills up to a multiple of four bytes, as the format asks
// for after each name and each file.
func (c *cpioWriter) padded(b []byte) error {
	n, err := c.w.Write(b)
	c.written += int64(n)
	if err != nil {
		return err
	}
	n, err = c.w.Write(make([]byte, (4-c.written%4)%4))
	c.written += int64(n)
	return err
}
