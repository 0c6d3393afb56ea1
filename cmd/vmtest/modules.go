package main

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// moduleIndex is what depmod knows of one kernel: each module's file and the
// files it needs, as paths relative to the modules folder.
type moduleIndex struct {
	files   map[string]string
	depends map[string][]string
	builtin map[string]bool
}

// readModuleIndex reads modules.dep and modules.builtin (kmod, modules.dep(5)).
func readModuleIndex(dep, builtin io.Reader) (*moduleIndex, error) {
	x := &moduleIndex{files: map[string]string{}, depends: map[string][]string{}, builtin: map[string]bool{}}
	s := bufio.NewScanner(dep)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		file, needs, ok := strings.Cut(s.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("parse modules.dep: line %q has no colon", s.Text())
		}
		name := moduleName(file)
		if name == "" {
			return nil, fmt.Errorf("parse modules.dep: line %q names no module", s.Text())
		}
		x.files[name] = file
		x.depends[file] = strings.Fields(needs)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read modules.dep: %w", err)
	}
	b := bufio.NewScanner(builtin)
	for b.Scan() {
		x.builtin[moduleName(b.Text())] = true
	}
	if err := b.Err(); err != nil {
		return nil, fmt.Errorf("read modules.builtin: %w", err)
	}
	return x, nil
}

// moduleName is the name of a module's file without folder and suffixes.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return canonical(name)
}

// canonical spells a module's name as the kernel does, which takes "-" and "_"
// for the same.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// resolve returns the files of the named modules and of all they need, in the
// order to load them. A module that is built in has no file. One that is
// neither is an error: the guest would stop later with a less clear one.
func (x *moduleIndex) resolve(names []string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, d := range x.depends[file] {
			visit(d)
		}
		order = append(order, file)
	}
	for _, name := range names {
		name = canonical(name)
		file, ok := x.files[name]
		if !ok {
			if x.builtin[name] {
				continue
			}
			return nil, fmt.Errorf("kernel has no module %q, neither as a file nor built in", name)
		}
		visit(file)
	}
	return order, nil
}
