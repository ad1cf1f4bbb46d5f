package postgresadmin

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Idle keeps a connection of each administrator for its next use, for a while: to open
// one takes longer than what is done over it, and a job waits for that. A nil Idle
// keeps none. Safe for concurrent use.
type Idle struct {
	mu     sync.Mutex
	kept   map[string]*idle // by file
	closed bool
}

type idle struct {
	conn   *pgx.Conn
	digest [sha256.Size]byte // of the connection string that it was opened by
	timer  *time.Timer
}

const (
	// idleTime is how long a connection is kept. It is short of what firewalls and
	// servers (idle_session_timeout) commonly wait before they drop one.
	idleTime = time.Minute
	// maxIdle bounds the connections that are kept.
	maxIdle = 64
)

// Take returns a connection of the administrator, to the database that the connection
// string names. One that is reused may turn out to be broken.
func (i *Idle) Take(ctx context.Context, file string) (conn *pgx.Conn, reused bool, err error) {
	if i != nil {
		if conn := i.take(file); conn != nil {
			return conn, true, nil
		}
	}
	conn, err = Connect(ctx, file, "")
	return conn, false, err
}

// take returns the connection that is kept, if the file still says the same.
func (i *Idle) take(file string) *pgx.Conn {
	i.mu.Lock()
	k := i.kept[file]
	delete(i.kept, file)
	i.mu.Unlock()
	if k == nil || !k.timer.Stop() {
		return nil // its timer closes it
	}
	dsn, err := readFile(file)
	if err != nil || sha256.Sum256([]byte(dsn)) != k.digest || k.conn.IsClosed() {
		Close(context.Background(), k.conn)
		return nil
	}
	return k.conn
}

// Put gives a connection back that is in no transaction.
func (i *Idle) Put(file string, conn *pgx.Conn) {
	if i == nil || !i.put(file, conn) {
		Close(context.Background(), conn)
	}
}

func (i *Idle) put(file string, conn *pgx.Conn) bool {
	if conn.IsClosed() || conn.PgConn().TxStatus() != 'I' {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || i.kept[file] != nil || len(i.kept) >= maxIdle {
		return false
	}
	if i.kept == nil {
		i.kept = map[string]*idle{}
	}
	k := &idle{conn: conn, digest: sha256.Sum256([]byte(conn.Config().ConnString()))}
	k.timer = time.AfterFunc(idleTime, func() {
		i.mu.Lock()
		if i.kept[file] == k {
			delete(i.kept, file)
		}
		i.mu.Unlock()
		Close(context.Background(), conn)
	})
	i.kept[file] = k
	return true
}

// Close closes what is kept, and keeps nothing from then on.
func (i *Idle) Close() {
	i.mu.Lock()
	kept := i.kept
	i.kept, i.closed = nil, true
	i.mu.Unlock()
	for _, k := range kept {
		if k.timer.Stop() {
			Close(context.Background(), k.conn)
		}
	}
}
