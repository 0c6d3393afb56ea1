package screen

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	enter = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	leave = "\x1b[?25h\x1b[?1049l"
	home  = "\x1b[H"
	wipe  = "\x1b[K"  // to the end of the line
	rest  = "\x1b[0J" // to the end of the screen
)

// plain is the width of what goes to no terminal.
const plain = 1 << 20

// Live draws a frame again and again.
type Live struct {
	Out io.Writer
	// In is where keys come from; nil takes none.
	In       *os.File
	Interval time.Duration
	Sort     string
	// Next takes a fresh look and makes a frame of it, sorted as asked.
	Next func(ctx context.Context, sort string) (Frame, error)
}

// terminal returns the file behind Out where that is one.
func (l *Live) terminal() *os.File {
	f, ok := l.Out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// Run draws until ctx ends or somebody presses q. Without a terminal it prints
// frames one below the other.
func (l *Live) Run(ctx context.Context) (err error) {
	tty := l.terminal()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys := make(chan byte)
	if tty != nil && l.In != nil && term.IsTerminal(int(l.In.Fd())) {
		old, err := term.MakeRaw(int(l.In.Fd()))
		if err != nil {
			return fmt.Errorf("set terminal: %w", err)
		}
		defer func() { _ = term.Restore(int(l.In.Fd()), old) }()
		go read(ctx, l.In, keys)
	}
	if tty != nil {
		fmt.Fprint(l.Out, enter)
		defer fmt.Fprint(l.Out, leave)
	}
	return l.loop(ctx, tty, keys)
}

// read passes keys on. It ends with the process, or with the first key after
// ctx did: a terminal's read cannot be interrupted.
func read(ctx context.Context, in io.Reader, keys chan<- byte) {
	one := make([]byte, 1)
	for {
		if n, err := in.Read(one); err != nil || n == 0 {
			return
		}
		select {
		case keys <- one[0]:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Live) loop(ctx context.Context, tty *os.File, keys <-chan byte) error {
	t := time.NewTicker(l.Interval)
	defer t.Stop()
	for {
		f, err := l.Next(ctx, l.Sort)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.draw(&f, tty); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case key := <-keys:
			if !l.press(key) {
				return nil
			}
		}
	}
}

// press acts on a key; false ends. In raw mode Ctrl-C comes as a key, too.
func (l *Live) press(key byte) bool {
	switch key {
	case 'q', 3, 4:
		return false
	case 's':
		all := Sorts()
		l.Sort = all[(slices.Index(all, l.Sort)+1)%len(all)]
	}
	return true
}

// size is that of a terminal, or the usual one where it does not tell: a serial
// line says 0 by 0.
func size(columns, rows int, err error) (int, int) {
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

func (l *Live) draw(f *Frame, tty *os.File) error {
	if tty == nil {
		_, err := io.WriteString(l.Out, strings.Join(f.Lines(plain), "\n")+"\n\n")
		return err
	}
	columns, rows := size(term.GetSize(int(tty.Fd())))
	lines := append(f.Lines(columns), "", Cut("sorted by "+l.Sort+"; s: next order, q: quit", columns))
	if len(lines) > rows {
		lines = lines[:max(rows, 0)]
	}
	// In raw mode a line feed does not return the carriage.
	_, err := io.WriteString(l.Out, home+strings.Join(lines, wipe+"\r\n")+wipe+rest)
	return err
}
