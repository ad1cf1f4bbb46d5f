package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CoverFile puts another content in a file's place, for all processes of the calling
// one's mount namespace, until undo is called. Inside of [Isolate] the machine's
// own file is not touched.
func CoverFile(path, text string) (undo func() error, err error) {
	// The mount keeps the file, and the file system that it is the only one of, alive. A
	// file whose name was removed could not be covered again.
	dir, err := os.MkdirTemp("", "chaperone-lab-file-")
	if err != nil {
		return nil, fmt.Errorf("cover %s: %w", path, err)
	}
	defer os.Remove(dir)
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return nil, fmt.Errorf("cover %s: %w", path, err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file := filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("cover %s: %w", path, err)
	}
	if err := os.Chmod(file, 0o644); err != nil { // whatever the umask
		return nil, fmt.Errorf("cover %s: %w", path, err)
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("cover %s: %w", path, err)
	}
	return func() error {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("uncover %s: %w", path, err)
		}
		return nil
	}, nil
}
