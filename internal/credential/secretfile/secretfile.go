// Package secretfile reads files that hold secrets, and refuses those that others
// can read or replace. It knows nothing of what is in them.
package secretfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// limit bounds a file, in bytes.
const limit = 64 << 10

// ErrEmpty is wrapped for a file without content.
var ErrEmpty = errors.New("it is empty")

// Read reads a file that only its owner, who is root or ourselves, may write, and
// that not everybody may read.
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hold us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, which lets others at it: chmod 600 it (0640 will do)", path, mode)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to uid %d, not to root or the daemon's user", path, st.Uid)
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > limit:
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	case strings.TrimSpace(string(content)) == "":
		return nil, fmt.Errorf("%s: %w", path, ErrEmpty)
	}
	return content, nil
}

// Line reads a file of one line, less the newline at its end.
func Line(path string) (string, error) {
	content, err := Read(path)
	if err != nil {
		return "", err
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if strings.ContainsAny(line, "\r\n\x00") {
		return "", fmt.Errorf("%s must hold one line", path)
	}
	return line, nil
}
