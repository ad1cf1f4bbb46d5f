package lock

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"github.com/nats-io/nats.go/jetstream"
)

var (
	// ErrNotFound: there is no lock with the id.
	ErrNotFound = errors.New("there is no such lock")
	// ErrOver: it has expired, or was released.
	ErrOver = errors.New("the lock is over")
	// ErrInvalid: it locks nothing, or for no time.
	ErrInvalid = errors.New("that is no lock")
)

// maxText bounds each text of a lock.
const maxText = 1024

// NewID returns an id for a lock.
func NewID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "l-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// Put signs the lock and stores it. A lock without an id gets one; Created
// left out is now.
func Put(ctx context.Context, kv jetstream.KeyValue, signer *authority.Signer, l Lock) (Entry, error) {
	if l.ID == "" {
		l.ID = NewID()
	}
	if l.Created.IsZero() {
		l.Created = time.Now().UTC()
	}
	if err := l.check(); err != nil {
		return Entry{}, err
	}
	e := Entry{Lock: l}
	value, err := e.seal(signer)
	if err != nil {
		return Entry{}, err
	}
	if _, err := kv.Create(ctx, l.ID, value); err != nil {
		return Entry{}, fmt.Errorf("storing lock %s: %w", l.ID, err)
	}
	return e, nil
}

// maxReleases bounds the attempts to release a lock that others change.
const maxReleases = 8

// Release signs that the lock is ended before its time, and stores that. It
// fails with [ErrNotFound], or [ErrOver] and the entry. The reason is added
// to the lock's own.
func Release(ctx context.Context, kv jetstream.KeyValue, signer *authority.Signer, keys authority.Keys, id string, by approval.Person, reason string, at time.Time) (Entry, error) {
	for range maxReleases {
		e, revision, err := read(ctx, kv, keys, id)
		if err != nil {
			return Entry{}, err
		}
		if e.Released != nil || !at.Before(e.Lock.Expires) {
			return e, fmt.Errorf("%s: %w", id, ErrOver)
		}
		e.Released, e.ReleasedBy, e.ReleaseReason = &at, &by, reason
		if len(reason) > maxText {
			return Entry{}, fmt.Errorf("the reason is longer than %d bytes: %w", maxText, ErrInvalid)
		}
		value, err := e.seal(signer)
		if err != nil {
			return Entry{}, err
		}
		_, err = kv.Update(ctx, id, value, revision)
		if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			continue
		}
		if err != nil {
			return Entry{}, fmt.Errorf("releasing lock %s: %w", id, err)
		}
		return e, nil
	}
	return Entry{}, fmt.Errorf("releasing lock %s: others change it at the same time; try again", id)
}

// All returns the locks of the bucket that the authority signed, newest first,
// with those that are over.
func All(ctx context.Context, kv jetstream.KeyValue, keys authority.Keys) ([]Entry, error) {
	watch, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("reading locks: %w", err)
	}
	defer func() { _ = watch.Stop() }()
	all := []Entry{}
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reading locks: %w", context.Cause(ctx))
		case v, ok := <-watch.Updates():
			if !ok {
				return nil, errors.New("reading locks: the connection to NATS ended")
			}
			if v == nil {
				slices.SortFunc(all, func(a, b Entry) int { return b.Lock.Created.Compare(a.Lock.Created) })
				return all, nil
			}
			if e, err := Decode(keys, v.Key(), v.Value()); err == nil {
				all = append(all, e)
			}
		}
	}
}

// Remove takes an entry that is over for longer than keep out of the bucket.
// Entries have no time of their own there, so that no lock ends by the bucket's clock.
func Remove(ctx context.Context, kv jetstream.KeyValue, e Entry, keep time.Duration, now time.Time) (bool, error) {
	if now.Before(e.Lock.Expires.Add(keep)) {
		return false, nil
	}
	if err := kv.Delete(ctx, e.Lock.ID); err != nil {
		return false, fmt.Errorf("removing lock %s: %w", e.Lock.ID, err)
	}
	return true, nil
}

// Decode reads and verifies a value of the bucket.
func Decode(keys authority.Keys, id string, value []byte) (Entry, error) {
	var s authority.Signed
	if err := json.Unmarshal(value, &s); err != nil {
		return Entry{}, fmt.Errorf("lock %s can't be read: %w", id, err)
	}
	var e Entry
	if err := keys.Verify(Signed, s, &e); err != nil {
		return Entry{}, fmt.Errorf("lock %s: %w", id, err)
	}
	if e.Lock.ID != id {
		return Entry{}, fmt.Errorf("lock %s is kept in the place of %s: %w", e.Lock.ID, id, ErrInvalid)
	}
	if err := e.Lock.check(); err != nil {
		return Entry{}, fmt.Errorf("lock %s: %w", id, err)
	}
	return e, nil
}

func read(ctx context.Context, kv jetstream.KeyValue, keys authority.Keys, id string) (Entry, uint64, error) {
	v, err := kv.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return Entry{}, 0, fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	if err != nil {
		return Entry{}, 0, fmt.Errorf("reading lock %s: %w", id, err)
	}
	e, err := Decode(keys, id, v.Value())
	return e, v.Revision(), err
}

// seal is the entry's value in the bucket.
func (e Entry) seal(signer *authority.Signer) ([]byte, error) {
	s, err := signer.Sign(Signed, e)
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

func (l Lock) check() error {
	switch {
	case !validID(l.ID):
		return fmt.Errorf("its id is %q: %w", l.ID, ErrInvalid)
	case l.Principal == "" && l.Workload == "" && l.Target == "" && l.Session == "":
		return fmt.Errorf("it names no principal, workload, target or session: %w", ErrInvalid)
	case len(l.Principal) > maxText || len(l.Workload) > maxText || len(l.Target) > maxText || len(l.Session) > maxText || len(l.Reason) > maxText:
		return fmt.Errorf("one of its texts is longer than %d bytes: %w", maxText, ErrInvalid)
	case !l.Expires.After(l.Created):
		return fmt.Errorf("it ends before it begins: %w", ErrInvalid)
	}
	return nil
}

// validID tells whether it is an id as [NewID] makes them.
func validID(id string) bool {
	rest, ok := strings.CutPrefix(id, "l-")
	if !ok || len(rest) != 16 {
		return false
	}
	for _, c := range rest {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
