package approval

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrInUse is wrapped when another process has the requests open.
var ErrInUse = errors.New("another process has them open")

var (
	requestsBucket = []byte("requests.v1")
	clockBucket    = []byte("clock.v1")
	latestKey      = []byte("latest")
)

// disk keeps entries. What put returned for is there after a crash.
type disk struct{ db *bbolt.DB }

// kept is an entry as it is kept.
type kept struct {
	Record Record             `json:"record"`
	Kind   string             `json:"kind,omitempty"`
	Votes  []authority.Signed `json:"votes,omitempty"`
	Seen   [][]byte           `json:"seen,omitempty"`
	Grant  time.Time          `json:"grant,omitzero"`
}

func openDisk(dir string) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("requests for approval: %w", err)
	}
	path := filepath.Join(dir, "approvals.db")
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("requests for approval %s: others may write to it (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("requests for approval %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("requests for approval %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(requestsBucket)
		_, err2 := tx.CreateBucketIfNotExists(clockBucket)
		return errors.Join(err, err2)
	})
	if err == nil {
		err = syncDir(dir) // the file's name must survive too
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("requests for approval %s: %w", path, err), db.Close())
	}
	return &disk{db}, nil
}

// put keeps the entry, and how late it is.
func (d *disk) put(e *entry, now time.Time) error {
	k := kept{Record: e.record, Kind: e.kind, Votes: e.votes, Grant: e.grant}
	for s := range e.seen {
		k.Seen = append(k.Seen, slices.Clone(s[:]))
	}
	value, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("request %s: %w", e.record.Request.ID, err)
	}
	late, err := now.UTC().MarshalBinary()
	if err != nil {
		return fmt.Errorf("request %s: %w", e.record.Request.ID, err)
	}
	err = d.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.Bucket(requestsBucket).Put([]byte(e.record.Request.ID), value), tx.Bucket(clockBucket).Put(latestKey, late))
	})
	if err != nil {
		return fmt.Errorf("keeping request %s: %w", e.record.Request.ID, err)
	}
	return nil
}

func (d *disk) remove(ids ...string) error {
	return d.db.Update(func(tx *bbolt.Tx) error {
		for _, id := range ids {
			if err := tx.Bucket(requestsBucket).Delete([]byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// read returns all entries, and how late it was at the last put.
func (d *disk) read() (all []kept, latest time.Time, err error) {
	err = d.db.View(func(tx *bbolt.Tx) error {
		if late := tx.Bucket(clockBucket).Get(latestKey); late != nil {
			if err := latest.UnmarshalBinary(late); err != nil {
				return err
			}
		}
		return tx.Bucket(requestsBucket).ForEach(func(id, value []byte) error {
			var k kept
			if err := json.Unmarshal(value, &k); err != nil {
				return fmt.Errorf("request %s: %w", id, err)
			}
			all = append(all, k)
			return nil
		})
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("requests for approval: %w", err)
	}
	return all, latest, nil
}

func (d *disk) close() error { return d.db.Close() }

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// load reads back what the broker before this one left.
func (b *Broker) load() error {
	all, latest, err := b.disk.read()
	if err != nil {
		return err
	}
	now := b.opts.Clock.Latest()
	// Clocks differ a little after a restart. More means that it was set
	// back while no clock but the machine's ran, and then nothing that stands can be
	// told from what is over.
	back := now.Before(latest.Add(-skew))
	if back && len(all) > 0 {
		b.opts.Log.Warn().Time("now", now).Time("before", latest).Msg("the clock was set back: approvals that were given before do not count any more")
	}
	b.mu.Lock()
	defer b.mu.Unlock() // what there is to tell waits for Run
	for _, k := range all {
		b.restore(k, now, back)
	}
	return nil
}

// restore takes one entry back. Its state is believed where it says that
// something is over; that something was approved is believed of signed votes alone.
func (b *Broker) restore(k kept, now time.Time, back bool) {
	e := &entry{record: k.Record, kind: k.Kind, seen: map[digest]bool{}, stored: make(chan struct{}), ended: make(chan struct{})}
	close(e.stored)
	for _, s := range k.Seen {
		if len(s) == len(digest{}) {
			e.seen[digest(s)] = true
		}
	}
	r := k.Record.Request
	var last time.Time
	for _, s := range k.Votes {
		var v Vote
		if b.opts.Keys.Verify(SignedVote, s, &v) == nil {
			e.votes, e.cast = append(e.votes, s), append(e.cast, v)
			if v.At.After(last) {
				last = v.At
			}
		}
	}
	b.all[r.ID] = e
	outcome, _ := Decide(r, e.cast, last) // as it was when the last one was given
	approved := outcome == StateApproved && !back
	until := b.granted(e, last)
	if k.Grant.Before(until) {
		until = k.Grant
	}
	if approved && now.Before(until) {
		e.grant = until
		b.grants[grantKey(r, e.kind)] = e
	}
	switch e.record.State {
	case StatePending:
		b.pending++
		switch {
		case !r.retried():
			b.cancel(e, "the node restarted")
		case back:
			b.cancel(e, "the node's clock was set back")
		default:
			b.retries[retryKey(r)] = e
			b.timeOut(e, now)
		}
	case StateApproved:
		if !r.retried() || !approved {
			b.cancel(e, "its votes do not count any more")
			return
		}
		b.retries[retryKey(r)] = e
		b.timeOut(e, now)
	case StateDenied:
		if r.retried() && now.Before(r.Expires) {
			b.retries[retryKey(r)] = e
			return
		}
		b.finish(e)
	default:
		b.finish(e)
	}
}
