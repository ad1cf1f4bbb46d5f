package pgsql

import "sync"

// cache keeps the queries that were read last, bounded in number and in an
// estimate of their memory. A parse tree weighs many times its text, so both
// bounds are needed: short texts are held back by the first, long ones by the
// second.
type cache struct {
	maxEntries, maxBytes int

	mu     sync.Mutex
	bytes  int
	byText map[string]*entry
	// latest is the head of a ring of entries: latest.next was used before
	// it, latest.prev is the one that was not used for longest.
	latest *entry
}

type entry struct {
	text       string
	query      *Query
	prev, next *entry
}

// What an entry is taken to weigh: measured on pgbench's, pgAdmin's and psql's
// statements, rounded up.
const (
	entryBytes       = 2 << 10
	bytesPerTextByte = 96
)

func weight(text string) int { return entryBytes + bytesPerTextByte*len(text) }

func newCache(entries, bytes int) *cache {
	return &cache{maxEntries: entries, maxBytes: bytes, byText: make(map[string]*entry)}
}

func (c *cache) get(text string) *Query {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touch(c.byText[text])
}

// getBytes is get for a key that isn't a string yet; it doesn't allocate.
func (c *cache) getBytes(text []byte) *Query {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touch(c.byText[string(text)])
}

func (c *cache) touch(e *entry) *Query {
	if e == nil {
		return nil
	}
	if e != c.latest {
		c.unlink(e)
		c.pushFront(e)
	}
	return e.query
}

// add keeps q, unless it alone would push out a good part of the others.
func (c *cache) add(text string, q *Query) {
	w := weight(text)
	if w > c.maxBytes/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byText[text] != nil {
		return // another session was faster
	}
	e := &entry{text: text, query: q}
	c.byText[text] = e
	c.pushFront(e)
	c.bytes += w
	for len(c.byText) > c.maxEntries || c.bytes > c.maxBytes {
		oldest := c.latest.prev
		c.unlink(oldest)
		delete(c.byText, oldest.text)
		c.bytes -= weight(oldest.text)
	}
}

func (c *cache) pushFront(e *entry) {
	if c.latest == nil {
		e.prev, e.next = e, e
	} else {
		e.next, e.prev = c.latest, c.latest.prev
		e.prev.next, e.next.prev = e, e
	}
	c.latest = e
}

func (c *cache) unlink(e *entry) {
	if e.next == e {
		c.latest = nil
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	if c.latest == e {
		c.latest = e.next
	}
}
