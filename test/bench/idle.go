package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

const (
	idleTitle    = "idle sessions"
	idleSessions = 5000
	idleTimeout  = 10 * time.Minute
)

// idleResult is the memory that idle sessions take of the daemon's.
type idleResult struct {
	sessions     int
	before, with int64 // bytes that are the process's own and in memory
}

// measureIdle has a client hold sessions that have run a query, and looks at the daemon.
func (w *world) measureIdle(ctx context.Context, chaperone *path) (_ *idleResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &idleResult{sessions: idleSessions}
	if r.before, err = ownMemory(w.daemon); err != nil {
		return nil, err
	}
	cmd := chaperone.command(ctx, self, clientWord, "idle", strconv.Itoa(idleSessions))
	cmd.Env = append(cmdEnv(cmd.Env), chaperone.environment()...)
	cmd.Stderr = os.Stderr
	done, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done.Close(), cmd.Wait()) }()
	if line, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the client printed %q: %w", line, err)
	}
	r.with, err = ownMemory(w.daemon)
	fmt.Fprintf(os.Stderr, "%s: %d bytes, with %d sessions %d\n", idleTitle, r.before, r.sessions, r.with)
	return r, err
}

var anonymous = regexp.MustCompile(`RssAnon:\s*(\d+) kB`)

// ownMemory is what a process has of memory that backs no file (proc_pid_status(5),
// RssAnon). What its garbage collector is about to give back is in it.
func ownMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	found := anonymous.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("/proc/%d/status tells no RssAnon", pid)
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	return kilobytes << 10, err
}

// idleClient opens sessions, runs a query in each, and holds them until its input ends.
func idleClient(ctx context.Context, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]*pgconn.PgConn, n)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close(ctx) // it is done with
			}
		}
	}()
	var opening errgroup.Group
	opening.SetLimit(16)
	for i := range conns {
		opening.Go(func() (err error) {
			if conns[i], err = pgconn.Connect(ctx, ""); err != nil {
				return err
			}
			_, err = conns[i].Exec(ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = 1").ReadAll()
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
