package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type results struct {
	approvals approvalTimes
	locks     lockTimes
}

// series are the times of one thing, one per run.
type series []time.Duration

// at is the time that the share of the runs needed at most.
func (s series) at(share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func (s series) String() string {
	return fmt.Sprintf("median %s, p95 %s, worst %s", milliseconds(s.at(0.5)), milliseconds(s.at(0.95)), milliseconds(slices.Max(s)))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func (r results) markdown(o options) string {
	var kernel unix.Utsname
	release := "of unknown release"
	if err := unix.Uname(&kernel); err == nil {
		release = unix.ByteSliceToString(kernel.Release[:])
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# How soon people's word has its effect

Written by `+"`make bench-people`"+`. One machine (%d cores, Linux %s, %s) runs everything: the clients, PostgreSQL, and the node with
its NATS server and its sink. All connections have TLS. Times are from the moment when the request to the sink was sent,
over its unix socket.

## An approval, to the answer of the query that was held for it

One query at a time is held, and approved as soon as the sink tells of it; %d times, after %d that don't count.

| | median | p95 | worst |
|---|---:|---:|---:|
`, runtime.NumCPU(), release, runtime.GOARCH, o.approvals, warmUp)
	for _, row := range []struct {
		name string
		s    series
	}{{"the sink has signed and stored the vote", r.approvals.answered}, {"the client has its result", r.approvals.had}} {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.name, milliseconds(row.s.at(0.5)), milliseconds(row.s.at(0.95)), milliseconds(slices.Max(row.s)))
	}
	fmt.Fprintf(&b, `
## A lock, to the end of the last session

%d idle sessions of %d jobs to one target, which is locked; %d times. %d of the %d clients were told of the lock.
With each session a PostgreSQL process ends, and on one machine these take the processors that the node and the clients
need, which is most of the time until the last account is gone.

| | median | worst |
|---|---:|---:|
`, o.sessions, o.jobs, len(r.locks.cut), r.locks.told, r.locks.sessions)
	for _, row := range []struct {
		name string
		s    series
	}{
		{"the sink has signed and stored the lock", r.locks.answered},
		{"the last client's connection is closed", r.locks.cut},
		{"the last account is gone at the server", r.locks.revoked},
	} {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", row.name, milliseconds(row.s.at(0.5)), milliseconds(slices.Max(row.s)))
	}
	b.WriteString(`
The time of a decision is measured by ` + "`go test -bench Decide ./pkg/policy`" + `.
`)
	return b.String()
}
