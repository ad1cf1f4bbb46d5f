package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Where every OpenSSH client looks (ssh_config(5), GlobalKnownHostsFile).
const (
	sshFolder     = "/etc/ssh"
	sshKnownHosts = "ssh_known_hosts"
)

// ShowKnownHosts adds the file's lines to the machine's known hosts, for this
// process and its children only. OpenSSH has no environment variable for
// that, so it takes a mount namespace, and so privilege: without it, or
// without OpenSSH on the machine, nothing is done.
func ShowKnownHosts(path string) error {
	if path == "" || !effective(unix.CAP_SYS_ADMIN) {
		return nil
	}
	entries, err := os.ReadDir(sshFolder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("known hosts: %w", err)
	}
	lines, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("known hosts: %w", err)
	}
	known, err := os.ReadFile(filepath.Join(sshFolder, sshKnownHosts))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("known hosts: %w", err)
	}
	if err := coverFolder(sshFolder, entries); err != nil {
		return fmt.Errorf("known hosts: %w", err)
	}
	if len(known) > 0 && known[len(known)-1] != '\n' {
		known = append(known, '\n')
	}
	if err := os.WriteFile(filepath.Join(sshFolder, sshKnownHosts), append(known, lines...), 0o644); err != nil {
		return fmt.Errorf("known hosts: %w", err)
	}
	return nil
}

// coverFolder lays a folder over another one, in a mount namespace of this
// thread's own, and shows the entries in it that were there, all but the
// known hosts: the machine's own folder is never written to.
func coverFolder(folder string, entries []fs.DirEntry) error {
	if err := privateMounts(); err != nil {
		return err
	}
	below, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if name == sshKnownHosts {
			continue
		}
		source := fmt.Sprintf("/proc/self/fd/%d/%s", below, name)
		if err := show(source, filepath.Join(folder, name), entry); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func show(source, at string, entry fs.DirEntry) error {
	switch {
	case entry.Type()&fs.ModeSymlink != 0:
		to, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return os.Symlink(to, at)
	case entry.IsDir():
		if err := os.Mkdir(at, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return err
		}
	}
	return unix.Mount(source, at, "", unix.MS_BIND|unix.MS_REC, "")
}
