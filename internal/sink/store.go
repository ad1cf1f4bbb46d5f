package sink

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// Session is what the index knows of one session.
type Session struct {
	ID          string     `json:"session"`
	Node        string     `json:"node"`
	Principal   string     `json:"principal"` // subject@issuer
	Workload    string     `json:"workload"`
	Target      string     `json:"target"`
	Credential  string     `json:"credential,omitempty"`
	Application string     `json:"application,omitempty"`
	Started     time.Time  `json:"started"`
	Ended       *time.Time `json:"ended,omitempty"`
	Reason      string     `json:"reason,omitempty"`
	Commands    uint64     `json:"commands"`
	Denied      uint64     `json:"denied"`
	Rows        uint64     `json:"rows"`
	BytesOut    uint64     `json:"bytesOut"`
	Blocks      uint64     `json:"blocks"`
	Frames      uint64     `json:"frames"`
	Root        string     `json:"root"` // hash of the last block so far
	State       string     `json:"state"`
	Fault       string     `json:"fault,omitempty"` // of a rejected block
}

// States of a session's recording.
const (
	StateOpen     = "open"     // its chain is good so far, and not closed
	StateVerified = "verified" // closed, and signed by its node
	StateFaulty   = "faulty"   // a block didn't fit; see Fault
)

// ErrNotFound: there is no such session.
var ErrNotFound = errors.New("no such session")

// chain is the part of the index that ingestion goes by.
type chain struct {
	path   string // below the recordings folder
	size   int64  // bytes of whole blocks in the file
	blocks uint64
	frames uint64
	root   []byte
	closed bool
	first  int64
	last   int64
	row    Session
}

const schema = `
CREATE TABLE IF NOT EXISTS sessions (
	id TEXT PRIMARY KEY, node TEXT NOT NULL, principal TEXT NOT NULL, workload TEXT NOT NULL, target TEXT NOT NULL,
	credential TEXT NOT NULL, application TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER, reason TEXT NOT NULL,
	commands INTEGER NOT NULL, denied INTEGER NOT NULL, rows INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
	state TEXT NOT NULL, fault TEXT NOT NULL,
	path TEXT NOT NULL, size INTEGER NOT NULL, blocks INTEGER NOT NULL, frames INTEGER NOT NULL, root BLOB NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS sessions_started ON sessions (started);
CREATE INDEX IF NOT EXISTS sessions_principal ON sessions (principal, started);
CREATE INDEX IF NOT EXISTS sessions_target ON sessions (target, started);
PRAGMA user_version = 1;`

// openIndex opens the database. One that a later version wrote is refused.
func openIndex(ctx context.Context, path string) (*sql.DB, error) {
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(1)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(path)+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	var version int
	err = db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	switch {
	case err == nil && version > 1:
		err = fmt.Errorf("it is of version %d, and this program knows 1; run the newer one", version)
	case err == nil:
		_, err = db.ExecContext(ctx, schema)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("index %s: %w", path, err), db.Close())
	}
	return db, nil
}

const columns = `id, node, principal, workload, target, credential, application, started, ended, reason,
	commands, denied, rows, bytes_out, state, fault, path, size, blocks, frames, root, first, last`

type scanner interface{ Scan(...any) error }

func scan(r scanner) (*chain, error) {
	var c chain
	var started int64
	var ended sql.NullInt64
	s := &c.row
	err := r.Scan(&s.ID, &s.Node, &s.Principal, &s.Workload, &s.Target, &s.Credential, &s.Application, &started, &ended, &s.Reason,
		&s.Commands, &s.Denied, &s.Rows, &s.BytesOut, &s.State, &s.Fault, &c.path, &c.size, &c.blocks, &c.frames, &c.root, &c.first, &c.last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	s.Started = time.Unix(0, started).UTC()
	if ended.Valid {
		at := time.Unix(0, ended.Int64).UTC()
		s.Ended = &at
		c.closed = true
	}
	s.Blocks, s.Frames, s.Root = c.blocks, c.frames, fmt.Sprintf("%x", c.root)
	return &c, nil
}

// load reads one session's chain.
func (s *Sink) load(ctx context.Context, id string) (*chain, error) {
	return scan(s.db.QueryRowContext(ctx, "SELECT "+columns+" FROM sessions WHERE id = ?", id))
}

// save writes chains in one transaction. Saving one again changes nothing.
func (s *Sink) save(ctx context.Context, chains []*chain) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	for _, c := range chains {
		var ended any
		if c.row.Ended != nil {
			ended = c.row.Ended.UnixNano()
		}
		r := c.row
		_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO sessions ("+columns+") VALUES (?"+strings.Repeat(",?", 22)+")",
			r.ID, r.Node, r.Principal, r.Workload, r.Target, r.Credential, r.Application, r.Started.UnixNano(), ended, r.Reason,
			r.Commands, r.Denied, r.Rows, r.BytesOut, r.State, r.Fault, c.path, c.size, c.blocks, c.frames, c.root, c.first, c.last)
		if err != nil {
			return errors.Join(fmt.Errorf("index: %w", err), tx.Rollback())
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// Query selects sessions; zero fields select all.
type Query struct {
	Principal string    // subject, or subject@issuer
	Target    string    // name
	Since     time.Time // started at or after
	Limit     int       // default 100, at most 1000
}

// Sessions returns the newest sessions that a query selects, newest first.
func (s *Sink) Sessions(ctx context.Context, q Query) ([]Session, error) {
	where, args := []string{"1"}, []any{}
	if q.Principal != "" {
		where = append(where, "(principal = ? OR substr(principal, 1, ?) = ?)")
		args = append(args, q.Principal, len([]rune(q.Principal))+1, q.Principal+"@")
	}
	if q.Target != "" {
		where = append(where, "target = ?")
		args = append(args, q.Target)
	}
	if !q.Since.IsZero() {
		where = append(where, "started >= ?")
		args = append(args, q.Since.UnixNano())
	}
	if q.Limit <= 0 {
		q.Limit = 100
	}
	rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM sessions WHERE "+strings.Join(where, " AND ")+" ORDER BY started DESC, id LIMIT ?",
		append(args, min(q.Limit, 1000))...)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	list := []Session{}
	for rows.Next() {
		c, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, c.row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return list, nil
}

// Session returns one session, or [ErrNotFound].
func (s *Sink) Session(ctx context.Context, id string) (Session, error) {
	c, err := s.load(ctx, id)
	if err != nil {
		return Session{}, err
	}
	return c.row, nil
}
