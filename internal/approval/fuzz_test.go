package approval

import (
	"crypto/ed25519"
	"encoding/json"
	"testing"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/pkg/event"
	"chaperone.dev/chaperone/pkg/policy"
	"github.com/rs/zerolog"
)

type machine struct{}

func (machine) Now() time.Time      { return time.Now() }
func (machine) Latest() time.Time   { return time.Now() }
func (machine) Earliest() time.Time { return time.Now() }

// Nothing that somebody writes into the bucket who doesn't have the authority's
// key decides a request: not made up, and not made of a vote on another one.
func FuzzVotes(f *testing.F) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := authority.NewSigner(key)
	if err != nil {
		f.Fatal(err)
	}
	b, err := Open(Options{
		Keys: authority.Keys{signer.Public()}, Cluster: "c1", Node: "n1", Clock: machine{}, Dir: f.TempDir(), Log: zerolog.Nop(),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = b.Close() })
	q := Question{
		Principal: event.Principal{Subject: "p", Issuer: "corp"}, Workload: event.Workload{Job: "j-1"}, Target: event.Target{Name: "t"},
		Digest: "d", Policy: "p", From: policy.PrincipalSelect{Subjects: []string{"*"}}, Within: maxWithin,
	}
	other, err := b.request(q, policy.ModeHold)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	vote := Vote{
		Request: other.ID, Cluster: "c1", Node: "n1", Digest: "d", Verdict: Yes,
		By: Person{Subject: "alice", Issuer: "corp"}, At: now, Until: now.Add(time.Hour),
	}
	signed, err := signer.Sign(SignedVote, vote)
	if err != nil {
		f.Fatal(err)
	}
	replayed, err := json.Marshal([]authority.Signed{signed})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(replayed), "", "[]", "null", "[null]", `[{"payload":{},"key":"","signature":""}]`, `{"payload":1}`, "[[]]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := b.request(q, policy.ModeHold)
		if err != nil {
			t.Fatal(err)
		}
		e := &entry{
			record: Record{Request: r, State: StatePending}, seen: map[digest]bool{},
			stored: make(chan struct{}), ended: make(chan struct{}),
		}
		b.mu.Lock()
		b.all[r.ID] = e
		b.mu.Unlock()
		b.voted(VotesKey("c1", "n1", r.ID), value)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.all, r.ID)
		if e.record.State != StatePending || len(e.cast) > 0 {
			t.Errorf("%q makes it %s", value, e.record.State)
		}
		if len(e.seen) > maxSeen {
			t.Errorf("%d votes are remembered", len(e.seen))
		}
		_ = b.disk.remove(r.ID)
	})
}

// A record is read, or refused; what was read can be written and read again.
func FuzzDecodeRecord(f *testing.F) {
	seed, err := json.Marshal(Record{Request: Request{ID: "a-1", Created: time.Now(), Escalate: []policy.EscalationSpec{{After: policy.Duration(time.Minute)}}}, State: StatePending})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("null"))
	f.Add([]byte(`{"request":{"count":-1,"expires":"x"}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		rec, err := DecodeRecord(value)
		if err != nil {
			return
		}
		again, err := json.Marshal(rec)
		if err != nil {
			t.Fatalf("%+v was read and can't be written: %v", rec, err)
		}
		if _, err := DecodeRecord(again); err != nil {
			t.Errorf("%s was written and can't be read: %v", again, err)
		}
		Decide(rec.Request, nil, time.Now())
	})
}
