package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chaperone.dev/chaperone/internal/stage"
)

// runClient is a planner of the benchmark. It prints times as nanoseconds of the
// wall clock, which it shares with who reads them.
func runClient(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "ask":
		return askClient(ctx)
	case len(args) == 2 && args[0] == "hold":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return holdClient(ctx, n)
	}
	return errors.New("unknown client")
}

// askClient runs a query that is held, once for each line that it reads, and prints
// when it had the result.
func askClient(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, stage.ConnString)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var n int
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n); err != nil {
			return err
		}
		fmt.Println("had", time.Now().UnixNano())
	}
	return nil
}

// connectors is how many sessions a client opens at once.
const connectors = 4

// holdClient opens sessions, says so, and prints when the last of them was closed,
// how many were told of a lock, and what else the last that was told something else was told.
func holdClient(ctx context.Context, n int) error {
	conns := make([]*pgx.Conn, n)
	errs := make([]error, n)
	slots := make(chan struct{}, connectors)
	var opening sync.WaitGroup
	for i := range conns {
		opening.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if conns[i], errs[i] = pgx.Connect(ctx, stage.ConnString); errs[i] == nil {
				_, errs[i] = conns[i].Exec(ctx, "SELECT 1")
			}
		})
	}
	opening.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println("ready")
	ended := make([]time.Time, n)
	var waiting sync.WaitGroup
	for i, conn := range conns {
		waiting.Go(func() {
			_, errs[i] = conn.WaitForNotification(ctx) // there is none
			ended[i] = time.Now()
		})
	}
	waiting.Wait()
	var last time.Time
	told, otherwise := 0, "-"
	for i, at := range ended {
		if at.After(last) {
			last = at
		}
		var fatal *pgconn.PgError
		if errors.As(errs[i], &fatal) && strings.HasPrefix(fatal.Message, "locked by ") {
			told++
		} else {
			otherwise = errs[i].Error()
		}
	}
	fmt.Println("cut", last.UnixNano(), told, otherwise)
	return nil
}
