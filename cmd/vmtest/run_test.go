package main

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	oops := []byte("[ 1.0] Oops: 0000 [#1]\n")
	for name, c := range map[string]struct {
		ending  ending
		code    int
		message string // empty: no error
	}{
		"a pass":               {ending{up: true, reported: true}, 0, ""},
		"the program's status": {ending{up: true, reported: true, code: 3}, 3, ""},
		"a skip":               {ending{up: true, reported: true, skipped: []string{"TestA", "TestB"}}, 1, "skipped, which counts as a failure here: TestA, TestB"},
		"an oops":              {ending{up: true, reported: true, console: oops}, 1, "Oops: 0000 [#1]"},
		"an oops beside a failure": {
			ending{up: true, reported: true, code: 2, console: oops}, 2, "Oops: 0000 [#1]",
		},
		"a hang":                  {ending{up: true, cause: &hangError{running, time.Minute}, qemu: "RIP=1"}, 1, "QEMU: RIP=1"},
		"a hang after the status": {ending{up: true, reported: true, cause: &hangError{stopping, time.Minute}}, 1, "did not power off"},
		"the time limit":          {ending{up: true, cause: timeoutError{time.Minute}}, 1, "longer than -timeout 1m0s"},
		"a signal to us":          {ending{cause: signalError{syscall.SIGTERM}}, 143, "ended by signal: terminated"},
		"a guest that died":       {ending{up: true, console: oops}, 1, "the guest died before the program ended"},
		"a guest that never was":  {ending{qemu: "exit status 1"}, exitSetup, "ended before it came up\nQEMU: exit status 1"},
		"a set-up that failed":    {ending{up: true, failed: "mount x"}, exitSetup, "set up the guest: mount x"},
	} {
		t.Run(name, func(t *testing.T) {
			code, err := judge(c.ending)
			require.Equal(t, c.code, code)
			if c.message == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.message)
		})
	}
}

func TestShowConsole(t *testing.T) {
	console := []byte("[ 1.0] boot\n[ 2.0] " + startMark + "\n[ 3.0] run\n")
	show := func(e ending, code int) string {
		var b bytes.Buffer
		showConsole(&b, e, code)
		return b.String()
	}
	t.Run("is silent after a pass", func(t *testing.T) {
		require.Empty(t, show(ending{reported: true, console: console}, 0))
	})
	t.Run("shows what the kernel said while a program failed", func(t *testing.T) {
		text := show(ending{reported: true, console: console}, 3)
		require.Contains(t, text, "[ 3.0] run\n")
		require.NotContains(t, text, "boot")
	})
	t.Run("shows the boot of a guest that died", func(t *testing.T) {
		require.Contains(t, show(ending{console: console}, 1), "[ 1.0] boot\n")
	})
}

// received plays a guest that sends with send, and returns what became of it.
func received(t *testing.T, program string, send func(*frameWriter)) (e ending, stdout, stderr, answer string, err error) {
	t.Helper()
	ours, theirs, err := socketPair()
	require.NoError(t, err)
	defer ours.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		send(&frameWriter{w: theirs})
		// As QEMU's end does; what was sent stays readable.
		_ = syscall.Shutdown(int(theirs.Fd()), syscall.SHUT_WR)
	}()
	m := &machine{port: ours, dir: t.TempDir()}
	o := options{arguments: []string{program}, hang: time.Minute}
	var outBuffer, errBuffer bytes.Buffer
	result := m.receive(o, newWatchdog(time.Minute), &e, &outBuffer, &errBuffer)
	require.NoDirExists(t, m.dir, "the files are gone once the guest is up")
	<-sent
	require.NoError(t, ours.Close())
	var b [8]byte
	n, readErr := theirs.Read(b[:])
	if readErr != nil {
		n = 0
	}
	require.NoError(t, theirs.Close())
	return e, outBuffer.String(), errBuffer.String(), string(b[:n]), result
}

func TestReceive(t *testing.T) {
	send := func(t *testing.T, w *frameWriter, kind frameKind, data string) {
		t.Helper()
		if err := w.send(kind, []byte(data)); err != nil {
			t.Error(err)
		}
	}
	t.Run("passes output and status on and answers", func(t *testing.T) {
		e, stdout, stderr, answer, err := received(t, "tool", func(w *frameWriter) {
			send(t, w, frameBeat, "")
			send(t, w, frameStdout, "--- SKIP: not a test\n")
			send(t, w, frameStderr, "err")
			send(t, w, frameExit, "3")
		})
		require.NoError(t, err)
		require.Equal(t, ending{up: true, reported: true, code: 3}, e)
		require.Equal(t, "--- SKIP: not a test\n", stdout)
		require.Equal(t, "err", stderr)
		require.Equal(t, ".", answer)
	})
	t.Run("finds the skips of a test binary", func(t *testing.T) {
		e, _, _, _, err := received(t, "x.test", func(w *frameWriter) {
			send(t, w, frameStdout, "--- SKIP: TestA (0.00s)\n--- SK")
			send(t, w, frameStdout, "IP: TestB (0.00s)")
			send(t, w, frameExit, "0")
		})
		require.NoError(t, err)
		require.Equal(t, []string{"TestA", "TestB"}, e.skipped)
	})
	t.Run("takes a failed set-up for no status", func(t *testing.T) {
		e, _, _, answer, err := received(t, "tool", func(w *frameWriter) { send(t, w, frameFailed, "mount x") })
		require.NoError(t, err)
		require.Equal(t, ending{up: true, failed: "mount x"}, e)
		require.Equal(t, ".", answer)
	})
	t.Run("takes the end of the port for the end of the guest", func(t *testing.T) {
		e, _, _, _, err := received(t, "tool", func(w *frameWriter) { send(t, w, frameBeat, "") })
		require.NoError(t, err)
		require.False(t, e.reported)
	})
	t.Run("refuses a status that is none", func(t *testing.T) {
		e, _, _, answer, err := received(t, "tool", func(w *frameWriter) { send(t, w, frameExit, "much") })
		require.ErrorContains(t, err, "parse exit status")
		require.False(t, e.reported)
		require.Empty(t, answer)
	})
}

func TestRunNamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	code, err := run(t.Context(), options{cache: dir, arguments: []string{"true"}, timeout: time.Minute}, nil, nil)
	require.Equal(t, exitSetup, code)
	require.ErrorContains(t, err, `setup.sh vm`)
	require.ErrorContains(t, err, dir)
}

func TestCancelOnSignal(t *testing.T) {
	ctx, stop := cancelOnSignal(t.Context())
	defer stop()
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGHUP))
	<-ctx.Done()
	var stopped signalError
	require.True(t, errors.As(context.Cause(ctx), &stopped))
	require.Equal(t, syscall.SIGHUP, stopped.signal)
}

func TestExitCode(t *testing.T) {
	require.Equal(t, 3, exitCode(syscall.WaitStatus(3<<8)))
	require.Equal(t, 137, exitCode(syscall.WaitStatus(9)))
}
