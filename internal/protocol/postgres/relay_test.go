package postgres

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// psql runs the real client; the result is all that it printed.
func (p *proxy) psql(extra string, args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(testContext(p.t), "psql", append([]string{"-X", "-w", p.dsn(extra)}, args...)...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func pgError(t *testing.T, err error) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		t.Fatalf("no server error: %v", err)
	}
	return e
}

func TestSimpleQueryWithPsql(t *testing.T) {
	shared := database(t)
	for _, tt := range []struct {
		name, sql string
		want      []string
		not       string
	}{
		{"rows are masked", "SELECT id, name, ssn FROM people ORDER BY id", []string{"ann", "masked", "(3 rows)"}, "111-11"},
		{"NULL stays NULL", "SELECT ssn IS NULL AS n, ssn FROM people WHERE id = 3", []string{"t"}, "masked"},
		{"many statements", "SELECT 1 AS a; SELECT 'x' AS ssn; SELECT 3 AS c", []string{"masked", "3"}, " x"},
		{"empty", ";", nil, "ERROR"},
		{"server's own error", "SELECT * FROM nowhere", []string{`ERROR:  relation "nowhere" does not exist`, "LINE 1"}, "not allowed"},
		{"denied", "SELECT 1 AS forbidden", []string{"ERROR:  not allowed here", "DETAIL:  the rule says so", "HINT:  ask", "LINE 1: SELECT 1 AS forbidden"}, "REFUSED"},
		{"unreadable", "unreadable", []string{"ERROR:  can't be read"}, "REFUSED"},
		{"notice", "DO $$BEGIN RAISE NOTICE 'it is topsecret'; END$$", []string{"NOTICE:  it is *********"}, "topsecret"},
		{"error text", "DO $$BEGIN RAISE EXCEPTION 'it is topsecret'; END$$", []string{"ERROR:  it is *********"}, "topsecret"},
		{"notify", "LISTEN c; NOTIFY c, 'topsecret news'", []string{`"********* news"`}, "topsecret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, func(p *proxy) { p.database = shared })
			out := p.psql("", "-c", tt.sql)
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q isn't in\n%s", want, out)
				}
			}
			if tt.not != "" && strings.Contains(out, tt.not) {
				t.Errorf("%q is in\n%s", tt.not, out)
			}
		})
	}
}

func TestDeniedInTransaction(t *testing.T) {
	p := newProxy(t, nil)
	conn := p.pgx("default_query_exec_mode=simple_protocol")
	ctx := testContext(t)
	for _, sql := range []string{"BEGIN", "INSERT INTO people VALUES (9, 'zoe', 'x')"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	_, err := conn.Exec(ctx, "DELETE FROM forbidden")
	e := pgError(t, err)
	if e.Code != "42501" || e.Severity != "ERROR" || e.Position != 13 {
		t.Errorf("denied with %+v", e)
	}
	if s := conn.PgConn().TxStatus(); s != 'E' {
		t.Errorf("transaction status %c after the denial, want E", s)
	}
	if _, err = conn.Exec(ctx, "SELECT 1"); pgError(t, err).Code != "25P02" {
		t.Errorf("the transaction goes on: %v", err)
	}
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM people WHERE id = 9").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of the transaction are left, %v", n, err)
	}
}

func TestPipelineWithDeniedCommand(t *testing.T) {
	p := newProxy(t, nil)
	conn := p.pgx("")
	ctx := testContext(t)
	batch := &pgx.Batch{}
	batch.Queue("SELECT name FROM people WHERE id = $1", 1)
	batch.Queue("SELECT name AS forbidden FROM people WHERE id = $1", 2)
	batch.Queue("SELECT name FROM people WHERE id = $1", 3)
	r := conn.SendBatch(ctx, batch)
	var name string
	if err := r.QueryRow().Scan(&name); err != nil || name != "ann" {
		t.Errorf("first: %q, %v", name, err)
	}
	if err := r.QueryRow().Scan(&name); err == nil || pgError(t, err).Code != "42501" {
		t.Errorf("second: %q, %v", name, err)
	}
	if err := r.QueryRow().Scan(&name); err == nil {
		t.Errorf("third ran: %q", name)
	}
	r.Close()
	if err := conn.QueryRow(ctx, "SELECT name FROM people WHERE id = $1", 3).Scan(&name); err != nil || name != "eve" {
		t.Errorf("afterwards: %q, %v", name, err)
	}
	s := p.only()
	if !slices.Contains(s.begun(), "DENY SELECT name AS forbidden FROM people WHERE id = $1") {
		t.Errorf("begun: %q", s.begun())
	}
}

// The same bytes in pieces of every size mean the same.
func TestMessagesInPieces(t *testing.T) {
	for _, size := range []int{1, 3, 7, 64} {
		p := newProxy(t, nil)
		c := p.raw()
		var all []byte
		for _, m := range messages(q("SELECT ssn FROM people WHERE id = 1"), parse("s", "SELECT 1 AS forbidden"), bind("", "s"), execute("", 0), sync_) {
			all, _ = m.Encode(all)
		}
		for len(all) > 0 {
			n := min(size, len(all))
			c.write(all[:n])
			all = all[n:]
		}
		c.want("query", "T1 D:masked C:SELECT 1 Z:I")
		c.want("batch", "1 2 E:42501 Z:I")
	}
}

// pgbench is libpq with its pipeline mode.
func TestPgbench(t *testing.T) {
	p := newProxy(t, nil)
	bin := realServer(t).BinDir() + "/pgbench"
	script := filepath.Join(t.TempDir(), "pipeline.sql")
	err := os.WriteFile(script, []byte(strings.Join([]string{
		`\set id random(1, 3)`, `\startpipeline`, `BEGIN;`, `SELECT name FROM people WHERE id = :id;`,
		`UPDATE people SET name = 'x' WHERE id = :id;`, `COMMIT;`, `SELECT ssn FROM people;`, `\endpipeline`,
	}, "\n")), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"extended", "prepared"} {
		cmd := exec.CommandContext(testContext(t), bin, "-n", "-M", mode, "-c", "4", "-j", "2", "-t", "50", "-f", script, p.dsn(""))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "number of transactions actually processed: 200/200") ||
			!strings.Contains(string(out), "failed transactions: 0") {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}
