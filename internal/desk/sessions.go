package desk

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"chaperone.dev/chaperone/internal/approval"
)

const maxSessions = 2000

// session is one login at the page.
type session struct {
	person  approval.Person
	csrf    string
	expires time.Time
	ended   chan struct{} // closed at the logout
}

// sessions are kept in memory: a sink that starts anew asks people to log in.
type sessions struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]*session // by the hash of the cookie's value
}

func newSessions() *sessions { return &sessions{all: map[[sha256.Size]byte]*session{}} }

// begin makes a session and returns its cookie's value. When there are too
// many, the one that would end first makes room.
func (s *sessions) begin(p approval.Person, expires, now time.Time) string {
	value := rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxSessions {
		var first [sha256.Size]byte
		var found *session
		for key, old := range s.all {
			if !now.Before(old.expires) {
				s.end(key)
			} else if found == nil || old.expires.Before(found.expires) {
				first, found = key, old
			}
		}
		if len(s.all) >= maxSessions {
			s.end(first)
		}
	}
	s.all[sha256.Sum256([]byte(value))] = &session{person: p, csrf: rand.Text(), expires: expires, ended: make(chan struct{})}
	return value
}

// find returns the session of a cookie, or nil.
func (s *sessions) find(value string, now time.Time) *session {
	key := sha256.Sum256([]byte(value))
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.all[key]
	if found != nil && !now.Before(found.expires) {
		s.end(key)
		return nil
	}
	return found
}

// forget ends the session of a cookie.
func (s *sessions) forget(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(sha256.Sum256([]byte(value)))
}

func (s *sessions) end(key [sha256.Size]byte) {
	if found := s.all[key]; found != nil {
		close(found.ended)
		delete(s.all, key)
	}
}
