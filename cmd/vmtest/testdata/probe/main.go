// Command probe is run by the runner's own tests in a guest, to show how a
// program can end there.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	if err := act(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
}

func act(name string, arguments []string) error {
	switch name {
	case "report":
		return report(arguments[0], arguments[1])
	case "wait":
		fmt.Println("waiting")
		time.Sleep(time.Hour)
		return nil
	case "freeze":
		return freeze()
	default:
		return fmt.Errorf("no act %q", name)
	}
}

// report writes to all there is to write to, and ends with the given status.
func report(folder, status string) error {
	code, err := strconv.Atoi(status)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "kept"), []byte("by the guest"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile("lost", []byte("by the guest"), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "to standard error")
	if _, err := os.Stdout.Write(bytes.Repeat([]byte("0123456789abcde\n"), 256<<10)); err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// freeze puts process 1 into a frozen cgroup: its heartbeats end, as in a
// guest that hangs, while the kernel stays well.
func freeze() error {
	const group = "/sys/fs/cgroup/frozen"
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(group+"/cgroup.procs", []byte("1"), 0); err != nil {
		return err
	}
	if err := os.WriteFile(group+"/cgroup.freeze", []byte("1"), 0); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return nil
}
