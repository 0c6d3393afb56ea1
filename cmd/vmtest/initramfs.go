package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// bootModules are what the guest needs before it can reach /lib/modules: its
// root over 9p with an overlay, the port to the host, and the disks; and the
// network interface if it has one. Debian builds all of them as modules.
func bootModules(j job) []string {
	names := []string{"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "virtio_blk", "ext4"}
	if j.Network {
		names = append(names, "virtio_net")
	}
	return names
}

// writeInitramfs writes an archive with this program as /init, the modules and
// the job. It sets j.Modules.
func writeInitramfs(file string, k kernel, j job) error {
	modules, err := loadModules(k.modules, bootModules(j))
	if err != nil {
		return err
	}
	self, err := staticSelf()
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	c := &cpioWriter{w: &archive}
	for _, d := range []string{"proc", "sys", "dev", "lower", "upper", "new"} {
		if err := c.add(d, cpioDirectory, nil); err != nil {
			return err
		}
	}
	for _, m := range modules {
		j.Modules = append(j.Modules, m.name)
		if err := c.add(m.name, cpioFile, m.data); err != nil {
			return err
		}
	}
	encoded, err := encodeJob(j)
	if err != nil {
		return err
	}
	if err := errors.Join(
		c.add("job.json", cpioFile, encoded),
		c.add("init", cpioProgram, self),
		c.close(),
	); err != nil {
		return err
	}
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return nil
}

type module struct {
	name string
	data []byte
}

// loadModules reads the named modules and all they need, in load order.
func loadModules(dir string, names []string) ([]module, error) {
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read module index: %w", err)
	}
	// A kernel without built-in modules may come without this file.
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read module index: %w", err)
	}
	index, err := readModuleIndex(bytes.NewReader(dep), bytes.NewReader(builtin))
	if err != nil {
		return nil, err
	}
	files, err := index.resolve(names)
	if err != nil {
		return nil, fmt.Errorf("resolve modules in %s: %w", dir, err)
	}
	var modules []module
	for _, f := range files {
		data, err := readModule(filepath.Join(dir, f))
		if err != nil {
			return nil, err
		}
		modules = append(modules, module{moduleName(path.Base(f)) + ".ko", data})
	}
	return modules, nil
}

// readModule reads a module. Debian compresses them from 6.12 on, and whether a
// kernel can unpack one by itself depends on its configuration, so it is done here.
func readModule(file string) ([]byte, error) {
	if strings.HasSuffix(file, ".xz") {
		b, err := exec.Command("xz", "-dc", "--", file).Output()
		if err != nil {
			return nil, fmt.Errorf("unpack module %s by xz: %w", file, err)
		}
		return b, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	return b, nil
}

// staticSelf reads this program, which is to be the guest's /init. There is no
// loader in the initramfs, so one that needs a loader would not start.
func staticSelf() ([]byte, error) {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("read own program: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("parse own program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, errors.New("vmtest is linked dynamically: build it with CGO_ENABLED=0")
		}
	}
	return b, nil
}
