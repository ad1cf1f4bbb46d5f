package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is where a person can be asked.
type terminal struct {
	in  *os.File
	out io.Writer
}

// terminalOf returns the terminal, if input comes from one.
func terminalOf(in io.Reader, out io.Writer) (*terminal, bool) {
	f, ok := in.(*os.File)
	if !ok || !isTerminal(f) {
		return nil, false
	}
	return &terminal{f, out}, true
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ask asks, and returns the line that is typed, in small letters. What was typed before
// the question answers nothing: nobody had read it.
func (t *terminal) ask(ctx context.Context, question string) (string, error) {
	fd := int(t.in.Fd())
	if err := unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH); err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	if _, err := fmt.Fprint(t.out, question, " "); err != nil {
		return "", err
	}
	// A read can't be interrupted, so it must not begin before there is something.
	const look = 100 * time.Millisecond
	for {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(look/time.Millisecond))
		if ctx.Err() != nil {
			fmt.Fprintln(t.out)
			return "", context.Cause(ctx)
		}
		if err != nil && err != unix.EINTR {
			return "", fmt.Errorf("terminal: %w", err)
		}
		if n > 0 {
			break
		}
	}
	var line [256]byte
	n, err := t.in.Read(line[:])
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("terminal: %w", err)
	}
	if n == 0 {
		fmt.Fprintln(t.out)
	}
	return strings.ToLower(strings.TrimSpace(string(line[:n]))), nil
}

// yes tells whether the answer is yes. Anything but that is no.
func yes(answer string) bool { return answer == "y" || answer == "yes" }
