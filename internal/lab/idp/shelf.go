package idp

import (
	"fmt"
	"maps"
	"time"
)

// shelf keeps things until they expire, up to a number. Its owner locks it.
type shelf[T any] struct {
	kind  string // for errors
	limit int
	items map[string]item[T]
}

type item[T any] struct {
	value   T
	expires time.Time
}

func newShelf[T any](kind string, limit int) shelf[T] {
	return shelf[T]{kind: kind, limit: limit, items: make(map[string]item[T])}
}

// put adds a thing or replaces it.
func (s *shelf[T]) put(id string, value T, expires time.Time) error {
	if _, replaces := s.items[id]; !replaces && len(s.items) >= s.limit {
		now := time.Now()
		maps.DeleteFunc(s.items, func(_ string, i item[T]) bool { return !now.Before(i.expires) })
		if len(s.items) >= s.limit {
			return fmt.Errorf("%d %s are kept already, and none has expired", s.limit, s.kind)
		}
	}
	s.items[id] = item[T]{value, expires}
	return nil
}

func (s *shelf[T]) get(id string) (item[T], bool) {
	i, ok := s.items[id]
	return i, ok && time.Now().Before(i.expires)
}

// take gets a thing for the last time.
func (s *shelf[T]) take(id string) (item[T], bool) {
	i, ok := s.get(id)
	delete(s.items, id)
	return i, ok
}
