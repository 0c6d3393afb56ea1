package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// exitSetup is the status for vmtest's own errors, as env(1) and timeout(1)
// use it, so that it is not taken for the program's.
const exitSetup = 125

func main() {
	if os.Getpid() == 1 {
		guestMain()
	}
	// QEMU is to die with this process. PR_SET_PDEATHSIG follows the thread
	// that started it, so that thread must live as long as the process does.
	runtime.LockOSThread()
	os.Exit(hostMain())
}

func hostMain() int {
	o, err := parseOptions(os.Args[1:], os.Getenv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
		return exitSetup
	}
	ctx, stop := cancelOnSignal(context.Background())
	defer stop()
	code, err := run(ctx, o, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
	}
	return code
}

// signalError says that a signal to vmtest itself ended the run.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return fmt.Sprintf("ended by signal: %v", e.signal) }

// cancelOnSignal returns a context that a signal cancels with a signalError as
// its cause. SIGQUIT is what go test sends when its own time limit is over.
func cancelOnSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		select {
		case s := <-signals:
			if s, ok := s.(syscall.Signal); ok {
				cancel(signalError{s})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}
