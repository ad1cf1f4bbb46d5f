package tokenfile

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody is a user without any rights, and readers a group that one may be in.
const (
	nobody  = 65534
	readers = 4242
)

// folder is one that everybody gets at.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tokenfile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReadsWithTheRightsOfTheUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	dir := folder(t)
	write := func(name string, uid, gid int, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(" a.b.c\n"), 0o600),
			os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	closed := write("closed/token", nobody, 0, 0o644)
	if err := os.Chmod(filepath.Dir(closed), 0o700); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(dir, "link")
	if err := os.Symlink("root-only", linked); err != nil {
		t.Fatal(err)
	}
	own, foreign := write("own", nobody, 0, 0o400), write("root-only", 0, 0, 0o600)
	grouped, open := write("grouped", 0, readers, 0o640), write("open", 0, 0, 0o644)
	root, plain := User{}, User{UID: nobody, GID: nobody}
	reader, primary := User{UID: nobody, GID: nobody, Groups: []uint32{7, readers}}, User{UID: nobody, GID: readers}
	for _, test := range []struct {
		name string
		user User
		file string
		err  error
	}{
		{"its own", plain, own, nil},
		{"everybody's", plain, open, nil},
		{"root's", plain, foreign, unix.EACCES},
		{"a link to root's", plain, linked, unix.EACCES},
		{"in a folder of root's", plain, closed, unix.EACCES},
		{"a group's that it is not in", plain, grouped, unix.EACCES},
		{"a group's that it is in", reader, grouped, nil},
		{"its group's", primary, grouped, nil},
		{"root reads root's", root, foreign, nil},
		{"root reads everything", root, closed, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r Reader
			text, err := r.Read(t.Context(), View{PID: os.Getpid(), User: &test.user}, test.file)
			if !errors.Is(err, test.err) || err == nil && text != "a.b.c" {
				t.Errorf("%q, %v; want %v", text, err, test.err)
			}
		})
	}
	// Nothing of that is left in the process.
	for range 50 {
		if _, err := os.ReadFile(foreign); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadsWithTheRightsOfTheProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to start a process of somebody else")
	}
	dir := folder(t)
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "echo; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var r Reader
	if _, err := r.Read(t.Context(), View{PID: cmd.Process.Pid}, token); !errors.Is(err, unix.EACCES) {
		t.Errorf("read with the rights of root: %v", err)
	}
	if err := os.Chown(token, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	var cgroup string
	within := func(path string) bool { cgroup = path; return true }
	if text, err := r.Read(t.Context(), View{PID: cmd.Process.Pid, Within: within}, token); text != "a.b.c" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if !strings.HasPrefix(cgroup, "/") {
		t.Errorf("its cgroup is %q", cgroup)
	}
	if _, err := r.Read(t.Context(), View{PID: cmd.Process.Pid, Within: func(string) bool { return false }}, token); err == nil {
		t.Error("read for a process that is another one meanwhile")
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	magic := filepath.Join(dir, "magic")
	if err := os.Symlink("/proc/self/fd/0", magic); err != nil {
		t.Fatal(err)
	}
	own := User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	for name, test := range map[string]struct {
		pid        int
		file, want string
	}{
		"no file":           {os.Getpid(), filepath.Join(dir, "none"), "no such file"},
		"empty":             {os.Getpid(), put("empty", " \n"), "empty"},
		"long":              {os.Getpid(), put("long", strings.Repeat("x", maxSize+1)), "longer than 16384"},
		"FIFO":              {os.Getpid(), fifo, "no regular file"},
		"device":            {os.Getpid(), "/dev/zero", "no regular file"},
		"folder":            {os.Getpid(), dir, "no regular file"},
		"link through proc": {os.Getpid(), magic, "symbolic links"},
		"no process":        {1 << 30, put("token", "a.b.c"), "process 1073741824"},
	} {
		t.Run(name, func(t *testing.T) {
			var r Reader
			if text, err := r.Read(t.Context(), View{PID: test.pid, User: &own}, test.file); err == nil || !strings.Contains(err.Error(), test.want) || text != "" {
				t.Errorf("%q, %v; want %q", text, err, test.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var r Reader
	for range atOnce { // as if none of them answered
		r.slots(own.UID) <- struct{}{}
	}
	if _, err := r.Read(ctx, View{PID: os.Getpid(), User: &own}, put("late", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("waited on: %v", err)
	}
}

func TestUserOf(t *testing.T) {
	u, err := userOf("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n")
	if err != nil || u.UID != 4 || u.GID != 8 || !slices.Equal(u.Groups, []uint32{9, 10}) {
		t.Errorf("%+v, %v", u, err)
	}
	for _, status := range []string{"", "Uid:\t1\t2\t3\t4\n", "Uid:\t1\nGid:\t5\t6\t7\t8\nGroups:\t\n", "Uid:\t1\t2\t3\tx\nGid:\t5\t6\t7\t8\nGroups:\t\n"} {
		if u, err := userOf(status); err == nil {
			t.Errorf("%q: %+v", status, u)
		}
	}
}
