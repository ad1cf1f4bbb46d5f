package lock

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"chaperone.dev/chaperone/internal/authority"
)

// load reads the disk. What is there and can't be read is an error: to go on
// would be to release it.
func (k *Keeper) load() error {
	content, err := os.ReadFile(k.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var all []authority.Signed
	if err == nil {
		if err := json.Unmarshal(content, &all); err != nil {
			return fmt.Errorf("%s can't be read; put it right, or remove it to give up the locks in it: %w", k.path, err)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range all {
		var e Entry
		err := k.opts.Keys.Verify(Signed, s, &e)
		if err == nil {
			err = e.Lock.check()
		}
		if err != nil {
			// Unverified, this time decides about nothing but the entry itself.
			if unproved := (Entry{}); json.Unmarshal(s.Payload, &unproved) == nil && !unproved.Lock.Expires.IsZero() && !k.opts.Clock.Earliest().Before(unproved.Lock.Expires) {
				continue
			}
			k.opts.Log.Error().Err(err).Str("file", k.path).Str("key", s.Key).
				Msg("a lock on the disk is not in force; it stays there, for when the key is trusted again")
			k.foreign = append(k.foreign, s)
			continue
		}
		k.take(e, s)
	}
	return nil
}

// save writes the disk when it is behind.
func (k *Keeper) save() error {
	k.mu.Lock()
	if !k.dirty || k.drained {
		k.mu.Unlock()
		return nil
	}
	k.dirty = false
	all := slices.Clone(k.foreign)
	for _, e := range k.kept {
		all = append(all, e.signed)
	}
	k.mu.Unlock()
	content, err := json.Marshal(all)
	if err == nil {
		err = replace(k.path, content)
	}
	if err != nil {
		k.mu.Lock()
		k.dirty = true // the next tick tries again
		k.mu.Unlock()
	}
	return err
}

// replace writes a file so that a crash leaves the old or the new one.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after a rename
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
