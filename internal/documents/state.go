package documents

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"chaperone.dev/chaperone/internal/authority"
)

// The files of a [Source]'s state. Each holds a bucket's value, signature and all.
const (
	newestFile = "newest.json" // that with the highest serial
	goodFile   = "good.json"   // the last one that loaded with the folder's documents
)

// kept is a bundle, and the value that it was read from.
type kept struct {
	bundle Bundle
	value  []byte
}

// state is the folder in which bundles are kept.
type state struct {
	dir  string
	keys authority.Keys
	good uint64 // serial of goodFile's bundle, once it is known
}

// read returns a bundle that was kept, or nil. One that doesn't count any more is
// no reason to go on without: it may hold the masks.
func (s *state) read(name string) (*kept, error) {
	path := filepath.Join(s.dir, name)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the published documents of before: %w", err)
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("the published documents of before: %w", err)
	}
	b, err := open(value, s.keys)
	if err != nil {
		return nil, fmt.Errorf("the published documents of before, in %s: %w; is a key missing in the Node document's spec.authority.keys? "+
			"Remove the folder to start without them", path, err)
	}
	return &kept{bundle: b, value: value}, nil
}

// keepNewest makes sure that nothing older is ever taken.
func (s *state) keepNewest(k *kept) error { return s.write(newestFile, k.value) }

// keepGood notes the bundle that is in force; nil is none.
func (s *state) keepGood(k *kept) error {
	if k == nil || k.bundle.Serial == s.good {
		return nil
	}
	if err := s.write(goodFile, k.value); err != nil {
		return err
	}
	s.good = k.bundle.Serial
	return nil
}

// write replaces a file, whole or not at all.
func (s *state) write(name string, data []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("keeping published documents: %w", err)
	}
	f, err := os.CreateTemp(s.dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keeping published documents: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err == nil {
		err = syncFolder(s.dir)
	}
	if err != nil {
		return fmt.Errorf("keeping published documents: %w", err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
