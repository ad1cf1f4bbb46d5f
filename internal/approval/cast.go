package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"chaperone.dev/chaperone/internal/authority"
	"github.com/nats-io/nats.go/jetstream"
)

// maxCasts bounds the attempts to append a vote: as many others may be first
// as there is room for votes.
const maxCasts = maxVotes + 1

// Cast signs a person's vote, whom the caller has verified, and appends it to
// those on the request. It returns all that count, with the new one.
//
// The vote's At and Until may be left out: they are now, and the request's
// end. Its Session is the request's. A vote that can't count is not signed: the
// error then wraps one of [ErrNotFound], [ErrOver], [ErrNotAsked], [ErrSelf],
// [ErrDigest], [ErrVoted] and [ErrStanding], or is an [ErrDecided]. Of two
// who answer at once the second one is told what the first one decided.
func Cast(ctx context.Context, kv jetstream.KeyValue, signer *authority.Signer, keys authority.Keys, vote Vote) ([]Vote, error) {
	if vote.At.IsZero() {
		vote.At = time.Now().UTC()
	}
	for range maxCasts {
		votes, err := cast(ctx, kv, signer, keys, vote)
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return votes, err
		}
	}
	return nil, fmt.Errorf("answering %s: too many answer at once; try again", vote.Request)
}

func cast(ctx context.Context, kv jetstream.KeyValue, signer *authority.Signer, keys authority.Keys, vote Vote) ([]Vote, error) {
	r, err := open(ctx, kv, vote)
	if err != nil {
		return nil, err
	}
	key := VotesKey(r.Cluster, r.Node, r.ID)
	stored, revision, err := readVotes(ctx, kv, key)
	if err != nil {
		return nil, fmt.Errorf("answering %s: %w", r.ID, err)
	}
	var kept []authority.Signed
	var votes []Vote
	for _, s := range stored {
		var v Vote
		if keys.Verify(SignedVote, s, &v) == nil && check(r, v, vote.At) == nil && !slices.ContainsFunc(votes, func(o Vote) bool { return o.By.same(v.By) }) {
			kept, votes = append(kept, s), append(votes, v)
		}
	}
	if outcome, by := Decide(r, votes, vote.At); outcome == StateApproved || outcome == StateDenied {
		return votes, ErrDecided{Outcome: outcome, By: by}
	}
	vote.Session = r.Session
	if vote.Until.IsZero() {
		vote.Until = r.Expires
	}
	if err := check(r, vote, vote.At); err != nil {
		return votes, fmt.Errorf("answering %s: %w", r.ID, err)
	}
	if slices.ContainsFunc(votes, func(v Vote) bool { return v.By.same(vote.By) }) {
		return votes, fmt.Errorf("answering %s: %s: %w", r.ID, vote.By, ErrVoted)
	}
	if len(kept) >= maxVotes {
		return votes, fmt.Errorf("answering %s: there are %d votes, and no more room", r.ID, len(kept))
	}
	signed, err := signer.Sign(SignedVote, vote)
	if err != nil {
		return votes, err
	}
	value, err := json.Marshal(append(kept, signed))
	if err != nil {
		return votes, fmt.Errorf("answering %s: %w", r.ID, err)
	}
	if revision == 0 {
		_, err = kv.Create(ctx, key, value)
	} else {
		_, err = kv.Update(ctx, key, value, revision)
	}
	if err != nil {
		return votes, fmt.Errorf("answering %s: %w", r.ID, err)
	}
	return append(votes, vote), nil
}

// open reads the request that the vote is on, if it can still be answered.
func open(ctx context.Context, kv jetstream.KeyValue, vote Vote) (Request, error) {
	entry, err := kv.Get(ctx, RecordKey(vote.Cluster, vote.Node, vote.Request))
	if errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrInvalidKey) {
		return Request{}, fmt.Errorf("%s: %w", vote.Request, ErrNotFound)
	}
	if err != nil {
		return Request{}, fmt.Errorf("reading request %s: %w", vote.Request, err)
	}
	rec, err := DecodeRecord(entry.Value())
	if err != nil {
		return Request{}, fmt.Errorf("reading request %s: %w", vote.Request, err)
	}
	r := rec.Request
	// The key is what the bucket's permissions are about: the node that may
	// write it may not speak for another.
	if r.ID != vote.Request || r.Cluster != vote.Cluster || r.Node != vote.Node {
		return Request{}, fmt.Errorf("%s: another request is kept in its place: %w", vote.Request, ErrNotFound)
	}
	switch rec.State {
	case StatePending:
		return r, nil
	case StateApproved, StateUsed, StateDenied:
		return Request{}, ErrDecided{Outcome: rec.State, By: rec.By}
	}
	return Request{}, fmt.Errorf("%s is %s: %w", r.ID, rec.State, ErrOver)
}

// DecodeRecord reads a value of [RecordKey].
func DecodeRecord(value []byte) (Record, error) {
	var rec Record
	if err := json.Unmarshal(value, &rec); err != nil {
		return Record{}, fmt.Errorf("a request for approval can't be read: %w", err)
	}
	return rec, nil
}

// DecodeVotes reads a value of [VotesKey]. The signatures are not verified.
func DecodeVotes(value []byte) ([]authority.Signed, error) {
	var votes []authority.Signed
	if err := json.Unmarshal(value, &votes); err != nil {
		return nil, fmt.Errorf("votes can't be read: %w", err)
	}
	if len(votes) > maxVotes {
		return nil, fmt.Errorf("there are %d votes on one request, at most %d are read", len(votes), maxVotes)
	}
	return votes, nil
}

// readVotes returns the votes under the key and their revision, 0 for none.
func readVotes(ctx context.Context, kv jetstream.KeyValue, key string) ([]authority.Signed, uint64, error) {
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	votes, err := DecodeVotes(entry.Value())
	if err != nil {
		// It carries no signature that could be read, so it has no weight.
		return nil, entry.Revision(), nil
	}
	return votes, entry.Revision(), nil
}
