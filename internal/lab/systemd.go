package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SystemdOptions says what system to start.
type SystemdOptions struct {
	// Cgroup is an empty cgroup of the v2 hierarchy, as [NewCgroup] makes it.
	// The units' cgroups appear below it, as /sys/fs/cgroup/system.slice/… does
	// on a machine. Required.
	Cgroup string
	// Units are unit files and drop-ins by name: "planner@.service",
	// "planner@.service.d/10-more.conf". They are all the units there are,
	// beside a few targets that a service needs.
	Units map[string]string
	// SharedNetwork leaves the system in the caller's network namespace.
	// Otherwise it has its own, with nothing but lo.
	SharedNetwork bool
	// Log receives what systemd itself says. Writes come from one goroutine.
	// May be nil.
	Log io.Writer
}

// Systemd is a running system manager: a real systemd, as PID 1 of its own
// pid, mount, IPC, UTS, cgroup and (mostly) network namespaces. The files are
// the machine's; the root file system and /etc are read-only inside, the folder
// for temporary files is not, and /run, /dev and the machine id are its own. It
// dies with the process that started it.
type Systemd struct {
	options SystemdOptions
	dir     string // units, notify socket, log pipe; the same path inside and outside
	cmd     *exec.Cmd
	done    chan struct{} // closed when PID 1 is over
	log     *tail
	pipe    *os.File      // our end of the log; the copying ends when every writer's is closed
	copied  chan struct{} // closed when it has
	scope   *os.File      // the cgroup in which commands run
}

// StartSystemd boots a system and returns when it is up. ctx bounds the start,
// not the system's life. It needs root and the Debian packages systemd,
// util-linux and mount; the machine's own init may be any.
func StartSystemd(ctx context.Context, options SystemdOptions) (*Systemd, error) {
	if options.Cgroup == "" {
		return nil, errors.New("systemd: no cgroup to run in was given")
	}
	program, err := findSystemd()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "chaperone-lab-systemd-")
	if err != nil {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	s := &Systemd{options: options, dir: dir, log: &tail{next: options.Log}}
	if err := s.boot(ctx, program); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func findSystemd() (string, error) {
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("systemd is not installed (Debian package systemd)")
}

// PID is that of the system's PID 1, as the caller sees it.
func (s *Systemd) PID() int { return s.cmd.Process.Pid }

// CgroupPath is the caller's path of what is the cgroup root inside.
func (s *Systemd) CgroupPath() string { return s.options.Cgroup }

// Command prepares a program to run inside, as root, in the cgroup of
// init.scope. Killing it by ctx kills what it started in its process group.
func (s *Systemd) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(s.PID()),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name}, args...)...)
	cmd.Env = append(systemdEnv(), "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(s.scope.Fd()), Setpgid: true}
	// nsenter waits for a child in the pid namespace, and wouldn't pass the
	// signal on.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Systemctl runs systemctl inside and returns what it prints.
func (s *Systemd) Systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := s.Command(ctx, "systemctl", args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("systemctl %s: %w: %s\n%s", strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()), s.log)
	}
	return out.String(), nil
}

// WriteUnit writes a unit file or drop-in, and makes systemd read it.
func (s *Systemd) WriteUnit(ctx context.Context, name, text string) error {
	if err := s.writeUnit(name, text); err != nil {
		return err
	}
	_, err := s.Systemctl(ctx, "daemon-reload")
	return err
}

// Stop kills every process of the system at once, without stopping units, and
// removes what it made, the cgroups below the given one as well.
func (s *Systemd) Stop(ctx context.Context) error {
	if s.done != nil {
		_ = s.cmd.Process.Kill() // the error is that it is over, which done says too
		select {
		case <-s.done:
		case <-ctx.Done():
			return fmt.Errorf("systemd is being killed: %w", ctx.Err())
		}
	}
	if s.scope != nil {
		s.scope.Close()
	}
	if s.pipe != nil {
		s.pipe.Close()
		<-s.copied
	}
	entries, err := os.ReadDir(s.options.Cgroup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("systemd: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			below := Cgroup{Path: filepath.Join(s.options.Cgroup, entry.Name())}
			if err := below.Remove(ctx); err != nil {
				return fmt.Errorf("systemd: %w", err)
			}
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	return nil
}

func (s *Systemd) writeUnit(name, text string) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("systemd: %q is no unit's name", name)
	}
	path := filepath.Join(s.dir, "units", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("systemd: unit %s: %w", name, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("systemd: unit %s: %w", name, err)
	}
	return nil
}

// boot furnishes the folder, starts PID 1, and waits until it is up.
func (s *Systemd) boot(ctx context.Context, program string) error {
	if err := s.furnish(); err != nil {
		return err
	}
	// A system's manager says over this socket when the boot is finished
	// (sd_notify(3)).
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(s.dir, "notify"), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	defer notify.Close()
	if err := s.start(program); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() { ready <- waitReady(notify) }()
	select {
	case err = <-ready:
	case <-s.done:
		err = errors.New("it ended")
	case <-ctx.Done():
		err = ctx.Err()
	}
	notify.Close() // ends waitReady
	if err != nil {
		return fmt.Errorf("systemd didn't come up: %w\n%s", err, s.log)
	}
	if s.scope, err = os.Open(filepath.Join(s.options.Cgroup, "init.scope")); err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	return nil
}

func waitReady(notify *net.UnixConn) error {
	message := make([]byte, 4096)
	for {
		n, err := notify.Read(message)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(message[:n]) {
			if string(bytes.TrimSpace(line)) == "READY=1" {
				return nil
			}
		}
	}
}

// baseUnits are what every service depends on by default.
func baseUnits() map[string]string {
	return map[string]string{
		"sysinit.target":  "[Unit]\nDefaultDependencies=no\n",
		"basic.target":    "[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target\n",
		"default.target":  "[Unit]\nDefaultDependencies=no\nRequires=basic.target\nAfter=basic.target\n",
		"shutdown.target": "[Unit]\nDefaultDependencies=no\n",
	}
}

// furnish makes what the boot script expects in the folder.
func (s *Systemd) furnish() error {
	if err := os.Chmod(s.dir, 0o755); err != nil { // services may run as anyone
		return fmt.Errorf("systemd: %w", err)
	}
	for _, units := range []map[string]string{baseUnits(), s.options.Units} {
		for name, text := range units {
			if err := s.writeUnit(name, text); err != nil {
				return err
			}
		}
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	if err := os.WriteFile(filepath.Join(s.dir, "machine-id"), []byte(hex.EncodeToString(id)+"\n"), 0o444); err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "none"), 0o755); err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	return s.openLog()
}

// openLog makes the pipe that is the kernel's log inside, and copies from it.
func (s *Systemd) openLog() error {
	path := filepath.Join(s.dir, "kmsg")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	from, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	if s.pipe, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
		from.Close()
		return fmt.Errorf("systemd: %w", err)
	}
	s.copied = make(chan struct{})
	go func() {
		defer close(s.copied)
		defer from.Close()
		_, _ = io.Copy(s.log, from) // ends with the last writer
	}()
	return nil
}

// bootScript runs as PID 1 and becomes systemd. What systemd would change on
// a machine is out of its reach: /proc/sys, /sys and the files are read-only,
// and so is the rest of the cgroup hierarchy, which isn't there. The cgroup is
// bound, not mounted anew: a cgroup namespace has a file system instance of
// its own, whose changes inotify on the machine's one doesn't tell.
const bootScript = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/cgroup /run/dev
mount --bind "$LAB_CGROUP" /run/cgroup
if [ -n "$LAB_SHARED" ]; then # one network namespace has one sysfs
	mount -o remount,bind,ro /sys
else
	mount -t sysfs -o ro sysfs /sys
fi
mount --move /run/cgroup /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run/dev
mkdir /run/dev/shm /run/dev/pts
for device in null zero full random urandom tty; do
	: >/run/dev/$device
	mount --bind /dev/$device /run/dev/$device
done
: >/run/dev/kmsg
mount --bind "$LAB_DIR/kmsg" /run/dev/kmsg
ln -s /proc/self/fd /run/dev/fd
mount --move /run/dev /dev
rmdir /run/cgroup
if [ -e /etc/machine-id ]; then mount --bind "$LAB_DIR/machine-id" /etc/machine-id; fi
if [ -d /etc/systemd ]; then mount --bind "$LAB_DIR/none" /etc/systemd; fi
mount --bind "$LAB_TMP" "$LAB_TMP"
mount --rbind /etc /etc # may be a mount of its own
mount -o remount,bind,ro /etc
mount -o remount,bind,ro /
exec "$@"
`

// start starts PID 1. The goroutine that waits for it is also the one that
// started it, on a thread of its own: the parent-death signal is sent when the
// thread that forked is gone (prctl(2), PR_SET_PDEATHSIG).
func (s *Systemd) start(program string) error {
	folder, err := os.Open(s.options.Cgroup)
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	defer folder.Close()
	units := filepath.Join(s.dir, "units")
	none := filepath.Join(s.dir, "none")
	// The cgroup namespace is made by the process itself: its root is where
	// the process is at that moment, and clone's would be where we are.
	s.cmd = exec.Command("unshare", "--cgroup", "--", "/bin/sh", "-c", bootScript, "boot",
		"env", "-u", "LAB_DIR", "-u", "LAB_CGROUP", "-u", "LAB_TMP", "-u", "LAB_SHARED", program,
		"--default-standard-output=null", "--default-standard-error=null")
	s.cmd.Env = append(systemdEnv(), "container=chaperone-lab",
		"SYSTEMD_UNIT_PATH="+units+":/run/systemd/system:/run/systemd/transient",
		"SYSTEMD_GENERATOR_PATH="+none, "SYSTEMD_ENVIRONMENT_GENERATOR_PATH="+none,
		"SYSTEMD_LOG_TARGET=kmsg", "SYSTEMD_LOG_LEVEL=info", "NOTIFY_SOCKET="+filepath.Join(s.dir, "notify"),
		"LAB_DIR="+s.dir, "LAB_CGROUP="+s.options.Cgroup, "LAB_TMP="+os.TempDir())
	s.cmd.Stdout, s.cmd.Stderr = s.pipe, s.pipe // what the script says
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(folder.Fd()),
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	if s.options.SharedNetwork {
		s.cmd.Env = append(s.cmd.Env, "LAB_SHARED=yes")
	} else {
		s.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	done := make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = s.cmd.Wait() // how it ended is of no use: it is killed
		close(done)
	}()
	if err := <-started; err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("start systemd: new namespaces need CAP_SYS_ADMIN, run as root: %w", err)
		}
		return fmt.Errorf("start systemd: %w", err)
	}
	s.done = done
	return nil
}

func systemdEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
}
