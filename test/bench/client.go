package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// clientWord is the first argument of this program as a client.
const clientWord = "client"

// runClient is a client of the benchmark. Where to connect is in the
// environment, as with any PostgreSQL client.
func runClient(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "select":
		return selectClient(ctx, args[1])
	case len(args) == 3 && args[0] == "connect":
		return connectClient(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "open":
		return openClient(ctx, args[1])
	case len(args) == 2 && args[0] == "idle":
		return idleClient(ctx, args[1])
	}
	return errors.New("unknown client")
}

// selectClient runs a query and prints the number of its rows and the
// nanoseconds that it took.
func selectClient(ctx context.Context, query string) error {
	conn, err := pgconn.Connect(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	started, rows := time.Now(), 0
	results := conn.Exec(ctx, query)
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
			rows++
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	fmt.Println(rows, time.Since(started).Nanoseconds())
	return nil
}
