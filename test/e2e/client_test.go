package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/internal/stage"
)

// The test binary is also a program that a planner might be: with this
// variable it is the client of that name, and runs no test.
const clientVariable = "CHAPERONE_E2E_CLIENT"

// client is a planner that runs the client with arguments.
func (w *world) client(name string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.Planner(w.t.Context(), "nightly-client", append([]string{self}, args...)...)
	cmd.Env = append(cmd.Env, clientVariable+"="+name)
	return cmd
}

func runClient(name string) int {
	ctx := context.Background()
	if name != "remote" { // which lives as long as its test wants
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	clients := map[string]func(context.Context) error{"pgx": pgxClient, "raw": rawClient, "remote": remoteClient, "pipeline": pipelineClient}
	if err := clients[name](ctx); err != nil {
		fmt.Println("client:", err)
		return 1
	}
	return 0
}

// pgxClient is an ordinary pgx program: it knows a host name, and nothing of
// Chaperone. SSL_CERT_FILE and PGSSLROOTCERT are its environment's.
func pgxClient(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, stage.ConnString)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	fmt.Println("peer", conn.PgConn().Conn().RemoteAddr())

	// Prepared, executed twice: the second time without a Describe.
	for _, id := range []int{1, 2} {
		var name, card string
		if err := conn.QueryRow(ctx, "SELECT name, card_number FROM customers WHERE id = $1", id).Scan(&name, &card); err != nil {
			return err
		}
		fmt.Println("row", name, card)
	}

	// A pipeline with a refused statement in the middle.
	batch := &pgx.Batch{}
	batch.Queue("SELECT 'first'")
	batch.Queue("DROP TABLE customers")
	batch.Queue("SELECT 'third'")
	results := conn.SendBatch(ctx, batch)
	var first string
	if err := results.QueryRow().Scan(&first); err != nil {
		return err
	}
	_, err = results.Exec()
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return fmt.Errorf("DROP in a pipeline: %v", err)
	}
	fmt.Println("pipeline", first, refused.Code, refused.Message)
	if err := results.Close(); err == nil {
		return errors.New("the statement behind the refused one ran")
	}

	// A transaction in which a statement is refused is a failed one.
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "INSERT INTO orders (customer, amount) VALUES (3, 1)"); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "CREATE TABLE t (x int)")
	fmt.Println("in a transaction", err)
	_, err = tx.Exec(ctx, "SELECT 1")
	fmt.Println("after it", err)
	if err := tx.Rollback(ctx); err != nil {
		return err
	}

	// COPY in both directions.
	copied, err := conn.CopyFrom(ctx, pgx.Identifier{"orders"}, []string{"customer", "amount"},
		pgx.CopyFromRows([][]any{{3, "1.5"}, {3, "2.5"}}))
	if err != nil {
		return err
	}
	tag, err := conn.PgConn().CopyTo(ctx, os.Stdout, "COPY (SELECT amount FROM orders WHERE customer = 3 ORDER BY 1) TO STDOUT")
	if err != nil {
		return err
	}
	fmt.Println("copied", copied, tag)

	// A query that is cancelled, and a connection that goes on.
	hurried, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = conn.Exec(hurried, "SELECT count(*) FROM generate_series(1, 100000000000)")
	fmt.Println("cancelled", errors.Is(err, context.DeadlineExceeded), err)
	return nil
}

// rawClient sends the bytes of its second argument, in hex, to the address of
// its first, and prints what comes back.
func rawClient(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", os.Args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	sent, err := hex.DecodeString(os.Args[2])
	if err != nil {
		return err
	}
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 64<<10))
	fmt.Printf("answer %q %v\n", answer, err)
	return nil
}
