package main

import (
	"bytes"
	"regexp"
	"strings"
)

// startMark is what the guest logs right before the program starts. What the
// console holds after it, the run caused.
const startMark = "vmtest: program starts"

const (
	consoleLines  = 200 // printed of the console after a failure
	findingsShown = 20  // lines named in a message
)

// kernelTrouble matches console lines after which no result of the guest can be
// trusted. The texts are those of kernel/panic.c, lib/bug.c,
// kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h and
// arch/x86/kernel/{traps,dumpstack}.c.
func kernelTrouble() *regexp.Regexp {
	return regexp.MustCompile(`BUG:|kernel BUG at|\bOops\b|general protection|WARNING: CPU|cut here|` +
		`soft lockup|hard LOCKUP|hung task|blocked for more than \d+ seconds|Kernel panic|` +
		`rcu: INFO: rcu_.*(self-detected stall|detected stalls)`)
}

// findTrouble returns the console lines that tell of a broken kernel.
func findTrouble(console []byte) []string {
	trouble := kernelTrouble()
	var found []string
	for line := range bytes.Lines(console) {
		if trouble.Match(line) {
			found = append(found, strings.TrimSpace(printable(line)))
		}
	}
	return found
}

// lastLines returns the last n lines of the console as printable text.
func lastLines(console []byte, n int) string {
	text := strings.TrimRight(printable(console), "\n")
	lines := strings.Split(text, "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// sinceStart returns what the console holds after startMark, or all of it.
func sinceStart(console []byte) []byte {
	if _, after, ok := bytes.Cut(console, []byte(startMark)); ok {
		_, after, _ = bytes.Cut(after, []byte("\n"))
		return after
	}
	return console
}

// printable drops what would upset a terminal: the firmware clears the screen.
func printable(b []byte) string {
	escape := regexp.MustCompile("\x1b(\\[[0-9;?=]*[a-zA-Z]|c)")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r == 0x7f) {
			return -1
		}
		return r
	}, string(escape.ReplaceAll(b, nil)))
}

// skipFinder is a writer that picks the names of skipped tests out of the
// output of a test binary.
type skipFinder struct {
	line    []byte
	skipped []string
}

// maxLine bounds what is kept of an unfinished line. A skip line is shorter.
const maxLine = 4 << 10

func (f *skipFinder) Write(b []byte) (int, error) {
	for part := range bytes.Lines(b) {
		if room := maxLine - len(f.line); room > 0 {
			f.line = append(f.line, part[:min(len(part), room)]...)
		}
		if part[len(part)-1] == '\n' {
			f.finish()
		}
	}
	return len(b), nil
}

// finish looks at the line gathered so far; call it once more at the end.
func (f *skipFinder) finish() {
	// test2json mode puts a byte 0x16 before each line of the framework.
	line := strings.TrimLeft(string(f.line), " \x16")
	f.line = f.line[:0]
	rest, ok := strings.CutPrefix(line, "--- SKIP: ")
	if !ok {
		return
	}
	name, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	f.skipped = append(f.skipped, name)
}
