package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Ledger is the durable list of accounts that exist or may exist at targets.
// It holds no secret. Every change is on disk when its method returns. Safe
// for concurrent use; one process has it open at a time.
type Ledger struct {
	db *bbolt.DB
}

var entriesBucket = []byte("entries.v1")

// ErrLedgerInUse is wrapped when another process has the ledger open.
var ErrLedgerInUse = errors.New("another process has the ledger open")

// OpenLedger opens the file, or makes it with mode 0600.
func OpenLedger(path string) (*Ledger, error) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("credential ledger %s: others may write to it (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("credential ledger %s: %w", path, ErrLedgerInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("credential ledger %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(entriesBucket)
		return err
	})
	if err == nil {
		err = syncDir(filepath.Dir(path)) // the file's name must survive too
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("credential ledger %s: %w", path, err), db.Close())
	}
	return &Ledger{db: db}, nil
}

// Put adds or replaces an entry.
func (l *Ledger) Put(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("credential ledger: entry %s: %w", e.ID, err)
	}
	err = l.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(entriesBucket).Put([]byte(e.ID), line)
	})
	if err != nil {
		return fmt.Errorf("credential ledger: entry %s: %w", e.ID, err)
	}
	return nil
}

// Delete removes an entry. One that isn't there is no error.
func (l *Ledger) Delete(id string) error {
	err := l.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(entriesBucket).Delete([]byte(id))
	})
	if err != nil {
		return fmt.Errorf("credential ledger: entry %s: %w", id, err)
	}
	return nil
}

// Entries returns all entries.
func (l *Ledger) Entries() ([]Entry, error) {
	var all []Entry
	err := l.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(entriesBucket).ForEach(func(id, line []byte) error {
			var e Entry
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("entry %s: %w", id, err)
			}
			all = append(all, e)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("credential ledger: %w", err)
	}
	return all, nil
}

// Close closes the file.
func (l *Ledger) Close() error { return l.db.Close() }

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
