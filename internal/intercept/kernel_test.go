package intercept

import (
	"time"

	"chaperone.dev/chaperone/bpf"
)

func bridgeEntries(i *Interceptor) ([]bpf.InterceptTuple, error) {
	var (
		all   []bpf.InterceptTuple
		key   bpf.InterceptTuple
		value bpf.InterceptOrigin
	)
	entries := i.objects.Bridge.Iterate()
	for entries.Next(&key, &value) {
		all = append(all, key)
	}
	return all, entries.Err()
}

func (i *Interceptor) pending(id uint64) (int32, error) {
	var m bpf.InterceptMember
	err := i.objects.Members.Lookup(id, &m)
	return m.Pending, err
}

// lastMoment is a deadline that has passed.
func (w *world) lastMoment() time.Time { return time.Unix(1, 0) }
