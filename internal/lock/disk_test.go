package lock_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
	"chaperone.dev/chaperone/internal/lock"
)

// A lock whose key is not trusted for a while holds again when it is.
func TestKeyThatIsGone(t *testing.T) {
	w := newWorld(t)
	other, err := authority.OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	over := job("over")
	over.Created, over.Expires = over.Created.Add(-2*time.Hour), over.Expires.Add(-2*time.Hour)
	theirs := sealed(t, other, lock.Signed, lock.Entry{Lock: job("theirs")})
	if err := os.WriteFile(w.file(), fmt.Appendf(nil, "[%s,%s]", theirs, sealed(t, other, lock.Signed, lock.Entry{Lock: over})), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.matches("theirs", false)
	w.after() // which has the disk written
	w.stop()
	content, err := os.ReadFile(w.file())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(content), authority.KeyID(other.Public())); n != 1 {
		t.Errorf("%d entries of the other key are on the disk, want the one that is not over: %s", n, content)
	}
	w.keys = append(w.keys, other.Public())
	w.keeper = w.open()
	w.matches("theirs", true)
}

// What is over for long leaves the bucket, from the authority's side alone.
func TestTidy(t *testing.T) {
	w := newWorld(t)
	old, recent, held := job("old"), job("recent"), job("held")
	old.Created, old.Expires = old.Created.Add(-100*time.Hour), old.Expires.Add(-100*time.Hour)
	recent.Created, recent.Expires = recent.Created.Add(-10*time.Hour), recent.Expires.Add(-10*time.Hour)
	for _, l := range []lock.Lock{old, recent, held} {
		w.store(l.ID, sealed(t, w.signer, lock.Signed, lock.Entry{Lock: l}))
	}
	w.change = func(o *lock.Options) {
		o.KV, o.Restore, o.Keep = bus.BucketsOf(w.connect(bus.RoleSink)).Locks, true, 48*time.Hour
	}
	w.start()
	w.next("applied", held.ID)
	deadline := time.Now().Add(30 * time.Second)
	for {
		all, err := lock.All(t.Context(), w.sink, w.keys)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 2 && all[0].Lock.ID == held.ID && all[1].Lock.ID == recent.ID {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the bucket holds %+v", all)
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.matches("held", true)
}
