package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"chaperone.dev/chaperone/internal/intercept"
	"chaperone.dev/chaperone/internal/resolver"
)

// learner lets everybody resolve everything, and forgets it.
type learner struct{}

func (learner) Admit(uint64, string) bool { return true }

func (learner) Learned(context.Context, uint64, string, []netip.Addr, time.Duration) error {
	return nil
}

// resolving is the daemon's end of a planner's questions.
type resolving struct {
	sockets *intercept.Datagrams
	stop    context.CancelFunc
	ended   []chan error
}

func (w *world) startResolver(ctx context.Context) (*resolving, error) {
	r, err := resolver.New(resolver.Options{
		Watcher: learner{}, Servers: []netip.AddrPort{at(nameServer, dnsPort)}, Log: zerolog.Nop(),
	})
	if err != nil {
		return nil, err
	}
	sockets, err := w.i.ListenDatagrams(ctx, intercept.Namespace{}, w.plannerID)
	if err != nil {
		return nil, err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &resolving{sockets: sockets, stop: stop}
	for _, conn := range sockets.Conns {
		ended := make(chan error, 1)
		s.ended = append(s.ended, ended)
		go func() {
			ended <- r.ServeUDP(serving, conn, func(netip.AddrPort) (uint64, bool) { return w.plannerID, true })
		}()
	}
	return s, nil
}

func (r *resolving) close() error {
	r.stop()
	var errs []error
	for _, ended := range r.ended {
		errs = append(errs, <-ended)
	}
	return errors.Join(append(errs, r.sockets.Close())...)
}

// questions are how many one client asks in one sample.
const questions = 250

// measureDNS times a question and its answer: straight to a real name server; to the
// daemon's resolver, which asks that server; and as a planner, whom the kernel sends to
// the resolver.
func (w *world) measureDNS(ctx context.Context) (tables []table, err error) {
	if err := w.enforce(state{}); err != nil {
		return nil, err
	}
	serving, err := w.startResolver(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, serving.close()) }()
	straight := at(nameServer, dnsPort)
	daemon := serving.sockets.Conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	ways := []variant{
		{name: "the server, directly", cgroup: w.outside, to: straight},
		{name: "the daemon's resolver, no hooks", cgroup: w.outside, to: daemon},
		{name: "a planner, diverted", cgroup: w.planner, to: straight},
	}
	t := table{title: "DNS: a question by UDP, and its answer",
		header: []string{"clients", "socket", "way", "p50", "min – max", "p99", "ratio of p50", "ratio of p99"}}
	for _, clients := range []int{1, 32} {
		for _, connected := range []bool{true, false} {
			rows, err := w.measureQuestions(ctx, ways, request{Do: "ask", Count: questions, Clients: clients, Connected: connected})
			if err != nil {
				return nil, err
			}
			t.rows = append(t.rows, rows...)
		}
	}
	return []table{t}, nil
}

func (w *world) measureQuestions(ctx context.Context, ways []variant, r request) ([][]string, error) {
	p50, p99 := map[string]series{}, map[string]series{}
	for round := range w.o.rounds {
		for n := range ways {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			way := ways[(n+round)%len(ways)]
			r.To = way.to
			before, err := w.i.Stats()
			if err != nil {
				return nil, err
			}
			a, err := w.ask(way.cgroup, r)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.name, err)
			}
			after, err := w.i.Stats()
			if err != nil {
				return nil, err
			}
			diverted := after[intercept.DivertedDatagram] - before[intercept.DivertedDatagram]
			if want := uint64(r.Count * r.Clients); (way.cgroup == w.planner) != (diverted == want) {
				return nil, fmt.Errorf("%s: %d of %d questions were diverted", way.name, diverted, want)
			}
			p50[way.name], p99[way.name] = append(p50[way.name], a.P50), append(p99[way.name], a.P99)
		}
	}
	socket := "unconnected (musl)"
	if r.Connected {
		socket = "connected (glibc)"
	}
	var rows [][]string
	for _, way := range ways {
		s, direct := p50[way.name], ways[0].name
		rows = append(rows, []string{
			fmt.Sprint(r.Clients), socket, way.name, nanoseconds(s.median()), nanoseconds(s.min()) + " – " + nanoseconds(s.max()),
			nanoseconds(p99[way.name].median()), ratio(s.over(p50[direct]).median()), ratio(p99[way.name].over(p99[direct]).median()),
		})
	}
	return rows, nil
}
