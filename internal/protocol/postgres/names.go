package postgres

// maxName is the longest name of a statement or portal that is let through.
// PostgreSQL cuts longer ones to NAMEDATALEN-1 bytes without a word, so two
// names that differ here would be one there.
const maxName = 63

// plainName reports whether a name means the same bytes to the server: short
// enough, and ASCII, which every encoding keeps.
func plainName(name []byte) bool {
	if len(name) > maxName {
		return false
	}
	for _, c := range name {
		if c >= 0x80 || c < 0x20 {
			return false
		}
	}
	return true
}

// statement is a prepared statement, from its Parse to the last use of it.
type statement struct {
	prepared Prepared
	renames  bool // it may change what a name stands for, in SQL
	fetches  bool // what it returns isn't known before it is executed
	// types are those of the parameters: at first as the client gave them,
	// then as the server described them. Guarded by the ledger's lock.
	types []uint32

	// What follows belongs to the goroutine that reads the upstream.

	described bool
	fields    []Field // nil: it returns no rows
	// The fields with the result formats of the last Bind that was executed:
	// a client that uses a statement again uses the same ones.
	lastFormats []byte
	lastFields  []Field
}

// columns are the statement's fields in a portal's result formats.
func (s *statement) columns(formats []byte) []Field {
	if len(formats) == 0 || s.fields == nil {
		return s.fields
	}
	if s.lastFields == nil || string(s.lastFormats) != string(formats) {
		s.lastFormats = append(s.lastFormats[:0], formats...)
		s.lastFields = withFormats(s.fields, formats)
	}
	return s.lastFields
}

// portal is a statement bound to parameters.
type portal struct {
	statement *statement
	params    []byte // formats and values, as readParams takes them
	results   []byte // result format codes

	// What follows belongs to the goroutine that reads the upstream.

	described bool
	fields    []Field // of a statement that fetches, as of the last Execute
}

// columns are the fields of what executing the portal returns; nil: no rows.
func (p *portal) columns() []Field {
	if p.described {
		return p.fields
	}
	return p.statement.columns(p.results)
}

// names maps the names of one kind, statements or portals, to what they stand
// for. A change is proposed when the client asks for it and settled when the
// server has answered, for the server may fail it, or skip it after another
// failure. Within one batch (up to a Sync) the proposal can be relied on: if
// it fails, so does all that follows it in the batch. From the next batch on
// only the answer counts. All methods are called with the ledger's lock held.
type names[T any] struct {
	settled map[string]*T
	pending map[string]proposal[T] // the latest of each name
	// drop is told each value that was proposed and is out of use.
	drop func(*T)
}

type proposal[T any] struct {
	id    uint64
	batch uint64
	value *T // nil: the name is closed
}

func newNames[T any](drop func(*T)) names[T] {
	return names[T]{settled: make(map[string]*T), pending: make(map[string]proposal[T]), drop: drop}
}

// room reports whether one more name, or this one again, keeps within limit,
// if what is proposed comes true.
func (n *names[T]) room(name string, limit int) bool {
	if len(n.settled)+len(n.pending) < limit {
		return true
	}
	count := len(n.settled)
	for other, p := range n.pending {
		_, settled := n.settled[other]
		switch {
		case p.value != nil && !settled:
			count++
		case p.value == nil && settled:
			count--
		}
	}
	_, settled := n.settled[name]
	p, pending := n.pending[name]
	if pending && p.value != nil || settled && !pending {
		count--
	}
	return count < limit
}

// propose notes that the name is to stand for value; nil closes it.
func (n *names[T]) propose(name string, id, batch uint64, value *T) {
	n.pending[name] = proposal[T]{id, batch, value}
}

// settle notes how a proposal ended.
func (n *names[T]) settle(name string, id uint64, value *T, done bool) {
	switch {
	case !done:
		n.dropped(value)
	case value == nil:
		n.dropped(n.settled[name])
		delete(n.settled, name)
	default:
		n.dropped(n.settled[name])
		n.settled[name] = value
	}
	if n.pending[name].id == id {
		delete(n.pending, name)
	}
}

func (n *names[T]) dropped(value *T) {
	if value != nil && n.drop != nil {
		n.drop(value)
	}
}

// known reports whether lookup can be answered in a batch, or whether the
// server's answer must be waited for.
func (n *names[T]) known(name string, batch uint64) bool {
	p, ok := n.pending[name]
	return !ok || p.batch == batch
}

// lookup returns what a name stands for in a batch, nil for nothing.
func (n *names[T]) lookup(name string, batch uint64) *T {
	if p, ok := n.pending[name]; ok && p.batch == batch {
		return p.value
	}
	return n.settled[name]
}

// forget drops all settled names, but those that keep says.
func (n *names[T]) forget(keep func(name string) bool) {
	for name, value := range n.settled {
		if keep == nil || !keep(name) {
			n.dropped(value)
			delete(n.settled, name)
		}
	}
}

// mentions reports whether an SQL text holds one of the words by which SQL
// gives a statement or portal name a meaning that isn't seen in the protocol:
// PREPARE and DECLARE. Keywords can't be written with escapes, so a text
// without these letters doesn't hold them.
func mentions(text []byte) bool {
	const word = len("prepare")
	for i := 0; i <= len(text)-word; i++ {
		switch text[i] | 0x20 {
		case 'p':
			if equalFold(text[i:i+word], "prepare") {
				return true
			}
		case 'd':
			if equalFold(text[i:i+word], "declare") {
				return true
			}
		}
	}
	return false
}

// fetches reports whether an SQL text holds one of the words by which a statement
// returns what a cursor or another statement of that name returns: FETCH and EXECUTE.
// Either may be made, or made anew, after the statement was prepared.
func fetches(text []byte) bool {
	for i := range text {
		switch text[i] | 0x20 {
		case 'f':
			if len(text)-i >= len("fetch") && equalFold(text[i:], "fetch") {
				return true
			}
		case 'e':
			if len(text)-i >= len("execute") && equalFold(text[i:], "execute") {
				return true
			}
		}
	}
	return false
}

func equalFold(text []byte, lower string) bool {
	for i := range lower {
		if text[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}
