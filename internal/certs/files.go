package certs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// keyDir makes a folder for keys, or checks the one that is there: nobody
// else may be able to put files into it.
func keyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("key folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("key folder: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("key folder: %s is no folder", dir)
	}
	return private(dir, info, 0o022, "chmod 700")
}

// private checks that a file or folder is root's or ours and has none of the
// mode bits in forbidden.
func private(path string, info fs.FileInfo, forbidden fs.FileMode, remedy string) error {
	if mode := info.Mode().Perm(); mode&forbidden != 0 {
		return fmt.Errorf("%s has mode %04o, which lets others at it: %s it, and make new keys if others may have been there", path, mode, remedy)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d, not to root or the daemon's user", path, st.Uid)
	}
	return nil
}

// readKey reads a file that must be its owner's alone. A missing one is
// fs.ErrNotExist.
func readKey(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file: %s is no regular file", path)
	}
	if err := private(path, info, 0o077, "chmod 600"); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	const limit = 64 << 10
	content, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return content, nil
}

// loadOrCreate reads a key file, and makes it if it is missing. Of two
// processes that make it at once, both get what the first one wrote.
func loadOrCreate(path string, generate func() ([]byte, error)) ([]byte, error) {
	content, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return content, err
	}
	if content, err = generate(); err != nil {
		return nil, err
	}
	// A link, unlike a rename, doesn't replace what is there.
	err = writeTemp(path, content, 0o600, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return readKey(path)
	}
	return content, err
}

// replace writes a file so that a reader sees the old or the new content.
func replace(path string, content []byte, mode fs.FileMode) error {
	return writeTemp(path, content, mode, os.Rename)
}

// writeTemp writes to a new file beside path, syncs it, and has place put it
// there.
func writeTemp(path string, content []byte, mode fs.FileMode, place func(from, to string) error) error {
	temp := path + "." + rand.Text()[:8]
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp) // gone already after a rename
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := place(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
