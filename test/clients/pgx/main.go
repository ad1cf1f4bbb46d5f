// Command pgx is an ordinary program with pgx, in each way in which that executes
// queries. It prints what it got; an error shows as its SQLSTATE.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for mode := pgx.QueryExecModeCacheStatement; mode <= pgx.QueryExecModeSimpleProtocol; mode++ {
		if err := withMode(ctx, mode); err != nil {
			log.Fatalf("%v: %v", mode, err)
		}
	}
	conn, err := connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, part := range []struct {
		name string
		do   func(context.Context, *pgx.Conn) error
	}{
		{"pipeline", pipeline}, {"cursor", cursor}, {"copy", copies}, {"large objects", largeObjects}, {"cancel", cancelled},
		{"notifications", notifications}, {"settings", settings}, {"refused in a transaction", refused},
	} {
		fmt.Println(part.name)
		if err := part.do(ctx, conn); err != nil {
			log.Fatalf("%s: %v", part.name, err)
		}
	}
}

// connect takes what there is of the protocol: PROTOCOL is the version that must be.
func connect(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig("")
	if err != nil {
		return nil, err
	}
	if version := os.Getenv("PROTOCOL"); version != "" {
		config.MinProtocolVersion, config.MaxProtocolVersion = version, version
	}
	return pgx.ConnectConfig(ctx, config)
}

func state(err error) string {
	var e *pgconn.PgError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

func print(rows pgx.Rows, err error) error {
	if err != nil {
		return err
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		fmt.Printf("%v\n", values)
	}
	fmt.Println(rows.CommandTag(), state(rows.Err()))
	return nil
}

func withMode(ctx context.Context, mode pgx.QueryExecMode) error {
	fmt.Println(mode)
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, id := range []int{5, 7, 5} {
		rows, err := conn.Query(ctx, "SELECT id, name, price::text, ratio, made::text, day, good, data, tags, doc::text, key FROM items WHERE id = $1", mode, id)
		if err := print(rows, err); err != nil {
			return err
		}
	}
	rows, err := conn.Query(ctx, "SELECT $1::text, $2::bytea, $3::int[]", mode, "it's", []byte{0, 255}, []int32{1, 2})
	if err := print(rows, err); err != nil {
		return err
	}
	for _, sql := range []string{"SELECT nothing", "SELECT 1 / 0", "DELETE FROM customers"} {
		_, err := conn.Exec(ctx, sql, mode)
		fmt.Println(sql, state(err))
	}
	return nil
}

func pipeline(ctx context.Context, conn *pgx.Conn) error {
	batch := &pgx.Batch{}
	batch.Queue("SELECT id, name FROM items WHERE id = $1", 3)
	batch.Queue("INSERT INTO written (id) VALUES ($1)", 1)
	batch.Queue("DELETE FROM customers WHERE id = $1", 1)
	batch.Queue("SELECT 'skipped'")
	results := conn.SendBatch(ctx, batch)
	for range batch.Len() {
		tag, err := results.Exec()
		fmt.Println(tag, state(err))
	}
	results.Close()
	// Several batches on their way at once, one of which fails.
	p := conn.PgConn().StartPipeline(ctx)
	for i, sql := range []string{"SELECT 'first'", "DELETE FROM customers", "SELECT 'third'"} {
		p.SendQueryParams(sql, nil, nil, nil, []int16{int16(i % 2)})
		if err := p.Sync(); err != nil {
			return err
		}
	}
	for {
		r, err := p.GetResults()
		if r == nil && err == nil {
			break
		}
		if reader, ok := r.(*pgconn.ResultReader); ok {
			result := reader.Read()
			fmt.Printf("%s %v %s\n", result.Rows, result.CommandTag, state(result.Err))
		} else {
			fmt.Printf("%T %s\n", r, state(err))
		}
	}
	return p.Close()
}

func cursor(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DECLARE c CURSOR FOR SELECT id, name FROM items ORDER BY id"); err != nil {
			return err
		}
		for range 2 {
			rows, err := tx.Query(ctx, "FETCH 3 FROM c", pgx.QueryExecModeExec)
			if err := print(rows, err); err != nil {
				return err
			}
		}
		return nil
	})
}

func copies(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	for _, options := range []string{"", "(FORMAT csv, HEADER)", "(FORMAT binary)"} {
		var out bytes.Buffer
		tag, err := conn.PgConn().CopyTo(ctx, &out, "COPY (SELECT id, name, data, price FROM items ORDER BY id) TO STDOUT "+options)
		if err != nil {
			return err
		}
		fmt.Printf("%v %x\n", tag, sha256.Sum256(out.Bytes()))
		if tag, err = conn.PgConn().CopyFrom(ctx, &out, "COPY written FROM STDIN "+options); err != nil {
			return err
		}
		fmt.Println(tag)
	}
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"written"}, []string{"id", "name", "data"},
		pgx.CopyFromSlice(3000, func(i int) ([]any, error) { return []any{i, fmt.Sprint("ß", i), []byte{byte(i)}}, nil }))
	fmt.Println(n, state(err))
	rows, err := conn.Query(ctx, "SELECT count(*), count(name), sum(price)::text, count(DISTINCT data) FROM written")
	if err := print(rows, err); err != nil {
		return err
	}
	_, err = conn.PgConn().CopyFrom(ctx, bytes.NewBufferString("x\n"), "COPY written (id) FROM STDIN")
	fmt.Println(state(err), string(conn.PgConn().TxStatus()))
	return nil
}

func largeObjects(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		objects := tx.LargeObjects()
		oid, err := objects.Create(ctx, 0)
		if err != nil {
			return err
		}
		object, err := objects.Open(ctx, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
		if err != nil {
			return err
		}
		n, err := object.Write(make([]byte, 100000))
		fmt.Println(n, state(err))
		at, err := object.Seek(-10, io.SeekEnd)
		fmt.Println(at, state(err))
		n, err = object.Read(make([]byte, 100))
		fmt.Println(n, state(err), state(object.Truncate(100)), state(object.Close()))
		return objects.Unlink(ctx, oid)
	})
}

func cancelled(ctx context.Context, conn *pgx.Conn) error {
	stop := time.AfterFunc(300*time.Millisecond, func() { conn.PgConn().CancelRequest(ctx) })
	defer stop.Stop()
	_, err := conn.Exec(ctx, "SELECT pg_sleep(30)")
	fmt.Println(state(err))
	return nil
}

func notifications(ctx context.Context, conn *pgx.Conn) error {
	for _, sql := range []string{"LISTEN news", "NOTIFY news, 'to all'"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		return err
	}
	fmt.Println(n.Channel, n.Payload, n.PID == conn.PgConn().PID())
	_, err = conn.Exec(ctx, "UNLISTEN *")
	return err
}

func settings(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "SET TimeZone = 'Asia/Tokyo'"); err != nil {
		return err
	}
	fmt.Println(conn.PgConn().ParameterStatus("TimeZone"), conn.PgConn().ParameterStatus("server_version"))
	var pid uint32
	err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid)
	fmt.Println(pid == conn.PgConn().PID(), len(conn.PgConn().SecretKey()) > 4)
	return err
}

func refused(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	step := func(name string, err error) {
		fmt.Println(name, state(err), string(conn.PgConn().TxStatus()))
	}
	exec := func(tx pgx.Tx, sql string) {
		_, err := tx.Exec(ctx, sql)
		step(sql, err)
	}
	exec(tx, "INSERT INTO written (id) VALUES (1)")
	inner, err := tx.Begin(ctx) // a savepoint
	if err != nil {
		return err
	}
	exec(inner, "DELETE FROM customers")
	exec(inner, "SELECT 1")
	step("back to the savepoint", inner.Rollback(ctx))
	exec(tx, "UPDATE written SET id = 2")
	exec(tx, "DELETE FROM customers")
	step("rollback", tx.Rollback(ctx))
	return print(conn.Query(ctx, "SELECT count(*) FROM written"))
}
