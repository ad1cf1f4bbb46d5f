package intercept

import (
	"errors"

	"github.com/cilium/ebpf"
)

// contents returns what a map holds. What is changed meanwhile may be missing, so nobody
// else changes it.
func contents[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	var (
		key   K
		value V
	)
	all := map[K]V{}
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		all[key] = value
	}
	return all, entries.Err()
}

// remove deletes from a map; what isn't there is no error.
func remove(m *ebpf.Map, key any) error {
	if err := m.Delete(key); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// retain removes what a map holds and keep doesn't want.
func retain[K comparable, V any](m *ebpf.Map, keep func(K, V) bool) error {
	all, err := contents[K, V](m)
	if err != nil {
		return err
	}
	for key, value := range all {
		if keep(key, value) {
			continue
		}
		if err := remove(m, key); err != nil {
			return err
		}
	}
	return nil
}
