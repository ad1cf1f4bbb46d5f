package postgres

import (
	"errors"
	"sync"
)

// errEnded is returned to a pump when the other one ended the relay.
var errEnded = errors.New("the connection is ending")

// kind is what a message asks of the server.
type kind uint8

const (
	kindQuery kind = iota
	kindParse
	kindBind
	kindDescribeStatement
	kindDescribePortal
	kindLearn       // our own Describe after a Parse, whose answer the client doesn't see
	kindLearnPortal // and that before an Execute
	kindExecute
	kindCloseStatement
	kindClosePortal
	kindSync
	kindFunctionCall
)

// ready reports whether the answer ends with ReadyForQuery.
func (k kind) ready() bool { return k == kindQuery || k == kindSync || k == kindFunctionCall }

// request is one message that the server is to answer.
type request struct {
	kind     kind
	refusal  *Refusal // the message was replaced by one that fails; tell this instead
	prepared Prepared // Query, Execute, FunctionCall
	command  Command  // likewise; nil when refused
	result   []Field  // FunctionCall: of what it returns

	name      string     // of what Parse, Bind and Close propose
	proposal  uint64     // 0: none
	statement *statement // Parse, Learn
	portal    *portal    // Bind, LearnPortal, Execute

	copyIn  bool // it may ask the client for COPY data
	renames bool // it may change what a name stands for, in SQL
}

// ledger is what the two goroutines of a relay share: which requests are with
// the server, in their order, and what the names of statements and portals
// stand for. The one that reads the client adds requests before it sends them,
// the one that reads the upstream takes them off as they are answered.
type ledger struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting bool // somebody waits for changed
	ended   bool

	ring  []request // a queue: n requests from head on
	head  int
	n     int
	limit int

	// skipping: a message of the extended protocol failed, the server
	// discards all that comes until a Sync that isn't sent yet.
	skipping bool

	statements names[statement]
	portals    names[portal]
	batch      uint64 // counts Syncs
	proposals  uint64

	copies  int  // requests in the queue that may ask for COPY data
	copying bool // the server asked, and the data isn't at its end
	renames int  // requests in the queue that may rename
	held    int  // bytes of parameters that portals keep
}

func newLedger(limit int) *ledger {
	l := &ledger{
		ring: make([]request, 16), limit: limit,
		statements: newNames[statement](nil),
	}
	l.portals = newNames(func(p *portal) { l.held -= len(p.params) })
	l.changed.L = &l.mu
	return l
}

// holds reports whether cond, called with the lock held, is true now.
func (l *ledger) holds(cond func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cond()
}

// wait blocks until cond, called with the lock held, is true.
func (l *ledger) wait(cond func() bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended && !cond() {
		l.waiting = true
		l.changed.Wait()
	}
	if l.ended {
		return errEnded
	}
	return nil
}

// wake is called with the lock held after each change that could be waited for.
func (l *ledger) wake() {
	if l.waiting {
		l.waiting = false
		l.changed.Broadcast()
	}
}

// push adds a request. It reports false when the server would skip the
// message: then nothing was added and the message needs no sending.
func (l *ledger) push(r request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.kind == kindSync {
		l.skipping = false
		l.batch++
	}
	if l.skipping {
		return false
	}
	l.propose(&r)
	if r.copyIn {
		l.copies++
	}
	if r.renames {
		l.renames++
	}
	if l.n == len(l.ring) {
		ring := make([]request, 2*len(l.ring))
		copied := copy(ring, l.ring[l.head:])
		copy(ring[copied:], l.ring[:l.head])
		l.ring, l.head = ring, 0
	}
	l.ring[(l.head+l.n)&(len(l.ring)-1)] = r
	l.n++
	return true
}

func (l *ledger) propose(r *request) {
	if r.refusal != nil {
		return
	}
	switch r.kind {
	case kindParse, kindCloseStatement:
		l.proposals++
		r.proposal = l.proposals
		l.statements.propose(r.name, r.proposal, l.batch, r.statement)
	case kindBind, kindClosePortal:
		l.proposals++
		r.proposal = l.proposals
		if r.portal != nil {
			l.held += len(r.portal.params)
		}
		l.portals.propose(r.name, r.proposal, l.batch, r.portal)
	}
}

// first returns the request that the server answers now.
func (l *ledger) first() (r request, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		return request{}, false
	}
	return l.ring[l.head], true
}

// done takes the first request off; it succeeded or not.
func (l *ledger) done(succeeded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pop(succeeded)
	l.wake()
}

func (l *ledger) pop(succeeded bool) request {
	r := l.ring[l.head]
	l.ring[l.head] = request{}
	l.head = (l.head + 1) & (len(l.ring) - 1)
	l.n--
	if r.proposal != 0 {
		switch r.kind {
		case kindParse, kindCloseStatement:
			l.statements.settle(r.name, r.proposal, r.statement, succeeded)
		case kindBind, kindClosePortal:
			l.portals.settle(r.name, r.proposal, r.portal, succeeded)
		}
	}
	if r.copyIn {
		if l.copies--; l.copies == 0 {
			l.copying = false
		}
	}
	if r.renames {
		l.renames--
	}
	return r
}

// fail takes off the first request, which the server failed, and all up to the
// next Sync, which it skips. The commands among the skipped are returned.
func (l *ledger) fail() (skipped []Command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pop(false)
	l.copying = false
	for l.n > 0 && l.ring[l.head].kind != kindSync {
		if r := l.pop(false); r.command != nil {
			skipped = append(skipped, r.command)
		}
	}
	l.skipping = l.n == 0
	l.wake()
	return skipped
}

// skip makes the client's messages be dropped up to its next Sync, as the
// server would after an error.
func (l *ledger) skip() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.n {
		if l.ring[(l.head+i)&(len(l.ring)-1)].kind == kindSync {
			return
		}
	}
	l.skipping = true
}

// learn notes the parameter types that the server described.
func (l *ledger) learn(s *statement, types []uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.types = types
}

// idle forgets the portals that ended with their transaction.
func (l *ledger) idle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.portals.settled) > 0 {
		l.portals.forget(nil)
	}
}

// ran notes a command tag that says that names changed their meaning in SQL.
// What was known of them can't be relied on from there on.
func (l *ledger) ran(tag string) {
	switch tag {
	case "PREPARE", "DEALLOCATE ALL", "DISCARD ALL":
		l.mu.Lock()
		defer l.mu.Unlock()
		l.statements.forget(nil)
	case "DECLARE CURSOR":
		l.mu.Lock()
		defer l.mu.Unlock()
		l.portals.forget(func(name string) bool { return name == "" })
	}
}

// startCopy notes that the server asks for COPY data.
func (l *ledger) startCopy() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.copying = true
	l.wake()
}

// end makes every wait return.
func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.changed.Broadcast()
}

// drain takes everything off and returns the commands that had no answer.
func (l *ledger) drain() (unfinished []Command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.n > 0 {
		if r := l.pop(false); r.command != nil {
			unfinished = append(unfinished, r.command)
		}
	}
	return unfinished
}
