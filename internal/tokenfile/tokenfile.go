// Package tokenfile reads a file as a process of somebody else would: below that
// process's root, whatever links lie on the way, and with the rights of its user. So a job
// can't have the daemon, which may read everything, read for it what it may not.
//
// It knows files and processes, not what a token is or whom it is about.
package tokenfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"chaperone.dev/chaperone/internal/procfs"
)

const (
	maxSize = 16 << 10 // bytes
	// atOnce bounds the files that are being read for one user, and patience each of
	// them: a user can have a file that never answers, which keeps a thread.
	atOnce   = 16
	patience = 5 * time.Second
)

// User is with whose rights a file is read.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
}

// View is how a process sees files.
type View struct {
	PID int
	// User has the rights; nil means the process's own.
	User *User
	// Within, if it is not nil, is told the cgroup of the process, below the root of its
	// hierarchy, and says whether it is the process that is meant: numbers are used again.
	Within func(cgroup string) bool
}

// Reader reads files. The zero value is one. Safe for concurrent use.
type Reader struct {
	mu    sync.Mutex
	users map[uint32]chan struct{}
}

// Read returns the text of a file, without white space around it. It waits for ctx, and
// for a few seconds at most. No error holds what was read.
func (r *Reader) Read(ctx context.Context, view View, file string) (string, error) {
	process, err := open(view)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("reading it took longer than %s", patience))
	defer cancel()
	slots := r.slots(process.user.UID)
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		process.close()
		return "", context.Cause(ctx)
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { <-slots }()
		defer process.close()
		var a answer
		onOwnThread(func() {
			if a.err = become(process.user); a.err == nil {
				a.text, a.err = read(process.root, file)
			}
		})
		answers <- a
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (r *Reader) slots(uid uint32) chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == nil {
		r.users = map[uint32]chan struct{}{}
	}
	if r.users[uid] == nil {
		r.users[uid] = make(chan struct{}, atOnce)
	}
	return r.users[uid]
}

// process is one whose root was opened, and stays that one.
type process struct {
	root int
	user User
}

func (p process) close() { unix.Close(p.root) }

// open opens the process's folder first: what is read below it is that process's, even
// if its number is another one's meanwhile.
func open(view View) (process, error) {
	folder, err := unix.Open("/proc/"+strconv.Itoa(view.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, fmt.Errorf("process %d: %w", view.PID, err)
	}
	defer unix.Close(folder)
	if view.Within != nil {
		text, err := readAt(folder, "cgroup")
		if err != nil {
			return process{}, fmt.Errorf("process %d: %w", view.PID, err)
		}
		if path, ok := procfs.Cgroup(text); !ok || !view.Within(path) {
			return process{}, fmt.Errorf("process %d is another one meanwhile", view.PID)
		}
	}
	user := view.User
	if user == nil {
		status, err := readAt(folder, "status")
		if err != nil {
			return process{}, fmt.Errorf("process %d: %w", view.PID, err)
		}
		if user, err = userOf(string(status)); err != nil {
			return process{}, fmt.Errorf("process %d: %w", view.PID, err)
		}
	}
	root, err := unix.Openat(folder, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, fmt.Errorf("the root of process %d: %w", view.PID, err)
	}
	return process{root: root, user: *user}, nil
}

// readAt reads a small file of procfs.
func readAt(folder int, name string) ([]byte, error) {
	fd, err := unix.Openat(folder, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	const limit = 1 << 20 // 65,536 groups have 720 kB
	return io.ReadAll(io.LimitReader(f, limit))
}

// userOf reads whose file accesses are judged by (proc_pid_status(5)).
func userOf(status string) (*User, error) {
	u, found := &User{}, 0
	for line := range strings.Lines(status) {
		name, values, _ := strings.Cut(line, ":")
		fields := strings.Fields(values)
		switch name {
		case "Uid", "Gid":
			const fileSystem = 3 // after real, effective and saved
			if len(fields) != fileSystem+1 {
				return nil, fmt.Errorf("its status has no %s", name)
			}
			id, err := strconv.ParseUint(fields[fileSystem], 10, 32)
			if err != nil {
				return nil, err
			}
			if name == "Uid" {
				u.UID = uint32(id)
			} else {
				u.GID = uint32(id)
			}
			found++
		case "Groups":
			for _, field := range fields {
				id, err := strconv.ParseUint(field, 10, 32)
				if err != nil {
					return nil, err
				}
				u.Groups = append(u.Groups, uint32(id))
			}
			found++
		}
	}
	if found != 3 {
		return nil, errors.New("its status doesn't say whose it is")
	}
	return u, nil
}

// read opens the file below the root, whatever links lie on the way: a planner could
// make them lead elsewhere on the node.
func read(root int, file string) (string, error) {
	fd, err := unix.Openat2(root, strings.TrimPrefix(file, "/"), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	body, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(body))
	if text == "" || len(body) > maxSize {
		return "", fmt.Errorf("it is empty or longer than %d bytes", maxSize)
	}
	return text, nil
}
