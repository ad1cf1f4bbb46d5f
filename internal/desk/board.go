package desk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/approval"
	"chaperone.dev/chaperone/internal/authority"
	"chaperone.dev/chaperone/internal/bus"
)

// item is a request and the votes on it. It is never changed: another takes
// its place.
type item struct {
	record approval.Record
	votes  []approval.Vote // signed by the authority, and for this request
}

// state is what a person is told: the node's word, or, until it comes, what the
// votes come to.
func (i *item) state(now time.Time) approval.State {
	if i.record.State != approval.StatePending {
		return i.record.State
	}
	s, _ := approval.Decide(i.record.Request, i.votes, now)
	return s
}

// What happened to a request.
const (
	noticeAsked     = "asked"
	noticeEscalated = "escalated"
	noticeOver      = "over" // decided, expired or cancelled
)

// notice tells that something happened.
type notice struct {
	kind string
	item *item
	step int // of noticeEscalated: counts from 1
}

const (
	maxItems  = 5000
	maxRecord = 512 << 10 // bytes of a value: nodes may write 256 KiB
	maxBytes  = 256 << 20 // of all values together
	keepOver  = 7 * 24 * time.Hour
	maxQueue  = 256 // items that a subscriber is behind
)

// entry is what the board knows below one key.
type entry struct {
	item   *item              // nil while only votes are known
	signed []authority.Signed // as they came
	sizes  [2]int             // of the record, and of the votes, as they came
	round  int                // in which it was last seen
	asked  bool               // noticeAsked was given
	steps  int                // so many escalations were told
	over   bool               // noticeOver was given, or is not to be
}

// board keeps the requests of the bucket, in memory and bounded.
type board struct {
	keys   authority.Keys
	log    zerolog.Logger
	notify func(notice) // must not block

	mu          sync.Mutex
	entries     map[string]*entry // by "cluster.node.id", as in the bucket's keys
	bytes       int
	round       int
	current     bool // the bucket is followed
	subscribers map[*subscriber]struct{}
}

// subscriber is told of changes. When it is too slow its queue is closed.
type subscriber struct{ queue chan *item }

func newBoard(keys authority.Keys, log zerolog.Logger, notify func(notice)) *board {
	return &board{keys: keys, log: log, notify: notify, entries: map[string]*entry{}, subscribers: map[*subscriber]struct{}{}}
}

// follow keeps the board up to date until ctx is done.
func (b *board) follow(ctx context.Context, bucket *bus.Bucket) error {
	bucket.Follow(ctx, ">", bus.Follower{
		Value: b.value,
		Current: func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			for key, e := range b.entries {
				if e.round < b.round {
					b.remove(key) // it went while nobody looked
				}
			}
			b.round++
			b.current = true
		},
		Lost: func(err error) {
			b.mu.Lock()
			b.current = false
			b.mu.Unlock()
			b.log.Warn().Err(err).Msg("requests for approval are out of reach; what is shown may be old")
		},
	})
	return nil
}

// value takes one value of the bucket.
func (b *board) value(v jetstream.KeyValueEntry) {
	kind, key, _ := strings.Cut(v.Key(), ".")
	b.mu.Lock()
	defer b.mu.Unlock()
	if v.Operation() != jetstream.KeyValuePut {
		b.remove(key)
		return
	}
	err := fmt.Errorf("its value has %d bytes, %d at most", len(v.Value()), maxRecord)
	if len(v.Value()) <= maxRecord {
		switch kind {
		case "request":
			err = b.takeRecord(key, v.Value())
		case "votes":
			err = b.takeVotes(key, v.Value())
		default:
			return
		}
	}
	if err != nil {
		b.log.Warn().Err(err).Str("key", v.Key()).Msg("a value is not shown")
	}
}

func (b *board) takeRecord(key string, value []byte) error {
	rec, err := approval.DecodeRecord(value)
	if err != nil {
		return err
	}
	r := rec.Request
	// A node may write below its own name alone; so it must speak for itself.
	if !validID(r.ID) || approval.RecordKey(r.Cluster, r.Node, r.ID) != "request."+key {
		return fmt.Errorf("it holds a request of another place, or one whose id is none")
	}
	e := b.entry(key)
	first := e.item == nil
	e.item = &item{record: rec}
	e.item.votes = b.verified(e)
	b.resize(e, 0, len(value))
	if first && rec.State != approval.StatePending {
		e.over = true // it was over when we came: nobody waits to hear of it
	}
	b.changed(e)
	b.shrink(key)
	return nil
}

func (b *board) takeVotes(key string, value []byte) error {
	signed, err := approval.DecodeVotes(value)
	if err != nil {
		return err
	}
	e := b.entry(key)
	e.signed = signed
	b.resize(e, 1, len(value))
	// The votes may come first: of two keys the one that was written last comes last.
	if e.item != nil {
		e.item = &item{record: e.item.record}
		e.item.votes = b.verified(e)
		b.changed(e)
	}
	b.shrink(key)
	return nil
}

// verified are the votes that the authority signed for this very request.
func (b *board) verified(e *entry) []approval.Vote {
	r := e.item.record.Request
	var votes []approval.Vote
	for _, s := range e.signed {
		var v approval.Vote
		if b.keys.Verify(approval.SignedVote, s, &v) == nil && v.Request == r.ID && v.Cluster == r.Cluster && v.Node == r.Node && v.Digest == r.Digest {
			votes = append(votes, v)
		}
	}
	return votes
}

func (b *board) entry(key string) *entry {
	e := b.entries[key]
	if e == nil {
		e = &entry{}
		b.entries[key] = e
	}
	e.round = b.round
	return e
}

func (b *board) resize(e *entry, which, size int) {
	b.bytes += size - e.sizes[which]
	e.sizes[which] = size
}

func (b *board) remove(key string) {
	if e := b.entries[key]; e != nil {
		b.bytes -= e.sizes[0] + e.sizes[1]
		delete(b.entries, key)
	}
}

// shrink makes room: what is over goes first, the oldest of it; then the oldest.
// The newest, which was taken just now, stays.
func (b *board) shrink(newest string) {
	if len(b.entries) <= maxItems && b.bytes <= maxBytes {
		return
	}
	keys := make([]string, 0, len(b.entries))
	for key := range b.entries {
		if key != newest {
			keys = append(keys, key)
		}
	}
	rank := func(key string) (waiting int, at time.Time) {
		e := b.entries[key]
		if e.item == nil {
			return 0, time.Time{}
		}
		if e.item.record.State == approval.StatePending {
			waiting = 1
		}
		return waiting, e.item.record.Request.Created
	}
	slices.SortFunc(keys, func(x, y string) int {
		xw, xt := rank(x)
		yw, yt := rank(y)
		if xw != yw {
			return xw - yw
		}
		return xt.Compare(yt)
	})
	dropped := 0
	for _, key := range keys {
		if len(b.entries) <= maxItems*9/10 && b.bytes <= maxBytes*9/10 {
			break
		}
		b.remove(key)
		dropped++
	}
	b.log.Warn().Int("dropped", dropped).Msg("there are too many requests for approval; the oldest are not shown")
}

// changed tells subscribers and webhooks of an entry that is another now.
func (b *board) changed(e *entry) {
	b.publish(e.item)
	pending := e.item.record.State == approval.StatePending
	switch {
	case pending && !e.asked && !e.over:
		e.asked = true
		b.notify(notice{kind: noticeAsked, item: e.item})
	case !pending && !e.over:
		e.over = true
		b.notify(notice{kind: noticeOver, item: e.item})
	}
}

func (b *board) publish(i *item) {
	for s := range b.subscribers {
		select {
		case s.queue <- i:
		default:
			close(s.queue) // it connects again, and is told anew what is pending
			delete(b.subscribers, s)
		}
	}
}

// tick tells of what the time changes: who may answer, and what has expired.
func (b *board) tick(ctx context.Context, clock func() time.Time) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			b.pass(clock())
		}
	}
}

func (b *board) pass(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, e := range b.entries {
		if e.item == nil {
			continue
		}
		r := e.item.record.Request
		if e.item.record.State != approval.StatePending || e.over {
			if now.Sub(r.Expires) > keepOver {
				b.remove(key)
			}
			continue
		}
		if !now.Before(r.Expires) {
			// Its node says so too, if it lives.
			e.over = true
			b.publish(e.item)
			gone := *e.item
			gone.record.State = approval.StateExpired
			b.notify(notice{kind: noticeOver, item: &gone})
			continue
		}
		due := 0
		for _, step := range r.Escalate {
			if !now.Before(r.Created.Add(time.Duration(step.After))) {
				due++
			}
		}
		if due > e.steps {
			e.steps = due
			b.publish(e.item)
			b.notify(notice{kind: noticeEscalated, item: e.item, step: due})
		}
	}
}

// all returns what is known, newest first, and whether that is up to date.
func (b *board) all() []*item {
	b.mu.Lock()
	list := make([]*item, 0, len(b.entries))
	for _, e := range b.entries {
		if e.item != nil {
			list = append(list, e.item)
		}
	}
	b.mu.Unlock()
	slices.SortFunc(list, func(x, y *item) int {
		if c := y.record.Request.Created.Compare(x.record.Request.Created); c != 0 {
			return c
		}
		return strings.Compare(x.record.Request.ID, y.record.Request.ID)
	})
	return list
}

// upToDate tells whether the bucket is followed.
func (b *board) upToDate() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current
}

// subscribe returns what is known and a subscription to what comes after it.
func (b *board) subscribe() (*subscriber, func()) {
	s := &subscriber{queue: make(chan *item, maxQueue)}
	b.mu.Lock()
	b.subscribers[s] = struct{}{}
	b.mu.Unlock()
	return s, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subscribers, s)
	}
}

// validID tells whether it is an id of a request: "a-" and 16 lower-case
// base32 characters.
func validID(id string) bool {
	rest, ok := strings.CutPrefix(id, "a-")
	return ok && len(rest) == 16 && strings.IndexFunc(rest, func(c rune) bool { return (c < 'a' || c > 'z') && (c < '2' || c > '7') }) < 0
}
