// Package procfs reads what proc(5) tells of a process's cgroup and mounts. It opens no
// file: callers know which process they mean, and how much of its text they take.
package procfs

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Cgroup returns the path of the cgroup of version 2 in the text of a /proc/PID/cgroup
// (cgroups(7)), which is below the root of the hierarchy as the reader's cgroup namespace
// shows it. A process can be in none.
func Cgroup(text []byte) (path string, ok bool) {
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, true
		}
	}
	return "", false
}

// Mount is one line of a mountinfo text.
type Mount struct {
	Point string
	Kind  string // the type of the file system
}

// Mounts returns the mounts of a mountinfo text (proc_pid_mountinfo(5)), in its order.
func Mounts(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// "36 35 98:0 /root /mount opts [optional…] - type source superopts"
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !found || len(fields) < 6 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		mounts = append(mounts, Mount{Point: unescape(fields[4]), Kind: kind})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return mounts, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
