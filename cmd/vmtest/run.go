package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// timeoutError says that the limit for the whole run is over.
type timeoutError struct{ limit time.Duration }

func (e timeoutError) Error() string {
	return fmt.Sprintf("the run took longer than -timeout %v; the guest was killed", e.limit)
}

// run runs one program in one guest. The status returned is vmtest's own exit
// status; the error, if any, says what went wrong beside it or why it is not
// the program's. It must be called on a thread that lives as long as the process.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (int, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, timeoutError{o.timeout})
	defer cancel()
	c := cache{o.cache}
	lock, err := c.hold()
	if err != nil {
		return exitSetup, err
	}
	defer lock.Close()
	m, err := prepare(o, c)
	if err != nil {
		return exitSetup, err
	}
	defer m.remove()
	if err := m.start(o); err != nil {
		return exitSetup, err
	}
	note(o, stderr, "started %s after %v", strings.Join(m.command.Args, " "), time.Since(begun).Round(time.Millisecond))
	e := m.supervise(ctx, o, stdout, stderr)
	note(o, stderr, "guest is gone after %v", time.Since(begun).Round(100*time.Millisecond))
	code, err := judge(e)
	showConsole(stderr, e, code)
	return code, err
}

// prepare finds the trees and makes a machine of them.
func prepare(o options, c cache) (*machine, error) {
	qemu, err := c.qemu()
	if err != nil {
		return nil, err
	}
	rootfs, err := c.rootfs()
	if err != nil {
		return nil, err
	}
	k, err := c.kernel(o.kernel)
	if err != nil {
		return nil, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find working directory: %w", err)
	}
	j, err := planJob(o, hostView{directory: dir, environment: os.Environ(), rootfs: rootfs, kernel: k})
	if err != nil {
		return nil, err
	}
	return newMachine(o, j, k, rootfs, qemu)
}

// judge turns the ending of a run into an exit status and an explanation.
func judge(e ending) (int, error) {
	var stopped signalError
	trouble := troubleError(e.console)
	switch {
	case errors.As(e.cause, &stopped):
		return 128 + int(stopped.signal), e.cause
	case e.cause != nil:
		return 1, errors.Join(e.cause, qemuError(e.qemu), trouble)
	case e.failed != "":
		return exitSetup, errors.Join(fmt.Errorf("set up the guest: %s", e.failed), trouble)
	case !e.up:
		return exitSetup, errors.Join(errors.New("the guest ended before it came up"), qemuError(e.qemu), trouble)
	case !e.reported:
		return 1, errors.Join(errors.New("the guest died before the program ended"), qemuError(e.qemu), trouble)
	}
	var skipped error
	if len(e.skipped) > 0 {
		skipped = fmt.Errorf("tests were skipped, which counts as a failure here: %s", strings.Join(e.skipped, ", "))
	}
	err := errors.Join(skipped, trouble)
	if err != nil && e.code == 0 {
		return 1, err
	}
	return e.code, err
}

func qemuError(said string) error {
	if said == "" {
		return nil
	}
	return fmt.Errorf("QEMU: %s", said)
}

func troubleError(console []byte) error {
	found := findTrouble(console)
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("the guest's kernel reported trouble, so no result counts:\n\t%s",
		strings.Join(found[:min(len(found), findingsShown)], "\n\t"))
}

// showConsole prints the end of the console after a failure. Where the program
// itself failed, that is what the kernel said while it ran.
func showConsole(w io.Writer, e ending, code int) {
	if code == 0 {
		return
	}
	console := e.console
	if e.reported {
		console = sinceStart(console)
	}
	text := lastLines(console, consoleLines)
	if text == "" {
		return
	}
	fmt.Fprintf(w, "vmtest: end of the guest's console:\n%s\nvmtest: end of console\n", text)
}

// note reports a stage of the run if -v asks for it.
func note(o options, w io.Writer, format string, arguments ...any) {
	if o.verbose {
		fmt.Fprintf(w, "vmtest: "+format+"\n", arguments...)
	}
}
