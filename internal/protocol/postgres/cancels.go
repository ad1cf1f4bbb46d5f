package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
)

// CancelKey is what a client shows to cancel what its session runs.
type CancelKey struct {
	Process uint32
	Secret  []byte
}

// Cancels knows which cancel key belongs to which session. The zero value is
// ready for use, by many goroutines.
type Cancels struct {
	mu       sync.Mutex
	sessions map[uint32][]*cancelTarget // by process; servers of two targets may have one of the same id
	known    int
}

type cancelTarget struct {
	secret  []byte
	owner   string
	up      *Upstream
	holding *holding
	busy    bool // a request is on its way
}

// maxCancels bounds the sessions that are known at once. A session beyond it
// works, but can't be cancelled.
const maxCancels = 1 << 16

// ErrUnknownKey is returned by [Cancels.Cancel] for a key of no session, or of
// another owner's. PostgreSQL closes such a connection without a word.
var ErrUnknownKey = errors.New("the cancel key belongs to no session")

// Cancel cancels what the key's session runs. owner must be the one that the
// session was registered with, so a key that leaked to another job is worth
// nothing. While one request is on its way others for the session are dropped.
func (c *Cancels) Cancel(ctx context.Context, key CancelKey, owner string) error {
	c.mu.Lock()
	t := c.find(key, owner)
	if t == nil {
		c.mu.Unlock()
		return ErrUnknownKey
	}
	if t.busy {
		c.mu.Unlock()
		return nil
	}
	if t.holding.cancel() {
		c.mu.Unlock()
		return nil
	}
	t.busy = true
	c.mu.Unlock()

	err := t.up.Cancel(ctx)

	c.mu.Lock()
	t.busy = false
	c.mu.Unlock()
	return err
}

// find is the session of a key. Secrets are compared in constant time.
func (c *Cancels) find(key CancelKey, owner string) *cancelTarget {
	for _, t := range c.sessions[key.Process] {
		known := subtle.ConstantTimeCompare([]byte(t.owner), []byte(owner))
		if subtle.ConstantTimeCompare(t.secret, key.Secret)&known == 1 {
			return t
		}
	}
	return nil
}

// register makes a key for a session. Its process is the server's own, which the
// client may compare with what it is told by pg_backend_pid() and notifications. The
// secret has 4 bytes in protocol 3.0, which can't carry more, and 32 in 3.2.
// What is held is cancelled without asking the server, which has never seen it.
func (c *Cancels) register(minor uint16, owner string, up *Upstream, h *holding) (key CancelKey, unregister func()) {
	key.Process = up.process
	key.Secret = make([]byte, 4)
	if minor >= 2 {
		key.Secret = make([]byte, 32)
	}
	rand.Read(key.Secret)
	if c == nil {
		return key, func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known >= maxCancels {
		return key, func() {}
	}
	if c.sessions == nil {
		c.sessions = make(map[uint32][]*cancelTarget)
	}
	t := &cancelTarget{secret: key.Secret, owner: owner, up: up, holding: h}
	c.sessions[key.Process] = append(c.sessions[key.Process], t)
	c.known++
	return key, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known--
		left := slices.DeleteFunc(c.sessions[key.Process], func(other *cancelTarget) bool { return other == t })
		if c.sessions[key.Process] = left; len(left) == 0 {
			delete(c.sessions, key.Process)
		}
	}
}

// appendBackendKeyData tells the client its key.
func appendBackendKeyData(dst []byte, key CancelKey) []byte {
	dst, start := beginMessage(dst, msgBackendKeyData)
	dst = binary.BigEndian.AppendUint32(dst, key.Process)
	return endMessage(append(dst, key.Secret...), start)
}
